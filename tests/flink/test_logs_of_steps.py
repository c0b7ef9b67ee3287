"""What steps log says which run and which attempt they work for: in the loop, in threads, in what they start."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import Raw

from engine import Application, Event, Final, State, StepContext, StepFailed, Workflow, runs, step
from engine.core.entry import read_entry
from engine.core.ids import CallId, RunId
from engine.core.transition import StartCall
from engine.flink.attempt import Request
from engine.flink.calls import Calls
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.logs import open_file

pytestmark = pytest.mark.redis

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
logger = logging.getLogger("steps")


class Asked(Event, key="id"):
    id: str


@step()
async def awaits(id: str, context: StepContext) -> str:
    logger.info("awaits")

    async def part() -> str:
        logger.info("part of it")
        return id

    await asyncio.gather(context.once("one", part), asyncio.to_thread(logger.info, "in a thread"))
    return id


@step(blocking=True)
def blocks(id: str) -> str:
    logger.info("blocks")
    return id


class Working(State):
    id: str

    @runs(awaits, blocks)
    def work(self) -> tuple[str, str]:
        return self.id, self.id

    @work.done
    def done(self, one: str, other: str) -> Over:
        return Over()

    @work.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over()


class Over(Final):
    pass


def begin(asked: Asked) -> Working:
    return Working(id=asked.id)


application = Application(workflows=[Workflow("working", start=begin, states=[Working, Over])])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RedisLog]:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    log = RedisLog.create(server.url, 1)
    yield log
    log.close()
    server.stop()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    open_file(tmp_path / "engine.log", "json")
    yield tmp_path / "engine.log"
    root.handlers[0].close()
    root.handlers[:] = before
    root.setLevel(level)


def request(step: str, key: str) -> Request:
    trace = f"00-{TRACE}-{SPAN}-01"
    call = StartCall(RunId(f"run-{key}"), CallId(f"3.{step}"), step, Raw(b'"x"'), 2, 0, trace=trace)
    return Request("working", key, call)


def await_results(log: RedisLog, count: int) -> None:
    until = datetime.now(UTC).timestamp() + 30
    while sum(read_entry(item.payload).cause == "result" for item in log.scan("log", 0)) < count:
        assert datetime.now(UTC).timestamp() < until
        time.sleep(0.05)


def test_every_line_of_a_step_names_its_run_its_attempt_and_its_trace(
    log: RedisLog, written: Path, tmp_path: Path
) -> None:
    calls = Calls(application, EmbeddedRedis(tmp_path).url, log.header)
    calls.start()
    calls.submit([request(step, key) for step in ("awaits", "blocks") for key in ("a", "b")])
    await_results(log, 4)
    calls.stop(seconds=10)
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    said = sorted((line["event"], line["key"]) for line in lines if line["logger"] == "steps")

    assert said == [(words, key) for words in ("awaits", "blocks", "in a thread", "part of it") for key in "ab"]
    for line in lines:
        if line["logger"] == "steps":
            step = "blocks" if line["event"] == "blocks" else "awaits"
            about = {name: line[name] for name in ("workflow", "run", "step", "call", "attempt", "trace_id")}
            assert about == {
                "workflow": "working",
                "run": f"run-{line['key']}",
                "step": step,
                "call": f"3.{step}",
                "attempt": 2,
                "trace_id": TRACE,
            }
