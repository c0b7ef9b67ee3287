"""`longwatch record` writes what a run's calls kept into a file that a test can play."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import Raw

from engine import Application
from engine.core.entry import KeptEntry, Kind, Used, write_entry
from engine.core.partition import partition_of
from engine.core.record import read_record
from engine.testing import RecordedAnswers
from tests import desk
from tests.cli.inside import Call
from tests.cli.test_run_commands import event
from tests.plain_engine import PlainEngine


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGWATCH_APP", "tests.desk:app")


@pytest.fixture
def app() -> Application:
    return desk.app


def dreaming(engine: PlainEngine, call: Call) -> None:
    """A run whose call asks a person."""
    assert call("send", "-", stdin=event("Dreamt", "d-1", text="rain")).code == 0
    engine.work()


def keep(engine: PlainEngine, index: int, name: str, used: Used | None = None) -> None:
    partition = partition_of("dreams", "d-1", 4)
    (item, *_) = engine.log.scan("journal", partition)
    record = read_record(item.payload)
    one = next(c for c in record.calls if c.step == "dream")
    output = Raw(json.dumps({"said": name}).encode())
    kind: Kind = "model" if used else "tool"
    entry = KeptEntry("dreams", "d-1", record.run, one.id, 1, index, name, output, kind, used=used)
    engine.log.append(partition, write_entry(entry))
    engine.work()


def test_what_a_run_kept_is_written_and_can_be_read(engine: PlainEngine, call: Call, tmp_path: Path) -> None:
    dreaming(engine, call)
    used = Used("dreamer", input=3, output=4, cost=5)
    keep(engine, 0, "turn 1", used)
    keep(engine, 1, "weather 1.1")
    keep(engine, 1, "late")
    said = call("record", "dreams/d-1", "--out", "dream.json")

    assert (said.code, said.out) == (0, "dream.json: 2 results of 1 calls (dream)\n")
    recorded = RecordedAnswers.read(tmp_path / "dream.json")
    (one,) = recorded.calls
    assert [(k.name, k.kind, k.used) for k in one.kept] == [("turn 1", "model", used), ("weather 1.1", "tool", None)]
    assert json.loads((tmp_path / "dream.json").read_text())["calls"][0]["kept"][0]["output"] == {"said": "turn 1"}
    assert call("record", "d-1", "--json").lines == [{"file": "answers.json", "calls": 1, "results": 2}]


def test_a_run_that_kept_nothing_is_told(engine: PlainEngine, call: Call, tmp_path: Path) -> None:
    dreaming(engine, call)
    said = call("record", "d-1")

    assert said.code == 1
    assert "no call of dreams/d-1 has kept anything that could be played" in said.err
    assert not (tmp_path / "answers.json").exists()


def test_a_run_that_is_not_there_is_told(engine: PlainEngine, call: Call) -> None:
    assert call("record", "nobody").code == 4
