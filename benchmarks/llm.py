"""Steps that ask a language model: many calls of a second at once, and what an agent's turn adds to the model's time.

The model is `python -m engine.testing.providers`: a real server of OpenAI's protocol, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load, processes
from benchmarks.bench import Bench
from benchmarks.engine_process import EngineProcess
from benchmarks.follower import Endings
from benchmarks.load import TooSlow
from benchmarks.thinking import TURNS
from engine.core.record import Record, read_record

APPLICATION = "benchmarks.thinking:application"
PATIENCE = 180.0
AGENTS = 20
FEW = 100
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Thinking:
    """All that is measured."""

    calls: int
    makespan_s: float
    """From the first append to the last record."""
    cpu_ms_per_call: float
    """Of the process that runs the steps, folding included."""
    cpu_ms_by_process: dict[str, float]
    agents: int
    turns: int
    turn_ms: float
    """What a turn of an agent takes beyond the time of model and tool; the median of the agents."""
    steal_percent: float
    idle_percent: float


def measure(bench: Bench) -> Thinking:
    """Start a model and an engine, ask once to have everything imported, then measure."""
    calls = bench.options.slow
    with provider("--delay", "1") as url, _engine(bench, "llm", url) as engine:
        engine.start()
        _finish(engine, [load.asked(number, "warm") for number in range(FEW)])
        pids = engine.pids()
        before = processes.usage(pids)
        with bench.phase(f"{calls:,} model calls of a second at once") as phase:
            makespan = _finish(engine, [load.asked(number, "llm") for number in range(calls)])
        spent = processes.usage(pids).since(before).by_process
        engine.stop()
    with provider("--turns", str(TURNS - 1)) as url, _engine(bench, "agents", url) as engine:
        engine.start()
        _finish(engine, [load.sought(0, "warm")])
        with bench.phase(f"{AGENTS} agents of {TURNS} turns"):
            for number in range(AGENTS):
                _finish(engine, [load.sought(number, "agent")])
        turns = sorted(beyond(records) for records in _agents(engine))
        engine.stop()
    by_process = {name: ms / calls for name, ms in spent.items()}
    return Thinking(
        calls=calls,
        makespan_s=makespan,
        cpu_ms_per_call=by_process.get("java", 0.0),
        cpu_ms_by_process=by_process,
        agents=AGENTS,
        turns=TURNS,
        turn_ms=turns[len(turns) // 2],
        steal_percent=phase.steal_percent,
        idle_percent=phase.idle_percent,
    )


@contextmanager
def provider(*arguments: str) -> Iterator[str]:
    """Where a model's server listens while this lasts."""
    command = [sys.executable, "-m", "engine.testing.providers", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            yield str(json.loads(process.stdout.readline())["openai_url"])
        finally:
            process.terminate()
            process.communicate()


def _engine(bench: Bench, name: str, url: str) -> EngineProcess:
    environment = {"LONGWATCH_MODEL_BENCH_URL": url, "OPENAI_API_KEY": "none"}
    return bench.engine(name, environment=environment, application=APPLICATION)


def _finish(engine: EngineProcess, entries: list[load.Appended]) -> float:
    """Seconds from the first append until the last of these runs has finished."""
    with Endings(engine) as endings:
        began = time.perf_counter()
        load.append(engine, entries)
        if not endings.wait(len(entries), PATIENCE):
            raise TooSlow(f"{len(endings.at):,} of {len(entries):,} runs that ask a model, in {PATIENCE:.0f} s")
        return max(endings.at.values()) - began


def _agents(engine: EngineProcess) -> list[list[Record]]:
    """The records of every agent but the first, which had everything imported."""
    found: dict[str, list[Record]] = defaultdict(list)
    for partition in range(load.PARTITIONS):
        for item in engine.log.scan("journal", partition):
            record = read_record(item.payload)
            if record.workflow == "seek" and "warm" not in record.key:
                found[record.key].append(record)
    return list(found.values())


def beyond(records: list[Record]) -> float:
    """Milliseconds a turn that neither model nor tool took."""
    kept = [r for r in records if r.cause == "kept"]
    turns = sum(r.used is not None for r in kept)
    return (records[-1].at - records[0].at - sum(r.took for r in kept) / 1000) / turns
