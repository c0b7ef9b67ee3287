"""Sleepers: runs that wait a year with one timer each. How fast they are set up, and what a million of them weigh."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

from benchmarks import load, processes, pure
from benchmarks.bench import Bench, say
from benchmarks.engine_process import APPLICATION, ROOT, EngineProcess
from benchmarks.follower import Endings
from benchmarks.load import TooSlow
from benchmarks.report import Report
from engine.log.errors import LogError
from engine.view.view import Filter, View

CHUNK = 100_000
QUIET_MS, QUIET_SECONDS, LONGEST_REST = 300.0, 2.0, 90.0
"""An engine is at rest when all its processes use less CPU than this in so many seconds."""
PATIENCE = 300.0
ASKED = 3
WARM_UP = 2_000


@dataclass(frozen=True)
class Weight:
    """What so many sleepers weigh, with the engine at rest."""

    sleepers: int
    memory_bytes: dict[str, int]
    """Proportional set size by process."""
    disk_bytes: dict[str, int]
    """By part of the data folder."""
    held_entries: int
    """Still on the log; the rest is in the archive."""

    @property
    def memory(self) -> int:
        return sum(self.memory_bytes.values())

    @property
    def disk(self) -> int:
        return sum(self.disk_bytes.values())


@dataclass
class Sleepers:
    """All that is measured with sleepers."""

    backend: str
    per_s: float = 0.0
    """From the first append to the last record in the journal, the second filling (nine tenths of all)."""
    pure_per_s: float = 0.0
    """The same by the pure fold, in memory."""
    view_behind_s: float = 0.0
    cpu_ms_per_sleeper: float = 0.0
    steal_percent: float = 0.0
    idle_percent: float = 0.0
    weights: list[Weight] = field(default_factory=list)

    @property
    def bytes_per_sleeper(self) -> float:
        """Memory of all processes by the number of sleepers, with all of them."""
        return self.weights[-1].memory / self.weights[-1].sleepers

    @property
    def growth_per_sleeper(self) -> float:
        """What one more costs."""
        few, many = self.weights[0], self.weights[-1]
        return (many.memory - few.memory) / (many.sleepers - few.sleepers)


@dataclass(frozen=True)
class Restart:
    """Seconds from the start of the process to the record of an event that was waiting for it."""

    how: str
    """How the engine was ended before."""
    seconds: float
    event_taken_s: float
    """When the log took the event, from the start too."""
    running_s: float
    """When the job was said to run, from the start too."""
    ended_in_s: float
    """How long the end took."""
    steal_percent: float


@dataclass(frozen=True)
class Answers:
    """Seconds that questions took with all sleepers there, the median of three."""

    list_s: float
    """The newest hundred in a state, from the view."""
    show_s: float
    """One run by its key, from the view."""
    list_command_s: float | None = None
    """`longwatch list`, the whole command with Python's start; None: it failed."""
    show_command_s: float | None = None


def measure(bench: Bench, report: Report, *, restart: bool, view: bool) -> None:
    """Fill an engine twice, weigh it each time, and ask and restart it with all sleepers, if wanted."""
    total = bench.options.sleepers
    with bench.engine("sleepers") as engine:
        engine.start()
        bench.warm_up(engine, WARM_UP)
        found = report.sleepers = Sleepers(bench.options.one_backend)
        with bench.phase("pure fold of sleepers"):
            fold = pure.fold(max(1, total // 20), load.slept, 1)
            found.pure_per_s = fold.runs / fold.seconds
        _fill(bench, engine, found, 0, total // 10)
        found.weights.append(_weigh(bench, engine, total // 10))
        _fill(bench, engine, found, total // 10, total)
        found.weights.append(_weigh(bench, engine, total))
        if view:
            report.answers = _ask(bench, engine)
        if restart:
            for number, how in enumerate(("SIGTERM", "SIGKILL")):
                report.restarts.append(_restart(bench, engine, how, number))
        with bench.phase("stop"):
            engine.stop()


def _fill(bench: Bench, engine: EngineProcess, found: Sleepers, first: int, end: int) -> None:
    entries = [load.slept(number, "z") for number in range(first, end)]
    watch = load.Watch(engine, "sleeper", "waiting")
    with bench.phase(f"sleepers {first:,} to {end:,}, {found.backend}") as phase:
        before, began = processes.usage(engine.pids()), time.time()
        load.append(engine, entries)
        done = watch.until(end - first, bench.options.patience)
        spent = processes.usage(engine.pids()).since(before)
    watch.close()
    found.per_s = (end - first) / (done.journal - began)
    found.view_behind_s = max(0.0, done.view - done.journal)
    found.cpu_ms_per_sleeper = spent.total / (end - first)
    found.steal_percent, found.idle_percent = phase.steal_percent, phase.idle_percent


def _weigh(bench: Bench, engine: EngineProcess, sleepers: int) -> Weight:
    with bench.phase("coming to rest"):
        until = time.monotonic() + LONGEST_REST
        while time.monotonic() < until:
            before = processes.usage(engine.pids())
            time.sleep(QUIET_SECONDS)
            if processes.usage(engine.pids()).since(before).total < QUIET_MS:
                break
    held = sum(engine.log.held("log", partition)[0] for partition in range(load.PARTITIONS))
    return Weight(sleepers, processes.memory(engine.pids()), processes.disk(engine.data), held)


def _restart(bench: Bench, engine: EngineProcess, how: str, number: int) -> Restart:
    with bench.phase(f"end by {how}") as end:
        if how == "SIGKILL":
            engine.kill()
        else:
            engine.stop()
    with bench.phase(f"restart after {how}") as phase:
        began, wall = time.perf_counter(), time.time()
        engine.start(wait=False)
        with _follow(engine) as endings:
            engine.log.append(*load.woken(number, "z"))
            taken = time.perf_counter()
            if not endings.wait(1, PATIENCE):
                engine.check()
                raise TooSlow(f"no transition within {PATIENCE:.0f} s of a restart after {how}")
            seconds = endings.at[f"s-z-{number}"] - began
        running = engine.await_running() - wall
    return Restart(how, seconds, taken - began, running, end.seconds, phase.steal_percent)


def _follow(engine: EngineProcess) -> Endings:
    """Follow the journal as soon as the log's server is up, which comes with the engine."""
    while True:
        engine.check()
        try:
            return Endings(engine)
        except LogError:
            time.sleep(0.01)


def _ask(bench: Bench, engine: EngineProcess) -> Answers:
    key = f"s-z-{bench.options.sleepers // 2}"
    with bench.phase("questions"):
        view = View(engine.data / "view.sqlite")
        listed = _median(lambda: view.runs(Filter(workflow="sleeper", state="Asleep"), limit=100))
        shown = _median(lambda: view.of_key(key))
        view.close()
        return Answers(
            listed,
            shown,
            _command(engine, "list", "--workflow", "sleeper", "--state", "Asleep"),
            _command(engine, "show", key, "--app", APPLICATION),
        )


def _median(question: object) -> float:
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        question()  # type: ignore[operator]
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _command(engine: EngineProcess, *words: str) -> float | None:
    """The whole command; None when it failed."""
    command = [sys.executable, "-m", "engine.cli", *words, "--data", str(engine.data), "--json"]

    def run() -> None:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE)
        json.loads(answer.stdout.splitlines()[0])

    try:
        return _median(run)
    except subprocess.CalledProcessError as error:
        say(f"longwatch {words[0]} failed: {error.stderr.decode(errors='replace').strip()[-500:]}")
        return None
