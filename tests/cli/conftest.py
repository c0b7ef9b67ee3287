"""A command line in a folder of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

Longwatch = Callable[..., CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LONGWATCH_"):
            monkeypatch.delenv(name)


@pytest.fixture
def longwatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Longwatch:
    """Run a command in `tmp_path`, or in a folder below it."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, folder: str = ".", stdin: str = "", **environment: str) -> CompletedProcess[str]:
        return run(
            [sys.executable, "-m", "engine.cli", *words],
            cwd=tmp_path / folder,
            env={**os.environ, "COLUMNS": "100", **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call
