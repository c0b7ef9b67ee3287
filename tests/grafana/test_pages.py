"""The runbook and the page of the boards: each alert has its paragraph, each command that is named is there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from grafana import alerts, queries
from observability.metric import CATALOGUE
from tests.cli.pages import Page, unknown
from tests.grafana.test_boards import BOARDS, panels

RUNBOOK, DASHBOARDS = Page("runbook"), Page("dashboards")
ALERTS = [pytest.param(alert, id=alert.name) for alert in alerts()]
LABELS = {each.name: set(each.labels) for each in CATALOGUE}
NOT_OURS = ("longwatch_shadow_",)


def section(title: str) -> str:
    return RUNBOOK.text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def anchors() -> dict[str, str]:
    """Titles of the runbook's sections by their anchors, as a repository's pages make them."""
    return {title.lower().replace(" ", "-"): title for title in re.findall(r"^## (.+)$", RUNBOOK.text, re.MULTILINE)}


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_paragraph_that_says_what_to_do(alert: Any) -> None:
    text = section(anchors()[alert.anchor])

    assert re.findall(r"\*\*(\w+(?: at)?)\.\*\*", text) == ["Means", "Look at", "Do"]
    assert "`longwatch " in text or "exporter catches up" in text


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_on_the_page_with_its_link(alert: Any) -> None:
    assert f"[{alert.name}](runbook.md#{alert.anchor})" in DASHBOARDS.text


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_leads_to_a_panel_that_shows_its_metric(alert: Any) -> None:
    (panel,) = [each for each in panels(alert.board) if each["title"] == alert.panel]
    shown = set(re.findall(r"longwatch_\w+?(?=_bucket|\b)", " ".join(target["expr"] for target in panel["targets"])))
    asked = set(re.findall(r"longwatch_\w+?(?=_bucket|\b)", alert.expr))

    assert (
        shown & asked or alert.name == "LongwatchDeadLetters"
    )  # the rule counts them, the panel has those that are left


def test_no_section_is_for_an_alert_that_there_is_not() -> None:
    assert set(anchors()) == {alert.anchor for alert in alerts()}


@pytest.mark.parametrize("page", [RUNBOOK, DASHBOARDS], ids=["runbook", "dashboards"])
def test_each_command_and_option_that_is_named_is_there(page: Page) -> None:
    assert [(" ".join(words), found) for words in page.commands() if (found := unknown(words))] == []


def test_what_boards_and_rules_ask_for_is_what_is_measured() -> None:
    asked = " ".join([*(each.expr for each in queries()), *(alert.expr for alert in alerts())])
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"longwatch_\w+", asked)}

    assert {name for name in names if not name.startswith(NOT_OURS)} <= set(LABELS)


def test_what_is_measured_is_shown() -> None:
    """A figure that stands on no board helps nobody at night."""
    shown = " ".join(target["expr"] for uid in BOARDS for panel in panels(uid) for target in panel["targets"])

    assert {name for name in LABELS if name not in shown} == set()


def test_series_are_told_apart_by_labels_that_they_have() -> None:
    wrong = []
    for each in queries():
        if any(name in each.expr for name in NOT_OURS) or "label_replace" in each.expr:
            continue
        names = set(re.findall(r"longwatch_\w+?(?=_bucket|_sum\b|\b)", each.expr)) & set(LABELS)
        used = {label for group in re.findall(r"by \(([^)]*)\)", each.expr) for label in group.split(", ")} - {"le"}
        wrong += [(each.panel, name, label) for name in names for label in used - LABELS[name]]

    assert wrong == []
