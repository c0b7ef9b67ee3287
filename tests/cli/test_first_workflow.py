"""What `docs/first-workflow.md` tells a newcomer to write works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.new import write_project
from tests.cli.conftest import Longwatch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "first-workflow.md").read_text(encoding="utf-8")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A new project with what the page adds to it."""
    folder = tmp_path / "my-shop"
    write_project(folder, "my_shop")
    *parts, application, tests = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "my_shop" / "returns.py").write_text("\n\n".join(parts), encoding="utf-8")
    (folder / "my_shop" / "__init__.py").write_text(application, encoding="utf-8")
    (folder / "tests" / "test_return.py").write_text(tests, encoding="utf-8")
    return folder


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_pages_workflow_passes_its_tests_and_the_type_checker(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tests = python(shop, "pytest", "-q", "-p", "no:cacheprovider")
    types = python(
        shop, "mypy", "--strict", "--cache-dir", str(tmp_path_factory.getbasetemp() / "mypy"), "my_shop", "tests"
    )

    assert tests.returncode == 0, tests.stdout
    assert types.returncode == 0, types.stdout


def test_the_pages_commands_about_the_definition_answer(shop: Path, longwatch: Longwatch) -> None:
    assert longwatch("check", "--strict", folder="my-shop").returncode == 0
    assert "AwaitingParcel" in longwatch("diagram", "return", folder="my-shop").stdout
    assert "ParcelArrived" in longwatch("events", folder="my-shop").stdout


def test_check_finds_what_the_page_says_it_finds(shop: Path, longwatch: Longwatch) -> None:
    source = shop / "my_shop" / "returns.py"
    text = source.read_text(encoding="utf-8")
    without = text.replace(text[text.index("    @after(days=14)") : text.index("class PayingBack")], "\n\n")
    source.write_text(without, encoding="utf-8")

    answer = longwatch("check", folder="my-shop")

    assert answer.returncode == 1
    assert "AwaitingParcel may wait for ParcelArrived without end" in answer.stdout
