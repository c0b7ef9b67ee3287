"""Steps for the steps' loop by itself, each good for one thing; what they did is told through `SEEN` and `GATES`."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import BaseModel

from engine import Application, Final, State, StepContext, Workflow, runs, step
from engine.core.model import Event
from engine.core.steps import Leave, Limit, NeverAgain, Retry, Step, StepHalts, TryAgain

SEEN: list[str] = []
BEGUN = threading.Semaphore(0)
GO: dict[str, threading.Event] = defaultdict(threading.Event)
"""What a test opens, by the step's input."""
WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")


class Card(BaseModel):
    number: str


class Asked(Event, key="id"):
    id: str


async def opened(name: str) -> None:
    """Wait until the test opens it; a thread does, so that the loop goes on."""
    await asyncio.to_thread(GO[name].wait, 30)


@step()
async def linger(id: str, context: StepContext) -> int:
    """The first attempt waits until it is cancelled."""
    BEGUN.release()
    if context.attempt == 1:
        await asyncio.Event().wait()
    return context.attempt


@step()
async def three(id: str, context: StepContext) -> tuple[int, ...]:
    async def work(number: int) -> int:
        SEEN.append(f"{id} {number}")
        if id == f"fails at {number}":
            raise ValueError("the line is cut")
        return number * 10

    return tuple([await context.once(f"part {n}", partial(work, n)) for n in (1, 2, 3)])


@step()
async def stray(id: str, context: StepContext) -> str:
    """Of two parts at once one fails, and `gather` lets the other one go on."""

    async def slow() -> str:
        await opened(id)
        SEEN.append("slow")
        return "slow"

    async def quick() -> str:
        raise ValueError(id)

    async def slowly() -> None:
        try:
            await context.once("slow", slow)
        finally:
            BEGUN.release()

    if context.attempt == 1:
        await asyncio.gather(slowly(), context.once("quick", quick))
    return id


@step()
async def swallow(id: str, context: StepContext) -> str:
    """Takes every failure for an answer, as some do."""
    try:
        answer = await context.ask("chiefs", "May I?", Leave, name="leave")
    except Exception:  # noqa: BLE001 - as some do
        return "swallowed"
    return f"{answer.who}: {answer.answer.granted}"


@step()
async def ask_among_others(id: str, context: StepContext) -> str:
    """A question while something else is under way."""

    async def other() -> str:
        await opened(id)
        return "done"

    async def asking() -> bool:
        return (await context.ask("chiefs", "May I?", Leave)).answer.granted

    found, leave = await asyncio.gather(context.once("other", other), asking())
    return f"{found} {leave}"


@step()
async def twice(id: str, context: StepContext) -> int:
    async def work() -> int:
        return 1

    return await context.once("same", work) + await context.once("same", work)


@step()
async def keep_odd(id: str, context: StepContext) -> str:
    async def card() -> Card:
        return Card(number="4711")

    async def pair() -> tuple[int, int]:
        return 1, 2

    async def large() -> str:
        return "x" * (1 << 21)

    match id:
        case "typed":
            return repr((await context.once("card", card), await context.once("pair", pair)))
        case "untyped":
            return repr(await context.once("card", lambda: card()))  # noqa: PLW0108 - as many write it
        case "large":
            return await context.once("large", large)
        case _:
            return repr(await context.once("pair", pair, gives=str))


@step()
async def refuse(kind: str) -> str:
    errors: dict[str, BaseException] = {
        "later": TryAgain("come back", after=timedelta(seconds=90)),
        "down": TryAgain("down", outage=True),
        "never": NeverAgain("not with us"),
        "halts": StepHalts("the key is wrong"),
        "else": ValueError("no"),
    }
    raise errors[kind]


@step()
async def count(words: str, context: StepContext) -> str:
    for number in range(50):
        context.progress(f"{number} of 50")
    if words == "fail":
        raise ValueError("at the end")
    return "counted"


@step(blocking=True)
def block(id: str) -> str:
    if id == "generator":
        next(iter(()))
    BEGUN.release()
    GO[id].wait(30)
    return threading.current_thread().name.rpartition("_")[0]


@step(blocking=True, timeout=timedelta(seconds=0.1))
def hang(id: str, context: StepContext) -> str:
    context.progress("hangs")
    GO[id].wait(30)
    SEEN.append(f"{id} ends")
    return "late"


@step(limit=Limit(calls=1))
async def one_at_a_time(id: str) -> str:
    SEEN.append(f"{id} in")
    BEGUN.release()
    await opened(id)
    SEEN.append(f"{id} out")
    return id


@step()
async def share(id: str, context: StepContext) -> str:
    return " ".join(f"{name}={value}" for name, value in context.resources.items())


@step(timeout=timedelta(seconds=0.1))
async def late(id: str, context: StepContext) -> str:
    async def work() -> str:
        await asyncio.Event().wait()
        return "never"

    return await context.once("the slow one", work)


async def _think(id: str, context: StepContext) -> str:
    """Two turns with a model; the second waits for a pass much longer than the step's time limit."""
    runner: Any = context.runner
    async with runner.passing("model:thinker", tokens=10):
        SEEN.append(f"{id} first")
        BEGUN.release()
        await opened(id)
    async with runner.passing("model:thinker", tokens=10):
        SEEN.append(f"{id} second")
    return id


think: Step[str, str] = Step("think", _think, Retry(), timedelta(seconds=30), None, model="thinker")


class Thinker:
    """A model as the application knows it."""

    limits = Limit(calls=1)

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[str]:
        yield name


async def look_up(id: str) -> str | None:
    SEEN.append(f"{id} looked up")
    return "found" if id == "done" else None


@step(reconcile=look_up)
async def order(id: str) -> str:
    return "made"


class Lingering(State):
    id: str

    @runs(linger)
    def work(self) -> str:
        return self.id

    @work.done
    def over(self, attempt: int) -> Over:
        return Over()

    @work.failed
    def lost(self, failure: Any) -> Over:
        return Over()


class Over(Final):
    pass


def begin(event: Asked) -> Lingering:
    return Lingering(id=event.id)


TRIES: list[str] = []
FAILING: set[str] = set()
"""Resources that cannot be made the next time."""


def resource(name: str) -> Any:
    @asynccontextmanager
    async def make() -> AsyncIterator[str]:
        TRIES.append(f"{name} asked for")
        if name in FAILING:
            FAILING.remove(name)
            raise ConnectionError("not yet")
        entered = asyncio.current_task()
        yield name
        by = "the same task" if asyncio.current_task() is entered else "another task"
        TRIES.append(f"{name} closed by {by}")

    return make


workflow = Workflow("lingering", start=begin, states=[Lingering, Over])
application = Application(
    workflows=[workflow],
    resources={name: resource(name) for name in ("first", "second")},
    models={"thinker": Thinker()},
)
