"""The pure fold by itself: the same runs in memory, without log, Flink, steps or view; what any engine on it can reach.

A run here is what a run costs the thread that folds at least: decode the entry, fold it on the stored bytes, encode its
records, encode the entry of the answer. The answers themselves are made once.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import Raw

from benchmarks import load
from benchmarks.workload import TEXT, Outcome, application, fetch_policy
from engine.core.entry import ResultEntry, read_entry, write_entry
from engine.core.ids import Position
from engine.core.record import write_record
from engine.core.transition import Place, StartCall, transition

START_MS = 1_700_000_000_000
WARM_UP = 500
RECORDS = 4
"""Of a run of three steps."""


@dataclass(frozen=True)
class Fold:
    """How fast a fold was."""

    runs: int
    seconds: float
    cpu_seconds: float
    stored_bytes: int
    """Of all runs, at the end: what stands of a finished run."""
    record_bytes: int
    """Of all runs."""


def fold(runs: int, event: Callable[[int, str], load.Appended] = load.filed, records_of_a_run: int = RECORDS) -> Fold:
    """Fold so many runs, by default of three steps; those that began first are finished first, as in a flood."""
    _fold(event(number, "warm") for number in range(WARM_UP))
    entries = [event(number, "pure") for number in range(runs)]
    began, cpu = time.perf_counter(), time.process_time()
    stored, record_bytes, records = _fold(iter(entries))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    if records != records_of_a_run * runs:
        message = f"{runs} runs made {records} records, and should have made {records_of_a_run * runs}"
        raise RuntimeError(message)
    return Fold(runs, seconds, cpu_seconds, stored, record_bytes)


def profile(runs: int, file: Path | None = None, lines: int = 40) -> str:
    """Fold under cProfile: where the time goes, as text; raw into `file`."""
    found = cProfile.Profile()
    _fold(load.filed(number, "warm") for number in range(WARM_UP))
    entries = [load.filed(number, "pure") for number in range(runs)]
    found.enable()
    _fold(iter(entries))
    found.disable()
    if file is not None:
        found.dump_stats(file)
    text = io.StringIO()
    pstats.Stats(found, stream=text).strip_dirs().sort_stats("tottime").print_stats(lines)
    return text.getvalue()


def _fold(entries: object) -> tuple[int, int, int]:
    output = Raw(fetch_policy.write_output(Outcome(result=TEXT, score=1)))
    workflows = application.workflows
    states: dict[tuple[str, str], bytes | None] = {}
    queue: deque[tuple[int, bytes]] = deque(entries)  # type: ignore[call-overload]
    size = count = number = 0
    while queue:
        partition, payload = queue.popleft()
        number += 1
        entry = read_entry(payload)
        run = entry.workflow, entry.key
        place = Place(partition, Position(f"{START_MS + number}-0"), START_MS + number)
        reaction = transition(workflows[entry.workflow], states.get(run), entry, place)
        states[run] = reaction.stored
        for record in reaction.records:
            size += len(write_record(record))
            count += 1
        for command in reaction.commands:
            if isinstance(command, StartCall):
                answer = ResultEntry(*run, command.run, command.id, command.attempt, output, START_MS, 100)
                queue.append((partition, write_entry(answer)))
    return sum(len(stored or b"") for stored in states.values()), size, count
