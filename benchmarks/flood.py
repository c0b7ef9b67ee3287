"""A flood: all runs are on the log at once, and the engine works them off."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import load, processes
from benchmarks.bench import Bench
from benchmarks.engine_process import EngineProcess
from benchmarks.processes import Spent


@dataclass(frozen=True)
class Flood:
    """One flood of three-step runs."""

    backend: str
    taskmanagers: int
    runs: int
    runs_per_s: float
    """From the first append to the last record in the journal."""
    cpu_ms_per_run: float
    """Of all processes, until the run view has all runs too."""
    cpu_ms_by_process: dict[str, float]
    appended_s: float
    """How long the one sender took."""
    view_behind_s: float
    """How much later the run view had all runs."""
    steal_percent: float
    idle_percent: float
    memory_bytes: dict[str, int]
    disk_bytes: dict[str, int]


def variants(bench: Bench) -> list[tuple[str, int]]:
    """Backends and numbers of TaskManagers that the options ask for."""
    options = bench.options
    backends = ["heap", "rocksdb"] if options.backend == "both" else [options.backend]
    if options.taskmanagers:
        return [(backend, options.taskmanagers) for backend in backends]
    return [*((backend, 1) for backend in backends), *(("heap", 2) for backend in backends if backend == "heap")]


def measure(bench: Bench, backend: str, taskmanagers: int) -> Flood:
    """Start an engine, warm it up, flood it."""
    with bench.engine(f"flood-{backend}-{taskmanagers}", backend=backend, taskmanagers=taskmanagers) as engine:
        engine.start()
        bench.warm_up(engine)
        flood, _ = pour(bench, engine, backend, taskmanagers)
        engine.stop()
    return flood


def pour(bench: Bench, engine: EngineProcess, backend: str, taskmanagers: int) -> tuple[Flood, Spent]:
    """Flood a warm engine."""
    runs = bench.options.runs
    entries = [load.filed(number, "flood") for number in range(runs)]
    watch = load.Watch(engine, "claim-3step", "finished")
    with bench.phase(f"flood of {runs:,}, {backend}, {taskmanagers} TaskManager(s)") as phase:
        before = processes.usage(engine.pids())
        began = time.time()
        load.append(engine, entries)
        appended = time.time()
        done = watch.until(runs, bench.options.patience)
        spent = processes.usage(engine.pids()).since(before)
    watch.close()
    by_process = {name: value / runs for name, value in spent.by_process.items()}
    return (
        Flood(
            backend,
            taskmanagers,
            runs,
            runs / (done.journal - began),
            spent.total / runs,
            by_process,
            appended - began,
            max(0.0, done.view - done.journal),
            phase.steal_percent,
            phase.idle_percent,
            processes.memory(engine.pids()),
            processes.disk(engine.data),
        ),
        spent,
    )
