"""The state machine of the chosen workflow, with the number of runs in each state, in Grafana's own node graph.

The panel takes its nodes from a table with a column `id`, and its arrows from one that also has `source` and `target`.
Prometheus gives both: a series' labels are the columns of its row. The numbers are a metric. States that no run has
come to yet, and the arrows, are no metric: they are constants of the definition, which `longwatch grafana push --app`
and `export --app` write into the two queries, for all workflows of the application; the variable `workflow` picks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

TITLE: Final = "State machine"
DESCRIPTION: Final = (
    "The states of the workflow with the number of runs in each, ended ones too. The arrows are drawn when the board "
    "was pushed with the application (`longwatch grafana push --app MODULE:NAME`)."
)
_COUNTED: Final = 'sum by (state) (longwatch_runs{workflow=~"$workflow"})'
_NAMED: Final = 'label_replace(label_replace({}, "id", "$1", "state", "(.*)"), "title", "$1", "state", "(.*)")'
NODES: Final = _NAMED.format(_COUNTED)
"""Without an application: the states that runs have come to."""
_RENAMED: Final = {"Value": "mainstat", "Value #nodes": "mainstat", "Value #edges": "thickness"}
_CHOSEN: Final = 'on (workflow) label_replace(vector(1), "workflow", "$workflow", "", "")'
_SEPARATOR: Final = ">"


@dataclass(frozen=True)
class Machine:
    """A workflow as the picture needs it."""

    workflow: str
    states: Sequence[str]
    arrows: Sequence[tuple[str, str]]
    """From, to."""


def nodes(machines: Iterable[Machine]) -> str:
    """Ask for every state of the chosen workflow; one that no run is in counts 0."""
    known = _constants((machine.workflow, state) for machine in machines for state in machine.states)
    if not known:
        return NODES
    none = f"0 * max by (state) ({_parted(known, 'workflow', 'state')} and {_CHOSEN})"
    return _NAMED.format(f"({_COUNTED} or {none})")


def edges(machines: Iterable[Machine]) -> str:
    """Ask for the arrows of the chosen workflow; empty: no machine has any."""
    known = _constants((machine.workflow, *arrow) for machine in machines for arrow in machine.arrows)
    return f"{_parted(known, 'workflow', 'source', 'target')} and {_CHOSEN}" if known else ""


def draw(board: dict[str, Any], machines: Sequence[Machine]) -> dict[str, Any]:
    """Give the board with the machines in its picture; the board itself stays as it is."""
    made = copy.deepcopy(board)
    for panel in made.get("panels", ()):
        if panel["type"] == "nodeGraph" and panel["title"] == TITLE:
            first = panel["targets"][0]
            arrows = edges(machines)
            panel["targets"] = [{**first, "expr": nodes(machines)}]
            panel["targets"] += [{**first, "refId": "edges", "expr": arrows}] if arrows else []
    return made


def transformations() -> list[dict[str, Any]]:
    """What makes the panel find its columns."""
    return [{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": _RENAMED}}]


def _constants(rows: Iterable[Sequence[str]]) -> str:
    """One series a row, its words in the label `id`."""
    each = (f'label_replace(vector(1), "id", "{_SEPARATOR.join(row)}", "", "")' for row in rows)
    return " or ".join(each)


def _parted(known: str, *labels: str) -> str:
    """Give each word of `id` a label of its own."""
    pattern = _SEPARATOR.join(["([^>]*)"] * len(labels))
    made = f"({known})"
    for number, label in enumerate(labels, 1):
        made = f'label_replace({made}, "{label}", "${number}", "id", "{pattern}")'
    return made
