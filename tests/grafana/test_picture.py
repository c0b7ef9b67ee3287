"""The state machine in Grafana's node graph: what its two queries ask, by a real Prometheus's evaluation."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from grafana import fill, house
from grafana.pages import WORKFLOW
from grafana.picture import NODES, TITLE, Machine, draw, edges, nodes
from grafana.shipped import boards
from tests.grafana.test_boards import read
from tests.grafana.test_rules import promtool

CLAIM = Machine("claim", ["Open", "Review", "Closed"], [("Open", "Review"), ("Review", "Open"), ("Review", "Closed")])
ORDER = Machine("order", ["Open", "Paid"], [("Open", "Paid")])
SERIES = {
    'longwatch_runs{workflow="claim",state="Open",status="waiting"}': 3,
    'longwatch_runs{workflow="claim",state="Open",status="halted"}': 1,
    'longwatch_runs{workflow="claim",state="Review",status="waiting"}': 2,
    'longwatch_runs{workflow="order",state="Open",status="waiting"}': 9,
}


def evaluate(folder: Path, expr: str, expected: Mapping[str, float]) -> str:
    """What promtool says against the samples that are expected; empty: they are those."""
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": f"{value}x4"} for name, value in SERIES.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": "30s", "exp_samples": samples}],
    }
    path = folder / "picture_test.yaml"
    path.write_text(json.dumps({"evaluation_interval": "15s", "tests": [test]}), encoding="utf-8")
    said = subprocess.run([str(promtool()), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return said.stdout + said.stderr if said.returncode else ""


def node(state: str) -> str:
    return f'{{id="{state}", state="{state}", title="{state}"}}'


def test_each_state_that_runs_came_to_is_a_node(tmp_path: Path) -> None:
    assert evaluate(tmp_path, fill(NODES, workflow="claim"), {node("Open"): 4, node("Review"): 2}) == ""


def test_with_the_application_every_state_of_the_chosen_workflow_is_a_node(tmp_path: Path) -> None:
    expected = {node("Open"): 4, node("Review"): 2, node("Closed"): 0}

    assert evaluate(tmp_path, fill(nodes([CLAIM, ORDER]), workflow="claim"), expected) == ""


def test_each_arrow_of_the_chosen_workflow_is_an_edge(tmp_path: Path) -> None:
    expected = {
        f'{{workflow="claim", id="claim>{source}>{target}", source="{source}", target="{target}"}}': 1.0
        for source, target in CLAIM.arrows
    }

    assert evaluate(tmp_path, fill(edges([CLAIM, ORDER]), workflow="claim"), expected) == ""


@pytest.mark.parametrize("machines", [[], [CLAIM, ORDER]], ids=["no application", "an application"])
def test_no_edge_leads_to_a_node_that_is_not_there(machines: list[Machine]) -> None:
    """The panel would break over it."""
    board = draw(read(WORKFLOW), machines)
    (panel,) = [panel for panel in board["panels"] if panel["title"] == TITLE]

    assert [target["refId"] for target in panel["targets"]] == ["nodes", "edges"][: len(machines) + 1][:2]
    assert all(state in nodes(machines) for machine in machines for arrow in machine.arrows for state in arrow)


def test_a_drawn_board_goes_through_the_types_of_its_grafana_unchanged() -> None:
    board = draw(read(WORKFLOW), [CLAIM, ORDER])

    assert house.through_types(board) == board


def test_the_board_itself_stays_as_it_is() -> None:
    board: dict[str, Any] = read(WORKFLOW)
    draw(board, [CLAIM])

    assert board == read(WORKFLOW)


def test_only_the_board_of_workflows_is_drawn_in() -> None:
    plain, drawn = boards(), boards([CLAIM])

    assert [uid["uid"] for uid, other in zip(plain, drawn, strict=True) if uid != other] == [WORKFLOW]
