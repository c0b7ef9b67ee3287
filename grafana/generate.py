"""Write what is generated: `python -m grafana.generate`. Needs the SDK, which `make setup` installs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana.alerts import alerts, rules
from grafana.boards import engine, fleet, shadow, steps, workflow
from grafana.shipped import panels

if TYPE_CHECKING:
    from grafana.house import Board

FOLDER: Final = Path(__file__).parent / "generated"


def boards() -> list[Board]:
    """Put all boards together, in the order of the menu."""
    return [part.board() for part in (fleet, workflow, steps, engine, shadow)]


def generated() -> dict[str, str]:
    """Make every file, by its name in `generated/`."""
    made = boards()
    built = {board.uid: board.build() for board in made}
    asked = [asdict(query) for board in made for query in board.queries]
    return {
        **{f"boards/{uid}.json": _text(board) for uid, board in built.items()},
        "alerts.yaml": rules(alerts(), panels(built.values())),
        "queries.json": _text(asked),
    }


def main() -> None:
    (FOLDER / "boards").mkdir(parents=True, exist_ok=True)
    for name, text in generated().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _text(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
