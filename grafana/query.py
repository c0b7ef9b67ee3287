"""What the boards ask of Prometheus, to be tried out without a Grafana."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

VARIABLES: Final = {
    "workflow": ".+",
    "__rate_interval": "1m",
    "__interval": "30s",
    "__range": "1h",
}
"""What `fill` puts in place of a variable: every workflow, and windows that a run of a few minutes has samples in."""


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    board: str
    """Its uid, as `longwatch-fleet`."""
    panel: str
    """Its title, which no other panel of the board has."""
    expr: str
    """PromQL with Grafana's variables in it; see `fill`."""
    may_be_empty: str = ""
    """Why a healthy engine may have nothing to show here; empty: it always has."""


def queries() -> list[Query]:
    """Read the expressions of all boards, in the order of boards and panels, from what was generated."""
    text = files("grafana").joinpath("generated", "queries.json").read_text(encoding="utf-8")
    return [Query(**each) for each in json.loads(text)]


def fill(expr: str, **values: str) -> str:
    """Put values in place of Grafana's variables, as Grafana does before it asks; `values` win over `VARIABLES`."""
    known = {**VARIABLES, **values}
    for name in sorted(known, key=len, reverse=True):
        expr = expr.replace(f"${{{name}}}", known[name]).replace(f"${name}", known[name])
    return expr
