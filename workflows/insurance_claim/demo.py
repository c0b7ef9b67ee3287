"""`make demo`: thirty days of 200 insurance claims in a few minutes, with a `kill -9` of the engine in the middle.

The kill comes while an agent is in mid-thought: it has stored a turn, and is about the next one.

Real: the engine, its log, the language model, the kill, the commands by which people answer. Synthetic: customers,
claims, and what people say (generator.py).

The log runs with a lapse of 20,000: a day takes 4.3 seconds. So a review, which expires after 14 days, has 60 seconds
of the wall, of which the slowest reviewer takes 17. Neither the restart nor the model's queue lets it expire: people
send while the engine is down, the log stamps what they send, and waiting for the model has no deadline that is near.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from engine import Client, LongwatchError
from workflows.insurance_claim import application
from workflows.insurance_claim.demo_count import Course, Summary, count
from workflows.insurance_claim.demo_desk import Desk
from workflows.insurance_claim.demo_engine import APPLICATION, EngineProcess
from workflows.insurance_claim.demo_people import LogClock, People, claims, settled
from workflows.insurance_claim.demo_screen import Screen
from workflows.insurance_claim.errors import ClaimSetupError, DemoFailedError
from workflows.insurance_claim.generator import CLAIMS, crowd, make_world
from workflows.insurance_claim.model_front import SharedAnswers
from workflows.insurance_claim.model_server import running_server
from workflows.insurance_claim.steps import assess_risk
from workflows.insurance_claim.world import PATH_SETTING

DATA = Path(".longwatch", "demo")
LAPSE = 20_000
KILLED_FROM = timedelta(days=5)
"""The engine is killed when it is first seen from here on that an agent is in mid-thought, ..."""
KILLED_BY = timedelta(days=9)
"""... and here if none is."""
MODEL_SETTING = "LONGWATCH_MODEL_CLAIMS_ASSESSOR"
GIVEN_UP_ON = timedelta(days=75)
"""Past every deadline: only a machine on which the model is slower than all of them gets there."""
FIRST_ASSESSED = 8
"""So many agents are looked at: two are at work, the others wait for the model in turn."""
LOOK_EVERY_S = 0.3
LOOK_CLOSELY_EVERY_S = 0.05


@dataclass(frozen=True)
class Watched:
    """Who looks at the engine: nobody, by default."""

    otlp: str = ""
    """Where it sends its traces."""
    metrics: str = ""
    """Where it shows its metrics."""
    hold: bool = False
    """It runs on at the end, until somebody has looked."""

    def environment(self) -> dict[str, str]:
        """The engine's settings for it."""
        told = {"LONGWATCH_OTLP": self.otlp, "LONGWATCH_METRICS": self.metrics}
        return {name: value for name, value in told.items() if value}


class Demo:
    """One demo on a data folder of its own."""

    def __init__(self, data: Path, claims: int, screen: Screen, watched: Watched | None = None) -> None:
        self.data, self.screen, self.watched = data, screen, watched or Watched()
        self.people = People(list(crowd(claims)))
        self.desk = Desk(self.people.crowd, screen.say)
        self.world = make_world(data / "claim-world.sqlite")
        self.began = time.monotonic()
        self.killed_at: datetime | None = None
        self.killed_for = 0.0
        self.settled = 0

    async def run(self, model_url: str) -> Summary:
        """From the start of the engine to the last figure."""
        environment = {
            PATH_SETTING: str(self.world.path.absolute()),
            "LONGWATCH_MODEL_URL": model_url,
            **self.watched.environment(),
        }
        engine = EngineProcess(self.data, LAPSE, environment)
        try:
            self.screen.say("starting the engine: Redis, Java, Flink")
            took = await engine.start()
            self.screen.say(
                f"it runs after {took:.0f} s; {len(self.people.crowd)} claims in thirty days of log time begin"
            )
            await self._live(engine)
            if self.watched.hold:
                await self._hold(engine)
            self.screen.say("everything is decided; stopping the engine")
        finally:
            await engine.stop()
        self.screen.say("folding the whole log again, and counting")
        return await self._count(engine, SharedAnswers(answers_path(self.data)) if model_url else None)

    async def _live(self, engine: EngineProcess) -> None:
        async with self._client() as client:
            clock = await self.people.begin(client, LAPSE)
            began = clock.log
            while not await self._may_be_killed(client, clock.now() - began):
                await self._look(engine, client, clock, began)
            await engine.kill()
            self.killed_at = clock.now()
            self.screen.say("kill -9 on the engine: supervisor, Flink and Redis; starting it again")
            restarting = asyncio.create_task(self._restart(engine, clock))
            await self.desk.settled()
        await restarting
        async with self._client() as client:
            while not self._is_over and clock.now() < began + GIVEN_UP_ON:
                await self._look(engine, client, clock, began)
            await self.desk.settled()

    async def _hold(self, engine: EngineProcess) -> None:
        """Let people look at an engine that runs, until Ctrl-C or SIGTERM; only then is it stopped."""
        self.screen.say("everything is decided; the engine runs on to be looked at, Ctrl-C ends it")
        enough = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, enough.set)
        if not self.screen.is_for_people:
            print(json.dumps({"held": True}), flush=True)
        while not enough.is_set():
            engine.check()
            with suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), LOOK_EVERY_S)

    @property
    def _is_over(self) -> bool:
        return self.people.are_done and self.desk.is_idle and self.settled == len(self.people.crowd)

    async def _look(self, engine: EngineProcess, client: Client, clock: LogClock, began: datetime) -> None:
        """One round: what is due is sent and answered, and people see how their claims stand."""
        engine.check()
        await self.people.send(client, clock.now())
        self.desk.look(await client.inbox(limit=1_000))
        self.desk.answer(client, engine, clock.now())
        runs = await client.list(limit=10_000)
        self.people.look(claims(runs))
        self.settled = settled(runs)
        self.screen.show(clock.now() - began, self.people.states, self.desk.waiting)
        closely = self.killed_at is None and clock.now() - began > KILLED_FROM
        await asyncio.sleep(LOOK_CLOSELY_EVERY_S if closely else LOOK_EVERY_S)

    async def _may_be_killed(self, client: Client, day: timedelta) -> bool:
        if day > KILLED_BY or day <= KILLED_FROM:
            return day > KILLED_BY
        for address in self.people.assessed[:FIRST_ASSESSED]:
            if await in_mid_thought(client, address):
                return True
        return False

    async def _restart(self, engine: EngineProcess, clock: LogClock) -> None:
        """Start it again. People send on meanwhile: the log takes events without an engine."""
        killed = time.monotonic()
        starting = asyncio.create_task(engine.start())
        before = len(self.people.receipts)
        async with self._client() as client:
            while not starting.done():
                with suppress(LongwatchError):
                    await self.people.send(client, clock.now())
                await asyncio.wait((starting,), timeout=LOOK_EVERY_S)
        await starting
        self.killed_for = time.monotonic() - killed
        sent = len(self.people.receipts) - before
        self.screen.say(f"it runs again, {self.killed_for:.0f} s after the kill; {sent} events were sent meanwhile")

    async def _count(self, engine: EngineProcess, shared: SharedAnswers | None) -> Summary:
        replay = await engine.ask("replay", "--app", APPLICATION)
        receipts = [*self.people.receipts, *self.desk.receipts]
        async with self._client() as client:
            seconds = time.monotonic() - self.began
            course = Course(receipts, self.killed_at, self.killed_for, seconds)
            return await count(client, self.world, shared, course, replay)

    def _client(self) -> Client:
        return Client(application, data=self.data)


async def in_mid_thought(client: Client, address: str) -> bool:
    """Whether a run's agent has stored something, and is at work."""
    detail = await client.show(address)
    return any(call.step == assess_risk.name and call.status == "running" and call.kept for call in detail.calls)


def answers_path(data: Path) -> Path:
    """What the small model said, beside the world: it outlives a kill."""
    return data / "model-answers.sqlite"


@contextmanager
def model_url(data: Path, screen: Screen) -> Iterator[str]:
    """Where the embedded model listens while this lasts; nowhere, when a provider's is asked."""
    if name := os.environ.get(MODEL_SETTING):
        screen.say(f"the model is {name}")
        yield ""
        return
    screen.say("starting the language model: SmolLM2-135M, on this machine")
    with running_server(data / "logs" / "model.log", answers_path(data)) as server:
        yield server.url


@contextmanager
def empty_folder(data: Path) -> Iterator[None]:
    """The demo's folder without what an earlier demo left.

    Raises:
        DemoFailedError: another demo is at work in it, or it is somebody else's.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    with data.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailedError(
                f"another demo runs in {data}; wait for it, or take another folder (--data)"
            ) from None
        if data.exists() and any(data.iterdir()) and not (data / "claim-world.sqlite").exists():
            raise DemoFailedError(f"{data} holds something else than a demo; take another folder (--data)")
        shutil.rmtree(data, ignore_errors=True)
        (data / "logs").mkdir(parents=True)
        yield


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="the summary as one JSON object on the last line")
    parser.add_argument("--claims", type=int, default=CLAIMS, help="how many; default %(default)s")
    parser.add_argument("--data", type=Path, default=DATA, help="the folder; default %(default)s")
    parser.add_argument("--otlp", default="", metavar="URL", help="where the engine sends its traces")
    parser.add_argument("--metrics", default="", metavar="PLACE", help="where it shows its metrics: host:port")
    parser.add_argument("--hold", action="store_true", help="let the engine run on at the end, until Ctrl-C")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when everything that is promised was kept."""
    options = arguments(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started here, as Ctrl-C does
    screen = Screen(quiet=options.json)
    watched = Watched(options.otlp, options.metrics, options.hold)
    try:
        with empty_folder(options.data), model_url(options.data, screen) as url:
            summary = asyncio.run(Demo(options.data, options.claims, screen, watched).run(url))
    except (ClaimSetupError, DemoFailedError, LongwatchError) as error:
        screen.fail(str(error))
        return 1
    except KeyboardInterrupt:
        screen.fail("interrupted; the engine was stopped")
        return 130
    if options.json:
        print(json.dumps(asdict(summary)))
    else:
        screen.summarize(summary, options.data)
    return 0 if summary.holds else 1


if __name__ == "__main__":
    sys.exit(main())
