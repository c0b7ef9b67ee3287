"""The boards and rules that are shipped, ready to be handed out: pushed to a Grafana, or put into files for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from grafana.alerts import OLDEST, alerts, rules
from grafana.pages import ENGINE, FLEET, SHADOW, STEPS, WORKFLOW
from grafana.picture import Machine, draw
from grafana.provisioning import providers, sources

BOARDS: Final = (FLEET, WORKFLOW, STEPS, ENGINE, SHADOW)
RULES: Final = "alerts.yaml"


def boards(machines: Sequence[Machine] = ()) -> list[dict[str, Any]]:
    """All boards as Grafana's JSON, with the machines drawn in the board of workflows."""
    return [draw(json.loads(_read(f"boards/{uid}.json")), machines) for uid in BOARDS]


def rule_file(oldest: timedelta = OLDEST) -> str:
    """The rules for Prometheus; `oldest` is how long a run may be in one state before somebody should look."""
    return _read(RULES) if oldest == OLDEST else rules(alerts(oldest=oldest), panels(boards()))


def panels(built: Iterable[dict[str, Any]]) -> dict[tuple[str, str], int]:
    """Ids of panels by board and title."""
    return {
        (board["uid"], panel["title"]): panel["id"]
        for board in built
        for panel in board["panels"]
        if panel["type"] != "row"
    }


def export(
    folder: Path,
    machines: Sequence[Machine] = (),
    *,
    prometheus: str,
    jaeger: str,
    installed: str,
    oldest: timedelta = OLDEST,
) -> list[Path]:
    """Write all that a Grafana and a Prometheus read from files, and say what was written.

    Args:
        folder: made where it is missing; files of the same names are replaced.
        machines: what the board of workflows draws.
        prometheus: where Grafana finds Prometheus, as `http://127.0.0.1:9090`.
        jaeger: likewise Jaeger.
        installed: where Grafana will find the folder's `dashboards`.
        oldest: how long a run may be in one state before somebody should look.

    """
    texts = {f"dashboards/{board['uid']}.json": written(board) for board in boards(machines)}
    texts |= {
        "provisioning/dashboards/longwatch.yaml": providers(installed),
        "provisioning/datasources/longwatch.yaml": sources(prometheus, jaeger),
        RULES: rule_file(oldest),
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def written(board: dict[str, Any]) -> str:
    """A board as a file holds it."""
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _read(name: str) -> str:
    return files("grafana").joinpath("generated", name).read_text(encoding="utf-8")
