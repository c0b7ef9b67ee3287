"""Steps that ask a server in each way there is, and a workflow that runs them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from http.client import HTTPConnection
from typing import Annotated

import httpx
import httpx2
import urllib3
from opentelemetry import trace
from pydantic import BaseModel

from engine import (
    Application,
    Event,
    Final,
    Model,
    Retry,
    Secret,
    State,
    StepContext,
    StepFailed,
    Workflow,
    llm_step,
    runs,
    step,
)
from engine.core.steps import Leave

LISTENER = "LONGWATCH_TEST_LISTENER"
tracer = trace.get_tracer("tests")


async def by_httpx(path: str) -> int:
    async with httpx.AsyncClient(base_url=os.environ[LISTENER]) as client:
        return (await client.get(path)).status_code


async def by_httpx2(path: str) -> int:
    async with httpx2.AsyncClient(base_url=os.environ[LISTENER]) as client:
        return (await client.get(path)).status_code


def by_urllib3(path: str) -> int:
    with urllib3.PoolManager() as pool:
        return pool.request("GET", os.environ[LISTENER] + path).status


def by_hand(path: str, headers: dict[str, str]) -> int:
    """By a client that nobody instruments."""
    connection = HTTPConnection(os.environ[LISTENER].removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


@step()
async def ask_plainly(path: str) -> int:
    return await by_httpx(path)


@step(blocking=True)
def ask_from_a_thread(path: str) -> int:
    return by_urllib3(path)


@step()
async def ask_in_parts(path: str, context: StepContext) -> list[int]:
    """One before them, two at the same time, and one by hand."""

    async def aloud() -> int:
        return await asyncio.to_thread(by_hand, f"{path}/third", context.headers())

    first = await by_httpx2(f"{path}/first")
    work: list[tuple[str, Callable[[], Awaitable[int]]]] = [
        (name, partial(by_httpx2, f"{path}/{name}")) for name in ("left", "right")
    ]
    both = await asyncio.gather(*(context.once(name, each) for name, each in work))
    third = await context.once("third", aloud)
    await asyncio.to_thread(by_hand, f"{path}/last", context.headers())
    return [first, *both, third]


@step()
async def ask_and_fail(path: str, context: StepContext) -> int:
    """Kept is nothing: the part fails behind its request."""

    async def part() -> int:
        await by_httpx2(f"{path}/{context.attempt}")
        raise ValueError("no use")

    return await context.once("part", part)


@step(timeout=timedelta(seconds=0.3))
async def ask_too_long(path: str) -> int:
    await by_httpx2(path)
    with tracer.start_as_current_span("waits"):
        await asyncio.Event().wait()
    return 0


@step()
async def ask_a_person(path: str, context: StepContext) -> int:
    found = await by_httpx2(path)
    leave = await context.ask("chiefs", "May I?", Leave)
    return found if leave.answer.granted else 0


class Card(BaseModel, frozen=True):
    path: str
    pin: Annotated[str, Secret]


@step()
async def ask_with_a_pin(card: Card) -> int:
    with tracer.start_as_current_span("check", attributes={"card": repr(card)}):
        return await by_httpx2(f"{card.path}?p={card.pin}")


class Dossier(BaseModel, frozen=True):
    text: str


class Worth(BaseModel, frozen=True):
    score: int
    reason: str = ""


@step()
async def look_up(what: str, context: StepContext) -> str:
    """Look something up."""
    await by_httpx2("/look-up")
    await asyncio.to_thread(by_hand, "/look-up-by-hand", context.headers())
    return f"nothing is known of {what}"


judge = llm_step(
    "judge",
    model="judge",
    instructions="Say what it is worth.",
    takes=Dossier,
    gives=Worth,
    tools=[look_up],
    retry=Retry(attempts=2),
)


class Sent(Event, key="id"):
    """Somebody is to be asked."""

    id: str
    path: str


class Probed(Event, key="id"):
    id: str
    path: str


class Asking(State):
    sent: Sent

    @runs(ask_in_parts)
    def ask(self) -> str:
        return self.sent.path

    @ask.done
    def answered(self, found: list[int]) -> AskingAgain:
        return AskingAgain(path=self.sent.path)

    @ask.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(found=())


class AskingAgain(State):
    path: str

    @runs(ask_from_a_thread)
    def ask(self) -> str:
        return f"{self.path}/thread"

    @ask.done
    def answered(self, found: int) -> Over:
        return Over(found=(found,))

    @ask.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(found=())


class Over(Final):
    found: tuple[int, ...]


def begin(event: Sent) -> Asking:
    return Asking(sent=event)


asking = Workflow("asking", start=begin, states=[Asking, AskingAgain, Over])


class Probing(State):
    """Gives the other steps to the application, which runs only what a state names."""

    path: str

    @runs(ask_plainly)
    def plainly(self) -> str:
        return self.path

    @plainly.done
    def plain(self, found: int) -> Over:
        return Over(found=(found,))

    @runs(ask_and_fail)
    def failing(self) -> str:
        return self.path

    @failing.done
    def passed(self, found: int) -> Over:
        return Over(found=(found,))

    @runs(ask_too_long)
    def slowly(self) -> str:
        return self.path

    @slowly.done
    def late(self, found: int) -> Over:
        return Over(found=(found,))

    @runs(ask_a_person)
    def person(self) -> str:
        return self.path

    @person.done
    def told(self, found: int) -> Over:
        return Over(found=(found,))

    @runs(judge)
    def judging(self) -> Dossier:
        return Dossier(text=self.path)

    @judging.done
    def judged(self, found: Worth) -> Over:
        return Over(found=(found.score,))

    @runs(ask_with_a_pin)
    def secretly(self) -> Card:
        return Card(path=self.path, pin="7351")

    @secretly.done
    def checked(self, found: int) -> Over:
        return Over(found=(found,))

    @secretly.failed
    @plainly.failed
    @failing.failed
    @slowly.failed
    @person.failed
    @judging.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(found=())


def probe(event: Probed) -> Probing:
    return Probing(path=event.path)


probing = Workflow("probing", start=probe, states=[Probing, Over])
application = Application(workflows=[asking, probing], models={"judge": Model("openai-chat:gpt-5-mini")})
