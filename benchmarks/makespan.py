"""Makespan: many runs at once whose one step takes a second; what is above a second is the engine's."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.follower import Endings
from benchmarks.load import TooSlow

PATIENCE = 120.0


@dataclass(frozen=True)
class Makespan:
    """From the first append to the last record, as a reader of the journal sees it."""

    backend: str
    runs: int
    seconds: float
    steal_percent: float
    idle_percent: float


def measure(bench: Bench) -> Makespan:
    """Start an engine, warm it up, let all steps wait at once."""
    runs = bench.options.slow
    with bench.engine("makespan") as engine:
        engine.start()
        bench.warm_up(engine)
        with Endings(engine) as endings:
            load.append(engine, [load.slow(number, "warm") for number in range(max(1, runs // 10))])
            endings.wait(max(1, runs // 10), PATIENCE)
            endings.at.clear()
            entries = [load.slow(number, "slow") for number in range(runs)]
            with bench.phase(f"makespan of {runs:,} runs") as phase:
                began = time.perf_counter()
                load.append(engine, entries)
                if not endings.wait(runs, PATIENCE):
                    raise TooSlow(
                        f"{len(endings.at):,} of {runs:,} runs whose step takes a second, in {PATIENCE:.0f} s"
                    )
            seconds = max(endings.at.values()) - began
        engine.stop()
    return Makespan(bench.options.one_backend, runs, seconds, phase.steal_percent, phase.idle_percent)
