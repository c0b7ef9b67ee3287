"""Events that come in through a Flink source of the project's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flink import sources
from tests.flink.harness import Stage

pytestmark = [pytest.mark.flink, pytest.mark.redis]


def order(number: int) -> str:
    data = {"id": f"in{number}", "customer": "c1", "items": ["a"]}
    event = {"specversion": "1.0", "id": f"file-{number}", "source": "files", "type": "OrderPlaced", "data": data}
    return json.dumps(event)


def test_events_from_files_become_runs_and_bad_ones_dead_letters(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    lines = [order(n) for n in range(100)]
    bad = json.dumps({"specversion": "1.0", "id": "x", "source": "files", "type": "Unheard"})
    (folder / "first.jsonl").write_text("\n".join([*lines, lines[0], "no json", bad]) + "\n")
    with Stage(tmp_path / "data") as stage:
        stage.start(intakes=("tests.flink.sources:files",), environment={sources.FOLDER: str(folder)})
        stage.until(lambda: len({r.key for r in stage.journal.records if r.workflow == "order"}) >= 100, "100 orders")
        stage.until(lambda: len(stage.letters()) >= 2, "two dead letters")
        stage.proven()

        reasons = sorted(letter.reason for letter in stage.letters().values())
        repeats = [r for r in stage.journal.records if r.ignored.startswith("a repeat")]

    assert len(repeats) == 1
    assert "Unheard" in reasons[1]
    assert reasons[0].startswith("no entry")
