"""Long steps on a real engine that is killed: what is kept is not done again, and questions find their answers."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from engine.core.entry import AnswerEntry, write_entry
from engine.core.record import Record
from tests.flink.harness import Stage
from tests.flink.long_calls import HANGS, Quick, Travelled, Visited, Wanted, Wondered, application
from tests.flink.world import EFFECTS, MENDED

pytestmark = [pytest.mark.flink, pytest.mark.redis]

TRIPS, QUICK = 5, 200
NO_CHECKPOINT = 3_600_000
APP = "tests.flink.long_calls:application"


def effects(stage: Stage) -> Counter[str]:
    path = stage.data / EFFECTS
    return Counter(path.read_text().splitlines() if path.exists() else [])


def kill(stage: Stage) -> None:
    """The JVM, at once; its driver ends with it."""
    assert stage.engine is not None
    os.kill(stage.jvm, signal.SIGKILL)
    stage.engine.kill()


def told(stage: Stage, workflow: str, key: str) -> str:
    """What the run says at its end."""
    last = next(r for r in reversed(stage.journal.of(workflow, key)) if r.data != Raw(b""))
    return str(msgspec.json.decode(last.data)["told"])


def parts(stage: Stage, key: str) -> list[Record]:
    return [r for r in stage.journal.of("trip", key) if r.cause == "kept"]


def test_long_steps_of_an_engine_that_is_killed(tmp_path: Path) -> None:
    with Stage(tmp_path, application=application) as stage:
        stage.start(app=APP, checkpoint_interval_ms=NO_CHECKPOINT)
        stage.send(*(Travelled(id=f"t{i}") for i in range(TRIPS)), *(Quick(id=f"q{i}") for i in range(QUICK)))
        stage.send(Wanted(id="boat"), Visited(customer="ann"), Visited(customer="ann"))
        hanging = [f"t{i} {HANGS}" for i in range(TRIPS)]
        stage.until(lambda: all(effects(stage)[line] for line in hanging), "all trips hang")
        stage.until_status("trip", "finished", QUICK)
        stage.until(lambda: stage.journal.latest["purchase", "boat"].asks, "somebody is asked")
        stage.send(Wondered(id="w", customer="ann"), Wondered(id="nobody", customer="bob"))
        stage.until_status("curiosity", "finished", 2)
        before = effects(stage)
        kill(stage)

        stage.start(app=APP, environment={MENDED: "1"})
        stage.until_status("trip", "finished", QUICK + TRIPS)
        (asks,) = stage.journal.latest["purchase", "boat"].asks
        answer = AnswerEntry("purchase", "boat", asks.call, asks.name, "ann", Raw(b'{"granted":true}'))
        stage.log.append(stage.partition("purchase", "boat"), write_entry(answer))
        stage.until_status("purchase", "finished", 1)
        after = effects(stage)
        stage.proven()

        done_twice = {line: count for line, count in after.items() if count > 1}
        assert done_twice == dict.fromkeys(hanging, 2), "only what hung at the kill was begun again"
        assert {f"t{i} {n}" for i in range(TRIPS) for n in range(1, 6)} <= after.keys()
        assert after["boat looks"] == 1
        assert after["boat buys"] == 1
        assert before["boat buys"] == 0
        assert told(stage, "trip", "t0") == "1500 miles"
        assert [(r.inner, r.again) for r in parts(stage, "t0")] == [(f"leg {n}", n == HANGS) for n in range(1, 6)]
        assert (asks.group, asks.question) == ("treasurers", "May I buy a boat?")
        assert told(stage, "purchase", "boat") == "a boat: True by ann"
        assert told(stage, "curiosity", "w") == "2 visits"
        assert told(stage, "curiosity", "nobody") == "NoRun, so -1"
        assert stage.journal.latest["memory", "ann"].status == "waiting"
