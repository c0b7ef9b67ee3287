"""The results: tables with the targets beside the figures, and one JSON object."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.bench import DEFAULT_BACKEND, Bench, machine

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.exporting import Cost, Export
    from benchmarks.flood import Flood
    from benchmarks.latency import Latency
    from benchmarks.llm import Thinking
    from benchmarks.lookup import Lookup
    from benchmarks.makespan import Makespan
    from benchmarks.pure import Fold
    from benchmarks.sleepers import Answers, Restart, Sleepers

FLOOD_TARGETS = {("heap", 1): 3_000, ("rocksdb", 1): 2_000, ("heap", 2): 4_500}
CPU_MS = 0.45
P50_MS, P99_MS = 7, 25
MAKESPAN_S = 1.4
LLM_MAKESPAN_S, LLM_CPU_MS, TURN_MS = 6, 3, 10
SPANS_PER_S, EXPORT_MB, TRACING_PERCENT = 20_000, 200, 35
SLEEPERS_PER_S, GROWTH_BYTES = 5_000, 1_500
RESTART_S = 30
ANSWER_S = 1
MB = 1 << 20


class Report:
    """What was measured so far."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.fold: Fold | None = None
        self.floods: list[Flood] = []
        self.latency: Latency | None = None
        self.makespan: Makespan | None = None
        self.thinking: Thinking | None = None
        self.export: Export | None = None
        self.cost: Cost | None = None
        self.lookup: Lookup | None = None
        self.sleepers: Sleepers | None = None
        self.restarts: list[Restart] = []
        self.answers: Answers | None = None
        self.profile: dict[str, object] | None = None
        self.failures: dict[str, str] = {}
        """Of measurements that could not be made, by name: why."""

    # -- figures

    @property
    def flood(self) -> Flood | None:
        """That of the engine's default backend on one TaskManager, else the first."""
        usual = [each for each in self.floods if (each.backend, each.taskmanagers) == (DEFAULT_BACKEND, 1)]
        return next(iter(usual or self.floods), None)

    @property
    def fold_per_s(self) -> float | None:
        return self.fold.runs / self.fold.seconds if self.fold else None

    def facts(self) -> dict[str, Any]:
        """Everything, for programs."""
        flood, latency, sleepers = self.flood, self.latency, self.sleepers
        whole = sleepers if sleepers and len(sleepers.weights) > 1 else None
        found = {
            "flood_runs_per_s": flood and flood.runs_per_s,
            "cpu_ms_per_run": flood and flood.cpu_ms_per_run,
            "p50_ms": latency and latency.p50_ms,
            "p99_ms": latency and latency.p99_ms,
            "makespan_s": self.makespan and self.makespan.seconds,
            "llm_makespan_s": self.thinking and self.thinking.makespan_s,
            "llm_cpu_ms_per_call": self.thinking and self.thinking.cpu_ms_per_call,
            "agent_turn_ms": self.thinking and self.thinking.turn_ms,
            "llm_of_bare": self.thinking and self.makespan and self.thinking.makespan_s / self.makespan.seconds,
            "export_spans_per_s": self.export and self.export.spans_per_s,
            "export_rss_mb": self.export and self.export.rss_mb,
            "tracing_cost_percent": self.cost and self.cost.percent,
            "trace_lookup_s": self.lookup and self.lookup.seconds,
            "sleepers_per_s": whole and whole.per_s,
            "bytes_per_sleeper": whole and whole.bytes_per_sleeper,
            "growth_bytes_per_sleeper": whole and whole.growth_per_sleeper,
            "restart_s": max((each.seconds for each in self.restarts), default=None),
            "pure_fold_per_s": self.fold_per_s,
            "flood_of_pure": flood and self.fold_per_s and flood.runs_per_s / self.fold_per_s,
            "steal_percent": self._bench.steal_percent,
            "machine": machine(self._bench.folder),
            "settings": dict(self._bench.options.settings),
            "pure_fold": self.fold,
            "floods": self.floods,
            "latency": latency,
            "makespan": self.makespan,
            "llm": self.thinking,
            "export": self.export,
            "tracing_cost": self.cost,
            "lookup": self.lookup,
            "sleepers": sleepers,
            "restarts": self.restarts,
            "answers": self.answers,
            "profile": self.profile,
            "failures": self.failures,
            "phases": self._bench.phases,
        }
        return {name: _plain(value) for name, value in found.items() if value is not None and value not in ([], {})}

    # -- tables

    def print(self, console: Console) -> None:
        """Print what there is."""
        table = Table("figure", "measured", "target", "", "host", title="claim-3step")
        for row in (*self._flood_rows(), *self._other_rows(), *self._tracing_rows(), *self._sleeper_rows()):
            table.add_row(*row)
        if table.row_count:
            table.caption = _words(self._bench)
            console.print(table)
        for name, why in self.failures.items():
            console.print(f"[red]{name} could not be measured:[/] {escape(why)}")
        for extra in self._weight_tables():
            console.print(extra)

    def _flood_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        if self.fold:
            micro = 1_000_000 * self.fold.cpu_seconds / self.fold.runs
            per_s = f"{self.fold_per_s:,.0f} runs/s, {micro:.0f} us CPU a run"
            rows.append((f"pure fold of {self.fold.runs:,}, in memory", per_s, "", "", ""))
        for each in self.floods:
            name = f"flood of {each.runs:,}, {each.backend}, {each.taskmanagers} TaskManager(s)"
            host = _host(each.steal_percent, each.idle_percent)
            target = FLOOD_TARGETS.get((each.backend, each.taskmanagers))
            beside = f" ({each.runs_per_s / self.fold_per_s:.0%} of pure)" if self.fold_per_s else ""
            rows.append((name, f"{each.runs_per_s:,.0f} runs/s{beside}", *_least(each.runs_per_s, target), host))
            parts = ", ".join(f"{what} {1000 * ms:.0f}" for what, ms in each.cpu_ms_by_process.items())
            cpu = f"{each.cpu_ms_per_run:.3f} ms a run (us: {parts})"
            rows.append(("  CPU of all processes", cpu, *_most(each.cpu_ms_per_run, CPU_MS, "ms"), ""))
            rows.append(("  run view behind the journal", f"{each.view_behind_s:.2f} s", "", "", ""))
        return rows

    def _other_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        if found := self.latency:
            host = _host(found.steal_percent, found.idle_percent)
            name = f"{found.rate} runs/s, {found.backend}"
            rows.append((f"{name}: p50", f"{found.p50_ms:.1f} ms", *_most(found.p50_ms, P50_MS, "ms"), host))
            rest = f"{found.p99_ms:.1f} ms (p90 {found.p90_ms:.1f}, longest {found.longest_ms:.0f}, lost {found.lost})"
            rows.append((f"{name}: p99", rest, *_most(found.p99_ms, P99_MS, "ms"), ""))
            cpu = f"{found.cpu_percent:.0f} % of a core; with nothing to do {found.rest_cpu_percent:.0f} %"
            rows.append(("  CPU of all processes", cpu, "", "", ""))
        if span := self.makespan:
            host = _host(span.steal_percent, span.idle_percent)
            name = f"{span.runs:,} steps of one second at once, {span.backend}"
            rows.append((name, f"{span.seconds:.2f} s", *_most(span.seconds, MAKESPAN_S, "s"), host))
        if each := self.thinking:
            beside = f" ({each.makespan_s / span.seconds:.1f} of bare steps)" if span else ""
            name = f"{each.calls:,} model calls of one second at once"
            host = _host(each.steal_percent, each.idle_percent)
            rows.append((name, f"{each.makespan_s:.2f} s{beside}", *_most(each.makespan_s, LLM_MAKESPAN_S, "s"), host))
            parts = ", ".join(f"{what} {ms:.2f}" for what, ms in each.cpu_ms_by_process.items())
            cpu = f"{each.cpu_ms_per_call:.2f} ms a call (ms: {parts})"
            rows.append(("  CPU of the process of the steps", cpu, *_most(each.cpu_ms_per_call, LLM_CPU_MS, "ms"), ""))
            turn = f"{each.turn_ms:.1f} ms beyond model and tool"
            rows.append((f"a turn of an agent of {each.turns}", turn, *_most(each.turn_ms, TURN_MS, "ms"), ""))
        return rows

    def _tracing_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        if sent := self.export:
            name = f"export of {sent.spans:,} spans"
            host = _host(sent.steal_percent)
            rows.append(
                (name, f"{sent.spans_per_s:,.0f} a second of one core", *_least(sent.spans_per_s, SPANS_PER_S), host)
            )
            rows.append(("  memory of the exporter", f"{sent.rss_mb:.0f} MB", *_most(sent.rss_mb, EXPORT_MB, "MB"), ""))
        if cost := self.cost:
            name = f"flood of {cost.runs:,} with an exporter, {cost.backend}"
            speeds = " and ".join(
                f"{sum(each) / len(each):,.0f}" for each in (cost.runs_per_s_with, cost.runs_per_s_without)
            )
            measured = f"{cost.percent:.0f} % fewer runs/s ({speeds} without), caught up {cost.caught_up_s:.1f} s later"
            rows.append((name, measured, *_most(cost.percent, TRACING_PERCENT, "%"), _host(cost.steal_percent)))
        if found := self.lookup:
            name = f"longwatch trace, {found.entries} entries of {found.records:,}"
            rows.append(
                (name, f"{found.seconds:.2f} s", *_most(found.seconds, ANSWER_S, "s"), _host(found.steal_percent))
            )
        return rows

    def _sleeper_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        if (found := self.sleepers) and len(found.weights) > 1:
            host = _host(found.steal_percent, found.idle_percent)
            count = found.weights[-1].sleepers
            cpu = f"{found.cpu_ms_per_sleeper:.3f} ms CPU each"
            beside = f"{found.per_s / found.pure_per_s:.0%} of pure"
            speed = f"{found.per_s:,.0f} a second ({beside}), {cpu} (view {found.view_behind_s:.1f} s behind)"
            rows.append((f"{count:,} sleepers, {found.backend}", speed, *_least(found.per_s, SLEEPERS_PER_S), host))
            growth = found.growth_per_sleeper
            memory = f"{growth:,.0f} bytes more a run; {found.bytes_per_sleeper:,.0f} in all"
            rows.append(("  memory of all processes", memory, *_most(growth, GROWTH_BYTES, "bytes"), ""))
        for each in self.restarts:
            parts = f"event on the log after {each.event_taken_s:.1f}, job runs after {each.running_s:.1f}"
            measured = f"{each.seconds:.1f} s ({parts}; the end took {each.ended_in_s:.1f})"
            name = f"restart to first transition, after {each.how}"
            rows.append((name, measured, *_most(each.seconds, RESTART_S, "s"), _host(each.steal_percent)))
        if answers := self.answers:
            for what, view, command in (
                ("list", answers.list_s, answers.list_command_s),
                ("show", answers.show_s, answers.show_command_s),
            ):
                whole = f"{command:.2f} s" if command is not None else "failed"
                measured = f"{whole} (the view alone {1000 * view:.1f} ms)"
                worst = view if command is None else command
                rows.append((f"longwatch {what}", measured, *_most(worst, ANSWER_S, "s"), ""))
        return rows

    def _weight_tables(self) -> list[Table]:
        if not self.sleepers or not self.sleepers.weights:
            return []
        weights = self.sleepers.weights
        table = Table("", *(f"{each.sleepers:,}" for each in weights), title="What sleepers weigh, MB")
        for kind in ("memory", "disk"):
            names = sorted({name for each in weights for name in getattr(each, f"{kind}_bytes")})
            for name in names:
                sizes = [getattr(each, f"{kind}_bytes").get(name, 0) for each in weights]
                if max(sizes) >= MB:
                    table.add_row(f"{kind}: {name}", *(f"{size / MB:,.0f}" for size in sizes))
            table.add_row(f"{kind}, all", *(f"{getattr(each, kind) / MB:,.0f}" for each in weights), end_section=True)
        table.add_row("entries still on the log", *(f"{each.held_entries:,}" for each in weights))
        return [table]


def _listed(names: Iterable[str]) -> str:
    return "; ".join(names) or "nothing"


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _least(value: float, target: float | None) -> tuple[str, str]:
    return ("", "") if target is None else (f">= {target:,}", _verdict(met=value >= target))


def _most(value: float, target: float, unit: str) -> tuple[str, str]:
    return f"<= {target:,} {unit}", _verdict(met=value <= target)


def _verdict(*, met: bool) -> str:
    return "[green]met[/]" if met else "[red]missed[/]"


def _host(steal: float, idle: float | None = None) -> str:
    return f"steal {steal:.1f} %" + ("" if idle is None else f", idle {idle:.0f} %")


def _words(bench: Bench) -> str:
    found = machine(bench.folder)
    warm = dict.fromkeys(phase.name for phase in bench.phases if phase.name.startswith("warm-up"))
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gb']} GB, {found['disk']}; "
        "16 partitions, written through, view, archive and trimming on. "
        f"Not counted: {_listed(warm)}"
    )
