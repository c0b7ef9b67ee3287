"""The benchmark: the work claim-3step, measured on this machine.

`make bench`, or `python -m benchmarks.claim_3step`. Without a flag it measures everything, which takes a quarter of an
hour and more; each measurement has its flag, so that another engine can be put beside it: `--help` lists them. The
engine is `longwatch run` as it comes: 16 partitions, a log that is written through before it acknowledges, run view,
dropping of repeats, archive and trimming on.

Where the CPU of a run goes:

    python -m benchmarks.claim_3step --profile --runs 20000              by thread, and sections of the folding thread
    python -m benchmarks.claim_3step --profile calls --runs 5000         every function, under cProfile
    python -m benchmarks.claim_3step --profile names --runs 20000        by thread only, at full speed
    python -m benchmarks.claim_3step --profile --backend rocksdb         another backend than the heap

A quick look whether all of it works: `--all --runs 2000 --latency 5 --makespan 200 --sleepers 20000`.

The pure fold alone, without Flink and log, quickly: `--pure --runs 5000`, or `--pure --profile calls`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console

from benchmarks import exporting, flood, latency, llm, lookup, makespan, profile, pure, sleepers
from benchmarks.bench import Bench, Options, say
from benchmarks.engine_process import EngineEnded
from benchmarks.load import TooSlow
from benchmarks.report import Report
from engine.log.errors import LogError

MEASUREMENTS = ("pure", "flood", "latency", "makespan", "llm", "tracing", "sleepers", "restart", "view")
ON_SLEEPERS = ("sleepers", "restart", "view")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; gives the exit code: 0 measured (whatever the figures are), 1 the engine failed, 130 ended."""
    given = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell has its background jobs ignore it
        signal.signal(number, _interrupt)
    wanted = [name for name in MEASUREMENTS if getattr(given, name) is not None]
    if given.all or (not wanted and given.profile is None):
        wanted = list(MEASUREMENTS)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        with Bench(_options(given)) as bench:
            report = Report(bench)
            try:
                if given.profile is None:
                    _measure(bench, report, wanted)
                else:
                    _profile(bench, report, wanted, given.profile, console)
            finally:
                report.print(console)
                if given.json:
                    print(msgspec.json.encode(report.facts()).decode(), flush=True)
    except KeyboardInterrupt:
        say("ended; every process of the engine too")
        return 130
    return 1 if report.failures else 0


def _measure(bench: Bench, report: Report, wanted: Sequence[str]) -> None:
    """One after the other; one that fails is told, and the others are made all the same."""
    if "pure" in wanted:
        _try(report, "pure", lambda: _fold(bench, report))
    if "flood" in wanted:
        for backend, count in flood.variants(bench):
            name = f"flood, {backend}, {count} TaskManager(s)"
            _try(report, name, partial(_flood, bench, report, backend, count))
    if "latency" in wanted:
        _try(report, "latency", lambda: setattr(report, "latency", latency.measure(bench)))
    if "makespan" in wanted:
        _try(report, "makespan", lambda: setattr(report, "makespan", makespan.measure(bench)))
    if "llm" in wanted:
        _try(report, "llm", lambda: setattr(report, "thinking", llm.measure(bench)))
    if "tracing" in wanted:
        _try(report, "export", lambda: setattr(report, "export", exporting.measure(bench)))
        _try(report, "tracing cost", lambda: setattr(report, "cost", exporting.cost(bench)))
        _try(report, "lookup", lambda: setattr(report, "lookup", lookup.measure(bench)))
    if any(name in wanted for name in ON_SLEEPERS):
        restart, view = "restart" in wanted, "view" in wanted
        _try(report, "sleepers", lambda: sleepers.measure(bench, report, restart=restart, view=view))


def _try(report: Report, name: str, measurement: Callable[[], object]) -> None:
    try:
        measurement()
    except (EngineEnded, TooSlow, LogError) as error:
        report.failures[name] = str(error)
        say(f"{name} failed: {error}")


def _fold(bench: Bench, report: Report) -> None:
    with bench.phase(f"pure fold of {bench.options.runs:,}"):
        report.fold = pure.fold(bench.options.runs)


def _flood(bench: Bench, report: Report, backend: str, taskmanagers: int) -> None:
    report.floods.append(flood.measure(bench, backend, taskmanagers))


def _profile(bench: Bench, report: Report, wanted: Sequence[str], kind: str, console: Console) -> None:
    if "pure" in wanted:
        console.print(pure.profile(min(bench.options.runs, 10_000)), markup=False, highlight=False)
    else:
        _try(report, "profile", lambda: setattr(report, "profile", profile.measure(bench, kind, console)))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options(given: argparse.Namespace) -> Options:
    pairs = dict(pair.split("=", 1) for pair in given.set)
    default = Options()
    return Options(
        runs=given.runs,
        warm_up=given.runs // 3 if given.warm_up is None else given.warm_up,
        backend=given.backend,
        taskmanagers=given.taskmanagers,
        latency_seconds=given.latency or default.latency_seconds,
        rate=given.rate,
        slow=given.makespan or default.slow,
        sleepers=given.sleepers or default.sleepers,
        patience=given.patience,
        settings=pairs,
        data=given.data,
        keep=given.keep,
    )


def _parser() -> argparse.ArgumentParser:
    default = Options()
    parser = argparse.ArgumentParser(prog="claim_3step", description="Measure the work claim-3step on this machine.")
    add = parser.add_argument_group("measurements (without one: all)").add_argument
    add("--all", action="store_true", help="all of them, where --latency, --makespan or --sleepers only give a number")
    add("--flood", action="store_const", const=0, help="all runs at once: runs/s, CPU ms a run over all processes")
    add("--pure", action="store_const", const=0, help="the fold alone, in memory; the others are put beside it")
    add("--latency", type=int, nargs="?", const=0, metavar="SECONDS", help="p50 and p99 at 20 runs/s (60 s)")
    add("--makespan", type=int, nargs="?", const=0, metavar="RUNS", help="2,000 runs whose step takes one second")
    add("--llm", action="store_const", const=0, help="2,000 calls of a model at once (--makespan), agents of ten turns")
    add("--tracing", action="store_const", const=0, help="spans/s of the exporter, floods with and without it, a trace")
    add(
        "--sleepers", type=int, nargs="?", const=0, metavar="RUNS", help="1,000,000 runs that wait: speed, memory, disk"
    )
    add("--restart", action="store_const", const=0, help="start to first transition with all these sleepers")
    add("--view", action="store_const", const=0, help="`list` and `show` with all these sleepers")
    add(
        "--profile",
        nargs="?",
        const="sections",
        choices=("sections", "calls", "names"),
        help="instead of all these: where the CPU of a run goes, by process and thread, and in the thread that folds",
    )
    add = parser.add_argument_group("how").add_argument
    add("--json", action="store_true", help="the results as one JSON object on the last line too")
    add("--runs", type=int, default=default.runs, help=f"of a flood (default {default.runs:,})")
    add("--warm-up", type=int, metavar="RUNS", help="not counted, before a flood (default a third of the flood)")
    add("--backend", choices=("heap", "rocksdb", "both"), default="both", help="both: the rest on rocksdb")
    add("--taskmanagers", type=int, default=0, help="of one slot each (default: 1, and for heap 2 as well)")
    add("--rate", type=int, default=default.rate, help=f"runs/s of --latency (default {default.rate})")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of `longwatch settings`")
    add("--data", type=Path, metavar="DIR", help="where the engines' folders come to lie (default: the temp folder)")
    add("--keep", action="store_true", help="leave these folders, to look into logs and state")
    add("--patience", type=float, default=default.patience, metavar="SECONDS", help="give a measurement up after")
    return parser


if __name__ == "__main__":
    sys.exit(main())
