"""What somebody should be woken or told for: the rules, and how Prometheus is given them.

Each rule names the panel that shows its figure and the paragraph of `docs/runbook.md` that says what to do. All windows
and lengths can be made shorter together (`scale`), so that a test sees a rule fire within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from grafana.pages import ENGINE, FLEET, STEPS, WORKFLOW

RUNBOOK: Final = "docs/runbook.md"
OLDEST: Final = timedelta(days=30)
_LEAST_WINDOW: Final = 5.0
"""Seconds; a window must hold some samples however short it is made."""

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Alert:
    """One rule."""

    name: str
    expr: str
    hold: str
    """How long it must be true before it fires, in Prometheus's words (`for`)."""
    severity: Severity
    summary: str
    """One line, with Prometheus's templates for what differs."""
    board: str
    panel: str
    """Title of the panel that shows it."""
    anchor: str
    """Of its paragraph in the runbook."""


class _Lengths:
    """Writes lengths of time as Prometheus reads them, all shortened alike."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __call__(self, seconds: float, least: float = 0) -> str:
        return f"{round(max(seconds * self._scale, least) * 1000)}ms" if self._scale != 1 else _words(seconds)

    def window(self, seconds: float) -> str:
        """Write the length of a range that a rate or a slope is taken over."""
        return self(seconds, _LEAST_WINDOW)

    def bound(self, seconds: float) -> str:
        """Write a number of seconds that a metric is compared with."""
        return f"{seconds * self._scale:g}"


def alerts(*, scale: float = 1.0, oldest: timedelta = OLDEST) -> list[Alert]:
    """Make all rules.

    Args:
        scale: what all windows, bounds in seconds and lengths are multiplied with. For tests.
        oldest: how long a run may be in one state before somebody should look.

    """
    lengths = _Lengths(scale)
    return [*_of_the_engine(lengths), *_of_runs(lengths, oldest), *_of_steps(lengths), *_of_telemetry(lengths)]


def _of_the_engine(length: _Lengths) -> list[Alert]:
    up = "on () (longwatch_engine_up == 1)"
    return [
        Alert(
            "LongwatchEngineDown",
            'longwatch_engine_up == 0 or up{job="longwatch"} == 0 or absent(longwatch_engine_up)',
            length(60),
            "critical",
            "No Longwatch engine runs, or nobody can say so",
            ENGINE,
            "Engine",
            "engine-down",
        ),
        Alert(
            "LongwatchEngineNotMoving",
            f"longwatch_log_lag_seconds > {length.bound(30)} "
            f"and deriv(longwatch_log_lag_seconds[{length.window(120)}]) > 0.9 and {up}",
            length(60),
            "critical",
            "The oldest entry has waited {{ $value | humanizeDuration }} and grows a second older each second",
            ENGINE,
            "Lag of the log",
            "engine-not-moving",
        ),
        Alert(
            "LongwatchLagGrowing",
            f"longwatch_log_lag_seconds > {length.bound(60)} "
            f"and deriv(longwatch_log_lag_seconds[{length.window(600)}]) > 0.02",
            length(300),
            "warning",
            "More comes than is folded: the engine is {{ $value | humanizeDuration }} behind",
            ENGINE,
            "Lag of the log",
            "lag-growing",
        ),
        Alert(
            "LongwatchCheckpointFailing",
            f"(longwatch_checkpoint_age_seconds > {length.bound(300)} "
            f"or increase(longwatch_checkpoints_failed_total[{length.window(900)}]) >= 3) and {up}",
            length(60),
            "warning",
            "No checkpoint has been completed lately: a restart would repeat all work since the last one",
            ENGINE,
            "Age of the newest checkpoint",
            "checkpoint-failing",
        ),
    ]


def _of_runs(length: _Lengths, oldest: timedelta) -> list[Alert]:
    letters = "sum by (workflow) (longwatch_dead_letters_total)"
    before = f"sum by (workflow) (longwatch_dead_letters_total offset {length.window(3600)})"
    late = f"rate(longwatch_timer_late_seconds_bucket[{length.window(600)}])"
    return [
        Alert(
            "LongwatchTimersLate",
            "sum by (workflow) (longwatch_timers_overdue) > 0 "
            f"or histogram_quantile(0.99, sum by (workflow, le) ({late})) > {length.bound(60)}",
            length(120),
            "warning",
            "Timers of {{ $labels.workflow }} are due and have not fired, or fire late",
            WORKFLOW,
            "Timers overdue",
            "timers-late",
        ),
        Alert(
            "LongwatchRunsHalted",
            'sum by (workflow) (longwatch_runs{status="halted"}) > 0',
            length(60),
            "warning",
            "{{ $value }} run(s) of {{ $labels.workflow }} stand still until somebody resumes them",
            FLEET,
            "Halted",
            "runs-halted",
        ),
        Alert(
            "LongwatchDeadLetters",
            f"{letters} > ({before} or 0 * {letters})",
            "0s",
            "warning",
            "Events{{ with $labels.workflow }} for {{ . }}{{ end }} could not be read or belong to no run",
            FLEET,
            "Dead letters",
            "dead-letters",
        ),
        Alert(
            "LongwatchOldestRun",
            f"max by (workflow, state) (longwatch_state_oldest_age_seconds) > {length.bound(oldest.total_seconds())}",
            length(300),
            "warning",
            "A run of {{ $labels.workflow }} has been in {{ $labels.state }} for {{ $value | humanizeDuration }}",
            FLEET,
            "Oldest run of each state",
            "oldest-run",
        ),
    ]


def _of_steps(length: _Lengths) -> list[Alert]:
    window = length.window(300)
    failed = f'sum by (workflow, step) (rate(longwatch_step_attempts_total{{result="failed"}}[{window}]))'
    every = f"sum by (workflow, step) (rate(longwatch_step_attempts_total[{window}]))"
    return [
        Alert(
            "LongwatchProviderFailing",
            f'({failed} / {every} > 0.5) or label_replace(longwatch_gate_open == 0, "step", "$1", "gate", "(.*)")',
            length(120),
            "warning",
            "More than half of the attempts of {{ $labels.step }} fail, or its provider is taken to be down",
            STEPS,
            "Share of attempts that fail",
            "provider-failing",
        ),
        Alert(
            "LongwatchBudgetNearlySpent",
            "max by (budget) (longwatch_budget_used_ratio) >= 0.9",
            "0s",
            "warning",
            "{{ $value | humanizePercentage }} of the budget {{ $labels.budget }} is spent",
            STEPS,
            "Budgets",
            "budget-nearly-spent",
        ),
    ]


def _of_telemetry(length: _Lengths) -> list[Alert]:
    return [
        Alert(
            "LongwatchExporterBehind",
            f"longwatch_exporter_lag_seconds > {length.bound(300)} or longwatch_exporter_up == 0",
            length(300),
            "warning",
            "Traces are behind, since the collector or the exporter is away or slow; nothing is lost",
            ENGINE,
            "Lag of the exporter",
            "exporter-behind",
        ),
        Alert(
            "LongwatchSpansRefused",
            f'increase(longwatch_exporter_spans_total{{result="refused"}}[{length.window(900)}]) > 0',
            "0s",
            "warning",
            "The collector refused spans, so traces there are incomplete; the log still has all",
            ENGINE,
            "Spans",
            "spans-refused",
        ),
    ]


def rules(wanted: Iterable[Alert], panels: Mapping[tuple[str, str], int], *, runbook: str = RUNBOOK) -> str:
    """Write a rule file for Prometheus.

    Args:
        wanted: the rules, in order.
        panels: ids of panels by board and title.
        runbook: where the runbook is read; anchors are put behind it.

    Raises:
        KeyError: a rule names a panel that there is not.

    """
    lines = ["# Made by `python -m grafana.generate`; change grafana/alerts.py.", "groups:", "  - name: longwatch"]
    lines += ["    rules:"]
    for alert in wanted:
        lines += [f"      - alert: {alert.name}", f"        expr: {json.dumps(alert.expr)}"]
        lines += [f"        for: {alert.hold}", "        labels:", f"          severity: {alert.severity}"]
        notes = {
            "summary": alert.summary,
            "runbook_url": f"{runbook}#{alert.anchor}",
            "dashboard": f"/d/{alert.board}?viewPanel=panel-{panels[alert.board, alert.panel]}",
            "__dashboardUid__": alert.board,
            "__panelId__": str(panels[alert.board, alert.panel]),
        }
        lines += ["        annotations:", *(f"          {name}: {json.dumps(text)}" for name, text in notes.items())]
    return "\n".join(lines) + "\n"


def _words(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
