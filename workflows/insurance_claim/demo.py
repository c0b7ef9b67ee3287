"""`make demo`: thirty days of 200 insurance claims in a few minutes, with a `kill -9` of the engine in the middle.

Real: the engine, its log, the language model, the kill. Synthetic: customers, claims and reviewers (generator.py).

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
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from engine import Client, LongwatchError
from workflows.insurance_claim import application
from workflows.insurance_claim.assessor import MODEL_SETTING
from workflows.insurance_claim.demo_count import Course, Summary, count
from workflows.insurance_claim.demo_engine import APPLICATION, EngineProcess
from workflows.insurance_claim.demo_people import LogClock, People
from workflows.insurance_claim.demo_screen import Screen
from workflows.insurance_claim.errors import ClaimSetupError, DemoFailedError
from workflows.insurance_claim.generator import CLAIMS, crowd, make_world
from workflows.insurance_claim.model_server import running_server
from workflows.insurance_claim.world import PATH_SETTING

DATA = Path(".longwatch", "demo")
LAPSE = 20_000
KILLED_FROM = timedelta(days=5)
"""The engine is killed at the first call to the model that is in flight from here on, ..."""
KILLED_BY = timedelta(days=9)
"""... and here if there is none."""
GIVEN_UP_ON = timedelta(days=75)
"""Past every deadline: only a machine on which the model is slower than all of them gets there."""
LOOK_EVERY_S = 0.3


class Demo:
    """One demo on a data folder of its own."""

    def __init__(self, data: Path, claims: int, screen: Screen) -> None:
        self.data, self.screen = data, screen
        self.people = People(list(crowd(claims)))
        self.world = make_world(data / "claim-world.sqlite")
        self.began = time.monotonic()
        self.killed_for: float | None = None

    async def run(self, model_url: str) -> Summary:
        """From the start of the engine to the last figure."""
        environment = {PATH_SETTING: str(self.world.path.absolute()), "LONGWATCH_MODEL_URL": model_url}
        engine = EngineProcess(self.data, LAPSE, environment)
        try:
            self.screen.say("starting the engine: Redis, Java, Flink")
            took = await engine.start()
            self.screen.say(
                f"it runs after {took:.0f} s; {len(self.people.crowd)} claims in thirty days of log time begin"
            )
            await self._live(engine)
            self.screen.say("everything is decided; stopping the engine")
        finally:
            await engine.stop()
        self.screen.say("folding the whole log again, and counting")
        return await self._count(engine)

    async def _live(self, engine: EngineProcess) -> None:
        async with self._client() as client:
            clock = await self.people.begin(client, LAPSE)
            began = clock.log
            while not self._may_be_killed(clock.now() - began):
                await self._look(engine, client, clock, began)
        await self._kill(engine, clock)
        async with self._client() as client:
            while not self.people.are_done and clock.now() < began + GIVEN_UP_ON:
                await self._look(engine, client, clock, began)

    async def _look(self, engine: EngineProcess, client: Client, clock: LogClock, began: datetime) -> None:
        """One round: what is due is sent, and people see how their claims stand."""
        engine.check()
        await self.people.send(client, clock.now())
        self.people.look(await client.list(limit=10_000))
        self.screen.show(clock.now() - began, self.people.states)
        await asyncio.sleep(LOOK_EVERY_S)

    def _may_be_killed(self, day: timedelta) -> bool:
        return day > KILLED_BY or (day > KILLED_FROM and self.people.states["Assessing"] > 0)

    async def _kill(self, engine: EngineProcess, clock: LogClock) -> None:
        """Kill it and start it again. People send on meanwhile: the log takes events without an engine."""
        killed = time.monotonic()
        await engine.kill()
        self.screen.say("kill -9 on the engine: supervisor, Flink and Redis; starting it again")
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

    async def _count(self, engine: EngineProcess) -> Summary:
        replay = await engine.ask("replay", "--app", APPLICATION)
        async with self._client() as client:
            seconds = time.monotonic() - self.began
            course = Course(self.people.receipts, 0 if self.killed_for is None else 1, self.killed_for or 0, seconds)
            return await count(client, self.world, course, replay)

    def _client(self) -> Client:
        return Client(application, data=self.data)


@contextmanager
def model_url(log: Path, screen: Screen) -> Iterator[str]:
    """Where the embedded model listens while this lasts; nowhere, when a provider's is asked."""
    if name := os.environ.get(MODEL_SETTING):
        screen.say(f"the model is {name}")
        yield ""
        return
    screen.say("starting the language model: SmolLM2-135M, on this machine")
    with running_server(log) as server:
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
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when everything that is promised was kept."""
    options = arguments(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started here, as Ctrl-C does
    screen = Screen(quiet=options.json)
    try:
        with empty_folder(options.data), model_url(options.data / "logs" / "model.log", screen) as url:
            summary = asyncio.run(Demo(options.data, options.claims, screen).run(url))
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
