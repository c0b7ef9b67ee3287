"""The benchmark without an engine: what it counts, and what it reads from the system."""

from __future__ import annotations

import os
import threading
import time

import pytest

from benchmarks import flood, llm, processes, pure
from benchmarks.bench import Bench, Options
from benchmarks.profiled_job import Sections
from benchmarks.report import Report
from engine.core.entry import Used
from engine.core.ids import Position, RunId
from engine.core.record import Record


def test_the_pure_fold_finishes_every_run() -> None:
    assert pure.fold(20).runs == 20


def test_the_cpu_of_a_busy_thread_is_found() -> None:
    before = processes.usage([os.getpid()])
    worker = threading.Thread(target=_work)
    worker.start()
    worker.join()

    spent = processes.usage([os.getpid()]).since(before)

    assert spent.total >= 50


def test_a_process_has_memory_and_is_in_its_own_tree() -> None:
    own = os.getpid()

    assert processes.memory([own])["supervisor"] > 1 << 20
    assert own in processes.tree(own)


def test_a_section_is_counted_without_those_inside_it() -> None:
    sections = Sections()
    inner = sections.wrap("inner", _work)
    outer = sections.wrap("outer", inner)

    outer()

    assert sections.calls == {"inner": 1, "outer": 1}
    assert sections.nanoseconds["outer"] < sections.nanoseconds["inner"] / 10


@pytest.mark.parametrize(
    ("backend", "taskmanagers", "wanted"),
    [
        ("both", 0, [("heap", 1), ("rocksdb", 1), ("heap", 2)]),
        ("both", 2, [("heap", 2), ("rocksdb", 2)]),
        ("rocksdb", 0, [("rocksdb", 1)]),
    ],
)
def test_floods_are_made_as_the_options_ask(backend: str, taskmanagers: int, wanted: list[tuple[str, int]]) -> None:
    with Bench(Options(backend=backend, taskmanagers=taskmanagers)) as bench:
        assert flood.variants(bench) == wanted


def test_the_facts_hold_only_what_was_measured() -> None:
    with Bench(Options()) as bench:
        report = Report(bench)
        report.fold = pure.fold(5)

        found = report.facts()

    assert found["pure_fold_per_s"] > 0
    assert "flood_runs_per_s" not in found


def test_what_a_turn_takes_is_without_model_and_tool() -> None:
    def record(at: int, took: int = 0, used: Used | None = None) -> Record:
        place = {"workflow": "seek", "key": "g", "run": RunId("r"), "version": 1, "seq": 1, "entry": Position("1-0")}
        return Record(**place, at=at, cause="kept" if took else "event", took=took, used=used)  # type: ignore[arg-type]

    turn = Used("bench", input=1)
    records = [
        record(1_000),
        record(1_030, 20_000, turn),
        record(1_040, 5_000),
        record(1_070, 25_000, turn),
        record(1_080),
    ]

    assert llm.beyond(records) == (80 - 50) / 2


def _work() -> None:
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        sum(range(1000))
