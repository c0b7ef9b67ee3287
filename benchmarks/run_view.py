"""The run view with a million runs: what projecting costs, and how long each question takes.

python -m benchmarks.run_view [--runs 1000000] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from msgspec import Raw

from engine.core.ids import CallId, Position, RunId
from engine.core.record import PendingCall, Record, write_record
from engine.log.protocol import Item, output_id
from engine.view.projector import Projector
from engine.view.view import Filter, View

PARTITIONS = 16
STATES = ("First", "Second", "Third", "Done")
START = 1_764_000_000_000
DATA = Raw(json.dumps({"order": {"id": "x" * 36, "note": "n" * 200, "items": list(range(20))}}).encode())
MASK = (1 << 64) - 1


def main() -> None:
    """Project, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2_000, help="runs in one transaction")
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "view.sqlite"
        figures = project(path, wanted.runs, wanted.batch) | ask(path, wanted.runs)
    if wanted.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:32} {figure:>14,.2f}")


def project(path: Path, runs: int, batch: int) -> dict[str, float]:
    """Four records a run, with two searchable fields: two runs in three end, the third waits."""
    projector = Projector(path, "benchmark")
    cpu = wall = 0.0
    for start in range(0, runs, batch):
        items = records(start, min(batch, runs - start))
        begun, spent = time.perf_counter(), time.process_time()
        projector.project(items)
        cpu += time.process_time() - spent
        wall += time.perf_counter() - begun
    projector.close()
    count = runs * len(STATES)
    size = sum(each.stat().st_size for each in path.parent.glob("view.sqlite*"))
    return {
        "runs": runs,
        "records": count,
        "cpu_us_per_record": cpu / count * 1e6,
        "records_per_s": count / wall,
        "bytes_per_run": size / runs,
    }


def records(start: int, runs: int) -> dict[int, list[Item]]:
    found: dict[int, list[Item]] = {partition: [] for partition in range(PARTITIONS)}
    for run in range(start, start + runs):
        found[run % PARTITIONS] += _records_of(run)
    return found


def _records_of(run: int) -> Iterator[Item]:
    last = len(STATES) - (2 if run % 3 == 0 else 1)
    for seq, state in enumerate(STATES):
        position = Position(f"{START + run}-{seq}")
        record = Record(
            workflow="claim-3step",
            key=f"run-{run:08d}",
            run=RunId(f"{run * 2_654_435_761 & MASK:016x}"),
            version=1,
            seq=seq + 1,
            at=START + run,
            entry=position,
            prev=f"{START + run}-{seq - 1}/0" if seq else "",
            cause="result",
            name="fetch",
            id=f"{seq}.0",
            from_=STATES[min(seq - 1, last)] if seq else "",
            to=STATES[min(seq, last)],
            visit=seq,
            since=START + run,
            status="finished" if state == "Done" and last == seq else "waiting",
            wakes=START + run + 86_400_000,
            calls=(PendingCall(CallId(f"{seq}.0"), "fetch"),),
            data=DATA,
            fields={"region": f"r{run % 50}", "customer": f"c{run % 100_000}"},
            snapshot="abcdef0123456789",
            code="abcdef012345",
        )
        yield Item(output_id(position, 0), START + run, write_record(record))


def ask(path: Path, runs: int) -> dict[str, float]:
    """Median of five, ms."""
    view = View(path)
    middle = f"run-{runs // 2:08d}"
    questions: dict[str, Callable[[], object]] = {
        "list_ms": view.runs,
        "list_state_ms": lambda: view.runs(Filter(state="Third")),
        "list_status_ms": lambda: view.runs(Filter(status="finished")),
        "list_status_none_ms": lambda: view.runs(Filter(status="halted")),
        "list_field_ms": lambda: view.runs(Filter(where={"region": "r7"})),
        "list_two_fields_ms": lambda: view.runs(Filter(where={"region": "r7", "customer": "c7"})),
        "list_field_and_state_ms": lambda: view.runs(Filter(state="Third", where={"region": "r7"})),
        "list_next_page_ms": lambda: view.runs(after=("claim-3step", middle, "")),
        "list_1000_ms": lambda: view.runs(limit=1000),
        "show_row_ms": lambda: view.of_key(middle),
        "counts_ms": view.counts,
    }
    figures = {name: median(_timed(question) for _ in range(5)) for name, question in questions.items()}
    view.close()
    return figures


def _timed(question: Callable[[], object]) -> float:
    begun = time.perf_counter()
    question()
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
