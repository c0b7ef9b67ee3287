from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.new import ProjectError, package_name, write_project
from tests.cli.conftest import Longwatch

ROOT = Path(__file__).parents[2]


def test_a_new_project_passes_its_own_tests(tmp_path: Path) -> None:
    write_project(tmp_path / "my-shop", "my_shop")

    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "my-shop",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stdout


def test_a_new_project_passes_the_type_checker_and_the_house_rules(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_project(tmp_path / "my-shop", "my_shop")

    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(tmp_path_factory.getbasetemp() / "mypy"),
            "my_shop",
        ],
        cwd=tmp_path / "my-shop",
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    format_ = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "120", "."],
        cwd=tmp_path / "my-shop",
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stdout
    assert format_.returncode == 0, format_.stdout


def test_a_new_project_is_whole(tmp_path: Path, longwatch: Longwatch) -> None:
    made = longwatch("new", "my-shop", "--json")

    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["package"] == "my_shop"
    assert longwatch("check", folder="my-shop").returncode == 0
    assert "AwaitingPayment" in longwatch("diagram", folder="my-shop").stdout
    texts = [path.read_text("utf-8") for path in (tmp_path / "my-shop").rglob("*") if path.is_file()]
    left = [text for text in texts if "@NAME" in text or "@PACK" in text]
    assert left == []


def test_a_folder_that_is_there_is_refused(longwatch: Longwatch) -> None:
    longwatch("new", "my-shop")

    again = longwatch("new", "my-shop")

    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize(
    "name", ["", "1shop", "my shop", "class", "json", "engine", "tests", "shop-", "sh\u00f6p", "a/../b c", "x" * 80]
)
def test_names_that_python_or_the_house_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(ProjectError):
        package_name(name)
