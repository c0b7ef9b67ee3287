"""Where the CPU of a run goes: a flood on an engine whose folding thread is watched (see `benchmarks.profiled_job`)."""

from __future__ import annotations

import io
import json
import pstats
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import flood, pure
from benchmarks.bench import Bench
from benchmarks.processes import Spent

FEWEST_US = 0.5
LINES = 45


def measure(bench: Bench, kind: str, console: Console) -> dict[str, object]:
    """Flood a profiled engine and print the splits.

    Args:
        bench: where.
        kind: `sections`, `calls` or `names` as in `benchmarks.profiled_job`.
        console: where to.
    """
    backend = bench.options.one_backend if bench.options.backend != "both" else "heap"
    name = f"profile-{backend}"
    engine = bench.engine(
        name,
        backend=backend,
        taskmanagers=bench.options.taskmanagers or 1,
        module="benchmarks.profiled_engine",
        environment={"LONGWATCH_PROFILE": kind},
    )
    with engine:
        engine.start()
        bench.warm_up(engine)
        found, spent = flood.pour(bench, engine, backend, 1)
        engine.stop()
    runs = bench.options.runs
    console.print(f"{found.runs_per_s:,.0f} runs/s under the profile, steal {found.steal_percent:.1f} %")
    console.print(_threads(spent, runs))
    folder = engine.data / "profile"
    sections = _sections(folder, runs + bench.options.warm_up)
    if sections:
        console.print(_section_table(sections))
    for file in sorted(folder.glob("*.pstats")):
        console.print(f"Under cProfile: {file.stem}")
        console.print(_calls(file), markup=False, highlight=False)
    if kind == "calls":
        console.print("The pure fold, without Flink and log:")
        console.print(pure.profile(min(runs, 10_000)), markup=False, highlight=False)
    threads = {f"{process}/{thread}": 1000 * ms / runs for (process, thread), ms in spent.by_thread.items() if ms}
    return {"cpu_us_by_thread": threads, "cpu_us_by_section": {name: us for name, (us, _) in sections.items()}}


def _threads(spent: Spent, runs: int) -> Table:
    table = Table("process", "thread", "us a run", "%", title="CPU of a run by thread")
    rest = Counter(spent.by_process)
    for (process, thread), ms in sorted(spent.by_thread.items(), key=lambda each: -each[1]):
        rest[process] -= ms  # type: ignore[assignment]  # a Counter of floats
        if 1000 * ms / runs >= FEWEST_US:
            table.add_row(process, thread, f"{1000 * ms / runs:.1f}", f"{100 * ms / spent.total:.1f}")
    table.add_row("all", "", f"{1000 * spent.total / runs:.1f}", "100")
    ended = max(0.0, sum(value for value in rest.values() if value > 0))
    table.caption = f"threads and processes that ended meanwhile: {1000 * ended / runs:.1f} us"
    return table


def _sections(folder: Path, runs: int) -> dict[str, tuple[float, float]]:
    """Microseconds and calls a run, by section."""
    ns: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for file in folder.glob("*.json"):
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["sections"]:
            ns.update(facts["sections"] | {"(all of the thread)": facts["cpu_ns"]})
            calls.update(facts["calls"])
    return {name: (value / 1000 / runs, calls[name] / runs) for name, value in ns.most_common()}


def _section_table(sections: dict[str, tuple[float, float]]) -> Table:
    table = Table("section", "us a run", "calls a run", title="The thread that folds, warm-up included")
    for name, (us, calls) in sections.items():
        table.add_row(name, f"{us:.1f}", f"{calls:.2f}" if calls else "")
    table.caption = "each without the sections inside it; all of the thread: with the clocks' own cost"
    return table


def _calls(file: Path) -> str:
    text = io.StringIO()
    pstats.Stats(str(file), stream=text).strip_dirs().sort_stats("tottime").print_stats(LINES)
    return text.getvalue()
