"""What runs beside the engine: started, started again, ended, and never in the way."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import companions, supervisor
from engine.companions import Companions, companions_of
from engine.settings import Settings
from engine.supervisor import Supervisor
from tests.cli.conftest import Longwatch
from tests.cli.test_supervisor import Ear, interrupt, note, project, supervise

__all__ = ["project"]

FAKE = "tests.cli.fake_companion"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companions, "EXPORTER", FAKE)
    monkeypatch.setattr(companions, "METRICS", FAKE)
    monkeypatch.setattr(companions, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("FAKE_COMPANION", "ends well")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def until(happened: Callable[[], object], each: Callable[[], object] = lambda: None) -> None:
    last = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < last
        each()
        time.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def starts(data: Path) -> list[list[str]]:
    path = data / "companions"
    return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


def beside(data: Path, ear: Ear, **settings: str) -> Companions:
    data.mkdir(exist_ok=True)
    (data / "logs").mkdir(exist_ok=True)
    return companions_of(Settings(data=data, **settings), data / "logs", ear.say)  # type: ignore[arg-type]


def test_nothing_runs_beside_an_engine_that_was_not_asked_for_it(tmp_path: Path) -> None:
    assert not beside(tmp_path, Ear()).keep()
    assert starts(tmp_path) == []


def test_each_is_told_where_to_work_and_the_collector_not_by_its_arguments(tmp_path: Path) -> None:
    both = beside(tmp_path, Ear(), otlp="http://u:p@collector:4318", metrics="0.0.0.0:9464")

    assert both.keep()
    until(lambda: len(starts(tmp_path)) == 2)
    both.stop(5)

    told = {tuple(words[2:]) for words in starts(tmp_path)}
    assert told == {("--data", str(tmp_path)), ("--data", str(tmp_path), "--listen", "0.0.0.0:9464")}
    assert {words[1] for words in starts(tmp_path)} == {"http://u:p@collector:4318"}
    assert not any(lives(int(words[0])) for words in starts(tmp_path))


def test_one_that_was_killed_comes_back(tmp_path: Path) -> None:
    ear = Ear()
    one = beside(tmp_path, ear, otlp="http://collector")
    one.keep()
    until(lambda: len(starts(tmp_path)) == 1)
    first = one.pid("exporter")
    os.kill(first, signal.SIGKILL)
    until(lambda: len(starts(tmp_path)) == 2, one.keep)

    assert one.pid("exporter") not in {0, first}
    assert ear.words[0].startswith(
        "the engine goes on without its exporter process: it ended with code -9 and is started again, later each time"
    )
    one.stop(5)


def test_one_that_fails_again_and_again_is_started_later_each_time_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_COMPANION", "fails")
    ear = Ear()
    one = beside(tmp_path, ear, otlp="http://collector")
    until(lambda: len(starts(tmp_path)) == 4 and not one.pid("exporter"), one.keep)

    assert len(ear.words) == len(set(ear.words)) <= 2
    assert "ended with code 1" in ear.words[-1]
    assert "no such thing" in " ".join(ear.words)
    assert (tmp_path / "logs" / "exporter.log").read_text().count("no such thing") == 4
    waits = one._all[0]._again_at - one._all[0]._started
    assert waits > 0.01 * 2**3
    one.stop(0)


def test_what_one_prints_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_COMPANION", "talks")
    ear = Ear()
    one = beside(tmp_path, ear, metrics="9464")
    until(lambda: ear.words, one.keep)
    one.stop(0)

    log = tmp_path / "logs" / "metrics.log"
    assert ear.words == [f"the engine goes on without its metrics process: the port is taken (see {log})"]
    assert log.read_text() == "the port is taken\n"


def test_one_that_does_not_come_to_its_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_COMPANION", "deaf")
    one = beside(tmp_path, Ear(), otlp="http://collector")
    one.keep()
    until((tmp_path / "ready").exists)
    pid = one.pid("exporter")

    one.stop(0.1)

    assert not lives(pid)
    assert not one.keep()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_one_ends_with_a_supervisor_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_COMPANION", "deaf")
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from engine import companions\n"
        "from engine.settings import Settings\n"
        f"companions.EXPORTER = {FAKE!r}\n"
        "data = Path(sys.argv[1])\n"
        "(data / 'logs').mkdir()\n"
        "one = companions.companions_of(Settings(data=data, otlp='http://x'), data / 'logs', print)\n"
        "one.keep()\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    until((tmp_path / "ready").exists)
    child = int(starts(tmp_path)[0][0])

    parent.kill()
    parent.wait()

    until(lambda: not lives(child))


def test_a_full_disk_does_not_end_the_engine_when_one_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Supervisor] = []

    def write(self: Supervisor, *, stopped: int = 0) -> None:
        written.append(self)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Supervisor, "_write_note", write)
    one: Any = object.__new__(Supervisor)
    one._companions = SimpleNamespace(keep=lambda: True)

    one._keep_companions()

    assert written == [one]


@pytest.mark.parametrize("collector", [("--otlp", "http://collector:4318"), ()])
def test_a_rule_for_traces_that_is_none_is_told_before_anything_is_started(
    longwatch: Longwatch, collector: tuple[str, ...]
) -> None:
    answer = longwatch("run", *collector, LONGWATCH_TRACE_RULE="best")

    assert answer.returncode == 2
    assert "environment LONGWATCH_TRACE_RULE: trace_rule = 'best' is not allowed" in answer.stderr
    assert "'best' is no part of a rule for traces" in answer.stderr


@pytest.mark.redis
def test_they_run_beside_an_engine_are_noted_and_end_with_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = project / ".longwatch"
    seen: list[int] = []
    ear = Ear()

    def look() -> None:
        if len(starts(data)) < 2 or not (data / "ready").exists():
            ear.when["figures"] = look
            return
        seen.extend((note(project).pids.exporter, note(project).pids.metrics))
        interrupt()

    ear.when["figures"] = look
    supervise(ear, otlp="http://collector", metrics="9464")

    assert all(seen)
    assert not any(map(lives, seen))
    assert (data / "ended").exists()
    assert note(project).pids.exporter == 0


@pytest.mark.redis
def test_an_engine_does_not_mind_that_they_fail(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_COMPANION", "fails")
    monkeypatch.setattr(supervisor, "_TURN_SECONDS", 0.02)
    ear = Ear(when={"exporter": interrupt})

    supervise(ear, otlp="http://collector")

    assert ear.heard[-1] == "stopped"
    assert note(project).stopped > 0
