"""Any machine under any schedule: the live fold, the fold after crashes and the fold of the whole log are one.

`LONGWATCH_SCHEDULES=100000 pytest tests/core/test_properties.py` searches longer than the thousand of `make test`.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engine.core.entry import EventEntry, Order, ResultEntry, read_entry
from engine.core.record import CloudEvent, DeadLetter, Record, read_letter, read_record
from engine.core.snapshot import Early, Snapshot, read_stored
from tests.core.engine_model import Engine, Outputs, batch, digest
from tests.core.episodes import check_episodes, check_spans, check_visits
from tests.core.machine import Go, Hint, Nudge, Stop, machine

SCHEDULES = int(os.environ.get("LONGWATCH_SCHEDULES", "1000"))
START = 20_000 * 86_400_000
HOUR = 3_600_000
ORDERS: tuple[Order, ...] = ("resume", "skip", "retry", "cancel")
PEOPLE: tuple[Order, ...] = ("take", "release")

scripts = st.lists(st.integers(0, 255), min_size=1, max_size=12)
actions = st.lists(st.tuples(st.integers(0, 37), st.integers(0, 255)), max_size=40)


def play(script: list[int], schedule: list[tuple[int, int]], lapse: float = 1.0) -> Engine:
    """Drive an engine through a schedule; every number means something."""
    engine = Engine(machine, START, lapse)
    for count, (what, how) in enumerate(schedule):
        _act(engine, script, what, how, count)
        if what != 31:
            engine.fold(stop=how % 3 if what == 30 else None)
    engine.fold()
    return engine


def _act(engine: Engine, script: list[int], what: int, how: int, count: int) -> None:  # noqa: C901, PLR0912 - a table
    key = "ab"[how % 2]
    match what:
        case 0 | 1 | 2 | 3:
            engine.send(Go(key=key, script=(*script[how % len(script) :], how)), key, f"go{how % 7}")
        case 4 | 5 | 6:
            engine.send(Nudge(weight=how), key, f"n{count if how % 3 else how % 5}")
        case 7 | 8:
            engine.send(Hint(weight=how), key, f"h{count}")
        case 9:
            engine.send(Stop(), key, f"s{count}")
        case 10 | 11 | 12 | 13 | 14 | 15 | 16 | 17 | 18:
            engine.answer(how, fails=how % 5 == 0, final=how % 35 == 0, twice=how % 16 == 1)
        case 19:
            engine.repeat(how)
        case 20 | 21 | 22 | 23 | 24:
            engine.advance(how * HOUR // (1 + how % 4), ticks=what != 20)
        case 25 | 26:
            engine.order(ORDERS[how % 3 if how > 20 else 3], key)
        case 27 | 28:
            engine.checkpoint = engine.folder.kept.copy()
        case 29:
            engine.crash()
        case 32 | 33:
            engine.keep(how, late=how % 9 == 0)
        case 34:
            engine.ask(how)
        case 35 | 36:
            engine.person(how)
        case 37:
            engine.order(PEOPLE[how % 3 == 0], key)
        case _:
            engine.advance(how, ticks=False)


@settings(max_examples=SCHEDULES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scripts, actions, st.sampled_from([1.0, 1.0, 20_000.0]))
@example([229, 0], [(0, 0), (0, 15), (4, 0), (20, 64), (0, 0)], 1.0)  # a timer halts the run before an entry
@example([30], [(0, 184), (23, 44), (23, 44)], 1.0)  # a timer due at once and the event that it publishes go in circles
def test_live_crashed_and_whole_folds_are_one(script: list[int], schedule: list[tuple[int, int]], lapse: float) -> None:
    engine = play(script, schedule, lapse)
    kept, outputs = batch(machine, engine.tape, lapse)

    assert kept.stored == engine.folder.kept.stored
    assert dict(kept.held) == dict(engine.folder.kept.held)
    assert outputs == engine.outputs
    check_records(outputs)
    check_nothing_lost(engine, outputs)
    check_all_episodes(engine, outputs)


def check_records(outputs: Outputs) -> None:
    """Numbers without a gap, each record naming the one before; time only forward but for what was held."""
    runs: dict[str, list[tuple[tuple[str, int], Record]]] = defaultdict(list)
    for place, raw in outputs.items():
        if isinstance(record := parse(raw), Record):
            runs[record.run].append((place, record))
    for records in runs.values():
        for (place, one), (_, next_) in pairwise(records):
            assert next_.seq == one.seq + 1
            assert next_.prev == f"{place[0]}/{place[1]}"
            assert next_.at >= one.at or one.name in ("resume", "skip") or one.ignored.startswith("held")
        check_once([r for _, r in records])
        check_visits([r for _, r in records])
        check_spans([r for _, r in records])


def check_all_episodes(engine: Engine, outputs: Outputs) -> None:
    """One lasts at the end of a run's records if its snapshot says so."""
    known = [read_stored(raw) for raw in engine.folder.kept.stored.values()]
    lasting = {snap.run for snap in known if isinstance(snap, Snapshot) and snap.episode is not None}
    runs: dict[str, list[Record]] = defaultdict(list)
    for record in map(parse, outputs.values()):
        if isinstance(record, Record):
            runs[record.run].append(record)
    for run, records in runs.items():
        check_episodes(records, lasts=run in lasting)


def check_once(records: list[Record]) -> None:
    """Every timer fires once and not early; every result is taken once."""
    fired = Counter((r.visit, r.name, r.at, r.id) for r in records if r.cause == "timer" and r.halted is None)
    again = Counter((r.visit, r.name, r.at, r.id) for r in records if "Due.moment" in r.name)
    assert all(count == 1 for count in (fired - again).values())
    taken = Counter(r.id for r in records if r.cause == "result" and r.id and not r.ignored and r.halted is None)
    assert all(count == 1 for count in taken.values())


def check_nothing_lost(engine: Engine, outputs: Outputs) -> None:
    """Every event is told of, is a dead letter, or still waits for its run."""
    known = {(o.key, o.source, o.id) for o in map(parse, outputs.values()) if isinstance(o, Record)}
    bodies = [read_entry(o.body) for o in map(parse, outputs.values()) if isinstance(o, DeadLetter)]
    for stored in map(read_stored, engine.folder.kept.stored.values()):
        if isinstance(stored, Early):
            bodies += [event for _, _, event in stored.events]
        elif isinstance(stored, Snapshot):
            bodies += stored.kept
    known |= {(b.key, b.source, b.id) for b in bodies if isinstance(b, EventEntry)}
    events = [e for e in (read_entry(line.raw) for line in engine.tape.lines) if isinstance(e, EventEntry)]
    assert {(e.key, e.source, e.id) for e in events} <= known


def parse(raw: bytes) -> Record | DeadLetter | CloudEvent:
    if raw.startswith(b'{"workflow"'):
        return read_record(raw)
    return read_letter(raw) if raw.startswith(b'{"reason"') else msgspec.json.decode(raw, type=CloudEvent)


def test_another_interpreter_folds_to_the_same_bytes() -> None:
    chance = random.Random(20_260_105)
    engines = [
        play(
            [chance.randrange(256) for _ in range(1 + chance.randrange(12))],
            [(chance.randrange(38), chance.randrange(256)) for _ in range(50)],
        )
        for _ in range(50)
    ]
    tapes = msgspec.json.encode([e.tape for e in engines])
    here = [digest(*batch(machine, e.tape)) for e in engines]
    for seed in ("1", "4711"):
        again = subprocess.run(
            [sys.executable, "-m", "tests.core.refold"],
            input=tapes,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        )
        assert again.stdout.decode().split() == here


def test_the_schedules_reach_what_they_are_made_for() -> None:
    chance = random.Random(1)
    seen: Counter[str] = Counter()
    for _ in range(80):
        script = [chance.randrange(256) for _ in range(1 + chance.randrange(12))]
        engine = play(script, [(chance.randrange(38), chance.randrange(256)) for _ in range(60)])
        seen["crashes"] += engine.crashes
        seen["results"] += sum(isinstance(read_entry(line.raw), ResultEntry) for line in engine.tape.lines)
        for raw in engine.outputs.values():
            record = parse(raw)
            if not isinstance(record, Record):
                seen[type(record).__name__] += 1
                continue
            seen[record.cause] += 1
            seen[record.to] += 1
            seen[record.status] += 1
            seen["ignored"] += bool(record.ignored)

    wanted = {
        "crashes",
        "results",
        "DeadLetter",
        "CloudEvent",
        "event",
        "result",
        "failure",
        "timer",
        "order",
        "kept",
        "asked",
        "answer",
        "halted",
    }
    wanted |= {"Both", "Many", "Rest", "Due", "End", "finished", "ignored"}
    assert min(seen[name] for name in wanted) > 10, seen
