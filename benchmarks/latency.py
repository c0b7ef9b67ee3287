"""Latency: a few three-step runs a second, from the append of the event to the run's last record in the journal."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from benchmarks import load, processes
from benchmarks.bench import Bench
from benchmarks.engine_process import EngineProcess
from benchmarks.follower import Endings

SETTLE_SECONDS = 5
"""At the same rate, not counted."""
END_SECONDS = 10.0
REST_SECONDS = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds from an append to the last record of its run, as a reader of the journal sees it."""

    backend: str
    rate: int
    runs: int
    lost: int
    """Not done within ten seconds of the last append."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    longest_ms: float
    cpu_percent: float
    """Of one core, all processes."""
    rest_cpu_percent: float
    """The same with nothing to do."""
    steal_percent: float
    idle_percent: float


def measure(bench: Bench) -> Latency:
    """Start an engine, warm it up, send at a steady rate."""
    options = bench.options
    with bench.engine("latency") as engine:
        engine.start()
        bench.warm_up(engine)
        with Endings(engine) as endings:
            with bench.phase(f"latency, settling for {SETTLE_SECONDS} s"):
                _send(engine, options.rate, SETTLE_SECONDS * options.rate, "settle")
            endings.wait(SETTLE_SECONDS * options.rate, END_SECONDS)
            endings.at.clear()
            runs = options.latency_seconds * options.rate
            with bench.phase(f"latency at {options.rate} runs/s for {options.latency_seconds} s") as phase:
                before = processes.usage(engine.pids())
                sent = _send(engine, options.rate, runs, "paced")
                spent = processes.usage(engine.pids()).since(before)
                endings.wait(runs, END_SECONDS)
            took = sorted(1000 * (endings.at[key] - at) for key, at in sent.items() if key in endings.at)
        with bench.phase(f"rest of {REST_SECONDS} s"):
            before = processes.usage(engine.pids())
            time.sleep(REST_SECONDS)
            rest = processes.usage(engine.pids()).since(before)
        engine.stop()
    hundredths = statistics.quantiles(took, n=100, method="inclusive")
    return Latency(
        options.one_backend,
        options.rate,
        runs,
        runs - len(took),
        hundredths[49],
        hundredths[89],
        hundredths[98],
        took[-1],
        spent.total / 10 / options.latency_seconds,
        rest.total / 10 / REST_SECONDS,
        phase.steal_percent,
        phase.idle_percent,
    )


def _send(engine: EngineProcess, rate: int, runs: int, batch: str) -> dict[str, float]:
    """Append at fixed moments, whether or not the engine keeps up; when each append began, by key."""
    entries = [load.filed(number, batch) for number in range(runs)]
    sent: dict[str, float] = {}
    began = time.perf_counter()
    for number, (partition, payload) in enumerate(entries):
        pause = began + number / rate - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        sent[f"c-{batch}-{number}"] = time.perf_counter()
        engine.log.append(partition, payload)
    return sent
