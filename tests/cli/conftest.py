"""A command line in a folder of its own."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from engine import Application
from engine.cli.app import main
from engine.log.archive import Archive
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from tests import shop
from tests.cli.inside import Call, Ended
from tests.plain_engine import PlainEngine

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


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """A command in a project's folder, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def app() -> Application:
    """What `engine` runs."""
    return shop.app


@pytest.fixture
def engine(tmp_path: Path, app: Application) -> Iterator[PlainEngine]:
    data = tmp_path / ".longwatch"
    server = EmbeddedRedis(data, fsync="everysec")
    server.ensure()
    log = RedisLog.create(server.url, 4, archive=Archive(data / "archive"))
    engine = PlainEngine(app, log, server.url)
    yield engine
    engine.close()
    log.close()
    server.stop()
