"""The steps' loop by itself: which attempts run, and which do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from engine import Application, Final, State, StepContext, StepFailed, Workflow, runs, step
from engine.core.entry import FailureEntry, ResultEntry, read_entry
from engine.core.ids import CallId, RunId
from engine.core.model import Event
from engine.core.transition import StartCall
from engine.flink.calls import Calls, Request
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis

pytestmark = pytest.mark.redis

BEGUN = threading.Semaphore(0)


class Asked(Event, key="id"):
    id: str


@step()
async def linger(id: str, context: StepContext) -> int:
    """The first attempt waits until it is cancelled."""
    BEGUN.release()
    if context.attempt == 1:
        await asyncio.Event().wait()
    return context.attempt


class Lingering(State):
    id: str

    @runs(linger)
    def work(self) -> str:
        return self.id

    @work.done
    def over(self, attempt: int) -> Over:
        return Over()

    @work.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over()


class Over(Final):
    pass


def begin(event: Asked) -> Lingering:
    return Lingering(id=event.id)


application = Application(workflows=[Workflow("lingering", start=begin, states=[Lingering, Over])])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RedisLog]:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    log = RedisLog.create(server.url, 1)
    yield log
    log.close()
    server.stop()


@pytest.fixture
def calls(log: RedisLog, tmp_path: Path) -> Iterator[Calls]:
    server = EmbeddedRedis(tmp_path)
    calls = Calls(application, server.url, log.header)
    calls.start()
    yield calls
    calls.stop(seconds=10)


def attempt(number: int) -> Request:
    call = StartCall(RunId("r"), CallId("1.0"), "linger", Raw(b'"a"'), number, 0)
    return Request("lingering", "a", call)


def appended(log: RedisLog) -> list[ResultEntry | FailureEntry]:
    """Everything on the log once something is there."""
    while (tail := log.tail(0)) is None:
        pass
    found = [read_entry(item.payload) for item in log.scan("log", 0, until=tail)]
    return [entry for entry in found if isinstance(entry, ResultEntry | FailureEntry)]


def test_a_later_attempt_takes_the_place_of_one_that_still_runs(calls: Calls, log: RedisLog) -> None:
    """After a restore an attempt runs again whose failure already stands on the log: the fold asks for the next."""
    calls.submit([attempt(1)])
    BEGUN.acquire()
    calls.submit([attempt(2), attempt(1)])
    BEGUN.acquire()

    results = appended(log)

    assert [(type(r), r.attempt) for r in results] == [(ResultEntry, 2)]
