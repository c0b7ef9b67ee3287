from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from engine.testing import Simulation
from tests.typing import good

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MARK = re.compile(r"# E: (?P<codes>[a-z, -]+)$")
SAID = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[a-z-]+)\]$")


def marked(file: Path) -> set[tuple[str, int, str]]:
    found = set()
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if mark := MARK.search(line):
            found |= {(file.name, number, code) for code in mark["codes"].split(", ")}
    return found


def said(*files: Path) -> set[tuple[str, int, str]]:
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-pretty", "--no-color-output"]
    run = subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    lines = (SAID.match(line) for line in run.stdout.splitlines())
    return {(Path(m["file"]).name, int(m["line"]), m["code"]) for m in lines if m}


def test_every_mistake_gives_its_error_and_nothing_else_gives_one() -> None:
    mistakes = HERE / "mistakes.py"

    assert said(mistakes, HERE / "good.py") == marked(mistakes)


def test_the_twenty_five_mistakes_are_all_there() -> None:
    text = (HERE / "mistakes.py").read_text()

    assert {int(number) for number in re.findall(r"^ *# (\d+) ", text, re.MULTILINE)} >= set(range(1, 26))


def test_what_types_well_is_a_definition_that_runs() -> None:
    run = Simulation(good.good)
    run.fake(good.one, len)
    run.fake(good.two, str)
    run.fake(good.three, lambda item: item)
    run.fake(good.four, lambda item: float(item.price))
    run.fake(good.five, lambda pair: (pair[1],))
    items = (good.Item(name="a", price=1), good.Item(name="b", price=2))
    run.send(good.Ordered(order="k", items=items, due=datetime(2026, 2, 1, tzinfo=UTC)))
    run.send(good.Paid(amount=3))
    run.advance(hours=1)

    assert run.state() == good.Closed(order=run.state().order, why="k")  # type: ignore[attr-defined]
    assert good.good.warnings
    assert set(good.app.steps) == {"one", "two", "third", "four", "five"}
