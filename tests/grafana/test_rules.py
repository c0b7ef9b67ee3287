"""Each rule by `promtool test rules`: quiet before its time, firing, resolved."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, repeat
from pathlib import Path

import pytest

from grafana import alerts, shipped
from grafana.alerts import rules
from grafana.generate import FOLDER
from observability.servers.install import ensure
from observability.servers.tool import PROMETHEUS
from tests.grafana.test_boards import panels

Values = list[float | None]


@cache
def promtool() -> Path:
    return ensure(PROMETHEUS).paths["promtool"]


def steps(*pairs: tuple[float | None, int]) -> Values:
    """So many samples of each value; None: no sample."""
    return list(chain.from_iterable(repeat(value, count) for value, count in pairs))


UP: dict[str, Values] = {"longwatch_engine_up": steps((1, 400))}


@dataclass(frozen=True)
class Case:
    """Samples 15 seconds apart, and when the rule is to be quiet, to fire, and to be quiet again."""

    alert: str
    name: str
    series: dict[str, Values]
    quiet: str
    fires: str
    over: str
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)


CASES = [
    Case(
        "LongwatchEngineDown",
        "nobody has the lease",
        {"longwatch_engine_up": steps((1, 8), (0, 12), (1, 8))},
        "2m30s",
        "3m15s",
        "5m15s",
    ),
    Case(
        "LongwatchEngineDown",
        "nobody answers the scrape",
        {"longwatch_engine_up": steps((1, 8), (None, 40), (1, 8))},
        "2m30s",
        "8m30s",
        "12m15s",
    ),
    Case(
        "LongwatchEngineNotMoving",
        "the oldest entry stays the same",
        {
            "longwatch_log_lag_seconds": [*steps((0, 8)), *(15.0 * n for n in range(1, 25)), *steps((0, 8))],
            **UP,
        },
        "3m",
        "6m",
        "8m15s",
        "The oldest entry has waited 4m 15s and grows a second older each second",
    ),
    Case(
        "LongwatchLagGrowing",
        "more comes than is folded",
        {"longwatch_log_lag_seconds": [*(50 + 1.5 * n for n in range(40)), *steps((5, 20))]},
        "4m",
        "8m",
        "10m15s",
        "More comes than is folded: the engine is 1m 38s behind",
    ),
    Case(
        "LongwatchCheckpointFailing",
        "the newest is old",
        {"longwatch_checkpoint_age_seconds": [*(15.0 * n for n in range(32)), *steps((3, 8))], **UP},
        "5m45s",
        "7m",
        "8m15s",
    ),
    Case(
        "LongwatchCheckpointFailing",
        "many fail",
        {"longwatch_checkpoints_failed_total": [*(float(n // 4) for n in range(24)), *steps((5, 80))], **UP},
        "2m",
        "6m",
        "24m",
    ),
    Case(
        "LongwatchTimersLate",
        "some are overdue",
        {'longwatch_timers_overdue{workflow="claim"}': steps((0, 4), (2, 16), (0, 8))},
        "2m",
        "3m30s",
        "5m15s",
        "Timers of claim are due and have not fired, or fire late",
        {"workflow": "claim"},
    ),
    Case(
        "LongwatchTimersLate",
        "they fire late",
        {
            'longwatch_timer_late_seconds_bucket{workflow="claim",le="60"}': steps((0, 200)),
            'longwatch_timer_late_seconds_bucket{workflow="claim",le="300"}': [
                *(float(n) for n in range(40)),
                *steps((39, 160)),
            ],
            'longwatch_timer_late_seconds_bucket{workflow="claim",le="+Inf"}': [
                *(float(n) for n in range(40)),
                *steps((39, 160)),
            ],
        },
        "1m",
        "9m",
        "25m",
        "Timers of claim are due and have not fired, or fire late",
        {"workflow": "claim"},
    ),
    Case(
        "LongwatchRunsHalted",
        "a handler failed",
        {
            'longwatch_runs{workflow="claim",state="Review",status="halted"}': steps((0, 4), (2, 12), (0, 8)),
            'longwatch_runs{workflow="claim",state="Review",status="waiting"}': steps((9, 24)),
        },
        "1m30s",
        "3m",
        "4m15s",
        "2 run(s) of claim stand still until somebody resumes them",
        {"workflow": "claim"},
    ),
    Case(
        "LongwatchDeadLetters",
        "three came",
        {'longwatch_dead_letters_total{workflow="claim"}': steps((0, 8), (3, 300))},
        "1m45s",
        "2m",
        "63m",
        "Events for claim could not be read or belong to no run",
        {"workflow": "claim"},
    ),
    Case(
        "LongwatchDeadLetters",
        "the first ever came",
        {'longwatch_dead_letters_total{workflow="claim"}': steps((None, 8), (1, 300))},
        "1m45s",
        "2m",
        "63m",
        "Events for claim could not be read or belong to no run",
        {"workflow": "claim"},
    ),
    Case(
        "LongwatchOldestRun",
        "longer than a month",
        {
            'longwatch_state_oldest_age_seconds{workflow="claim",state="Review"}': steps(
                (2_591_000, 4), (2_600_000, 24), (60, 8)
            )
        },
        "5m",
        "6m15s",
        "7m15s",
        "A run of claim has been in Review for 30d 2h 13m 20s",
        {"workflow": "claim", "state": "Review"},
    ),
    Case(
        "LongwatchProviderFailing",
        "attempts fail",
        {
            'longwatch_step_attempts_total{workflow="claim",step="assess",result="failed"}': [
                *steps((0, 4)),
                *(float(3 * n) for n in range(20)),
                *steps((57, 60)),
            ],
            'longwatch_step_attempts_total{workflow="claim",step="assess",result="ok"}': [float(n) for n in range(84)],
        },
        "1m30s",
        "5m",
        "14m",
        "More than half of the attempts of assess fail, or its provider is taken to be down",
        {"workflow": "claim", "step": "assess"},
    ),
    Case(
        "LongwatchProviderFailing",
        "its gate is shut",
        {'longwatch_gate_open{gate="openai"}': steps((1, 4), (0, 16), (1, 8))},
        "2m",
        "3m30s",
        "5m15s",
        "More than half of the attempts of openai fail, or its provider is taken to be down",
        {"gate": "openai", "step": "openai"},
    ),
    Case(
        "LongwatchBudgetNearlySpent",
        "nine tenths are gone",
        {'longwatch_budget_used_ratio{budget="claims"}': steps((0.5, 4), (0.95, 8), (0.2, 8))},
        "45s",
        "1m",
        "3m15s",
        "95% of the budget claims is spent",
        {"budget": "claims"},
    ),
    Case(
        "LongwatchExporterBehind",
        "the collector is away",
        {
            "longwatch_exporter_lag_seconds": [*(15.0 * n for n in range(60)), *steps((1, 8))],
            "longwatch_exporter_up": steps((1, 68)),
        },
        "9m",
        "11m",
        "15m15s",
    ),
    Case(
        "LongwatchExporterBehind",
        "the exporter is gone",
        {"longwatch_exporter_up": steps((1, 4), (0, 24), (1, 8))},
        "5m",
        "6m15s",
        "7m15s",
    ),
    Case(
        "LongwatchSpansRefused",
        "three were too large",
        {
            'longwatch_exporter_spans_total{result="refused"}': steps((0, 8), (3, 80)),
            'longwatch_exporter_spans_total{result="sent"}': [float(9 * n) for n in range(88)],
        },
        "1m45s",
        "2m",
        "17m15s",
        labels={"result": "refused"},
    ),
]
HEALTHY: dict[str, Values] = {
    "longwatch_engine_up": steps((1, 200)),
    'up{job="longwatch"}': steps((1, 200)),
    "longwatch_log_lag_seconds": [*steps((0.2, 40), (45, 40), (8, 120))],
    "longwatch_checkpoint_age_seconds": [float(n % 3) * 5 for n in range(200)],
    "longwatch_checkpoints_failed_total": steps((0, 100), (1, 100)),
    'longwatch_timers_overdue{workflow="claim"}': steps((0, 20), (1, 2), (0, 178)),
    'longwatch_runs{workflow="claim",state="Review",status="halted"}': steps((0, 200)),
    'longwatch_runs{workflow="claim",state="Review",status="waiting"}': steps((7, 200)),
    'longwatch_dead_letters_total{workflow="claim"}': steps((0, 200)),
    'longwatch_state_oldest_age_seconds{workflow="claim",state="Review"}': steps((86_400, 200)),
    'longwatch_step_attempts_total{workflow="claim",step="assess",result="ok"}': [float(3 * n) for n in range(200)],
    'longwatch_step_attempts_total{workflow="claim",step="assess",result="failed"}': [float(n) for n in range(200)],
    'longwatch_gate_open{gate="openai"}': steps((1, 200)),
    'longwatch_budget_used_ratio{budget="claims"}': steps((0.8, 200)),
    "longwatch_exporter_up": steps((1, 200)),
    "longwatch_exporter_lag_seconds": steps((2, 50), (200, 20), (2, 130)),
    'longwatch_exporter_spans_total{result="refused"}': steps((4, 200)),
    'longwatch_exporter_spans_total{result="sent"}': [float(9 * n) for n in range(200)],
}


def run(folder: Path, *checks: dict[str, object], rule_file: Path = FOLDER / "alerts.yaml") -> str:
    """What promtool says; empty: all is as it should be."""
    path = folder / "rules_test.yaml"
    path.write_text(
        json.dumps({"rule_files": [str(rule_file)], "evaluation_interval": "15s", "tests": list(checks)}),
        encoding="utf-8",
    )
    said = subprocess.run([str(promtool()), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return said.stdout + said.stderr if said.returncode else ""


def check(series: dict[str, Values], *expected: dict[str, object]) -> dict[str, object]:
    written = [
        {"series": name, "values": " ".join("_" if value is None else f"{value:g}" for value in values)}
        for name, values in series.items()
    ]
    return {"interval": "15s", "input_series": written, "alert_rule_test": list(expected)}


def notes(name: str, summary: str) -> dict[str, str]:
    """The annotations of a rule."""
    alert = next(each for each in alerts() if each.name == name)
    panel = next(panel["id"] for panel in panels(alert.board) if panel["title"] == alert.panel)
    return {
        "summary": summary or alert.summary,
        "runbook_url": f"docs/runbook.md#{alert.anchor}",
        "dashboard": f"/d/{alert.board}?viewPanel=panel-{panel}",
        "__dashboardUid__": alert.board,
        "__panelId__": str(panel),
    }


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.alert}: {case.name}") for case in CASES])
def test_a_rule_waits_fires_and_resolves(case: Case, tmp_path: Path) -> None:
    severity = next(each.severity for each in alerts() if each.name == case.alert)
    fired = {"exp_labels": {"severity": severity, **case.labels}, "exp_annotations": notes(case.alert, case.summary)}
    quiet: list[object] = []
    expected: list[dict[str, object]] = [
        {"eval_time": case.quiet, "alertname": case.alert, "exp_alerts": quiet},
        {"eval_time": case.fires, "alertname": case.alert, "exp_alerts": [fired]},
        {"eval_time": case.over, "alertname": case.alert, "exp_alerts": quiet},
    ]

    assert run(tmp_path, check(case.series, *expected)) == ""


@pytest.mark.parametrize("name", [alert.name for alert in alerts()])
def test_a_healthy_engine_wakes_nobody(name: str, tmp_path: Path) -> None:
    expected: list[dict[str, object]] = [
        {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []} for minutes in range(1, 49)
    ]

    assert run(tmp_path, check(HEALTHY, *expected)) == ""


def test_each_rule_has_a_case() -> None:
    assert {case.alert for case in CASES} == {alert.name for alert in alerts()}


def test_rules_made_shorter_are_rules_still(tmp_path: Path) -> None:
    """A test that lets real faults happen has no time for minutes."""
    path = tmp_path / "short.yaml"
    path.write_text(rules(alerts(scale=0.02), shipped.panels(shipped.boards())), encoding="utf-8")
    said = subprocess.run([str(promtool()), "check", "rules", str(path)], capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stdout + said.stderr
    assert "[5000ms]" in path.read_text(encoding="utf-8")
