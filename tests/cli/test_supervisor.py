"""The supervisor with a driver that only speaks: what it does when things end, without Java."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine import driver_process, driving, supervisor
from engine.cli.new import write_project
from engine.code_change import CodeChanged, check_code
from engine.data_folder import DataFolder, EngineFile
from engine.driving import EngineFailed
from engine.flink.plan import read_plan
from engine.gauges import Figures, Gauges
from engine.loader import import_application
from engine.log.errors import LogBusy, LogLost, LogMismatch
from engine.log.lease import Owner
from engine.log.protocol import Position, Publication, order_of
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.settings import load
from engine.supervisor import Progress, Supervisor
from engine.view.projector import Projector

pytestmark = pytest.mark.redis


@dataclass
class Ear:
    """Hears what the supervisor says, and acts on it."""

    heard: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    shown: list[Progress] = field(default_factory=list)
    when: dict[str, Callable[[], None]] = field(default_factory=dict)

    def say(self, what: str, words: str, **facts: object) -> None:
        self.heard.append(what)
        self.words.append(words)
        if act := self.when.pop(what, None):
            act()

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)
        if progress.driver == "running" and (act := self.when.pop("figures", None)):
            act()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write_project(tmp_path / "my-shop", "supervised_shop")
    monkeypatch.chdir(tmp_path / "my-shop")
    monkeypatch.setenv("FAKE_DRIVER", "works")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr(driver_process, "MODULE", "tests.cli.fake_driver")
    monkeypatch.setattr(supervisor, "_FIGURES_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "_SERVER_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "_LEASE_SECONDS", 0.2)
    yield tmp_path / "my-shop"
    EmbeddedRedis(tmp_path / "my-shop" / ".longwatch").stop()
    for name in [name for name in sys.modules if name.startswith("supervised_shop")]:
        del sys.modules[name]
    sys.path.remove(str(tmp_path / "my-shop"))


def supervise(ear: Ear, *, accept: bool = False, restore: Path | None = None, **flags: object) -> None:
    loaded = load({"app": "supervised_shop:app", **flags})
    application = import_application("supervised_shop:app", loaded.settings.app_path)
    Supervisor(loaded, "supervised_shop:app", application, ear, accept=accept, restore=restore).run()


def note(project: Path) -> EngineFile:
    found = DataFolder(project / ".longwatch").read_engine()
    assert found is not None
    return found


def epochs(project: Path) -> list[int]:
    return [int(line) for line in (project / ".longwatch" / "starts").read_text().splitlines()]


def test_ctrl_c_takes_a_savepoint_and_leaves_nothing_running(project: Path) -> None:
    ear = Ear(when={"figures": interrupt})

    supervise(ear)

    assert ear.heard == ["running", "stopping", "stopped"]
    assert note(project).stopped > 0
    assert note(project).pids.driver == 0
    assert not EmbeddedRedis(project / ".longwatch").running()


def test_the_note_names_the_processes_while_it_runs(project: Path) -> None:
    seen: list[EngineFile] = []

    def look() -> None:
        seen.append(note(project))
        interrupt()

    supervise(Ear(when={"figures": look}))

    assert seen[0].pids.supervisor == os.getpid()
    assert seen[0].pids.driver > 0
    assert seen[0].pids.redis > 0
    assert seen[0].rest_port == 4711
    assert seen[0].runs


def test_a_driver_that_died_comes_back_under_a_new_epoch(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "dies once")
    ear = Ear(when={"running": interrupt})

    supervise(ear)

    assert ear.heard == ["restart", "running", "stopping", "stopped"]
    assert epochs(project) == [1, 2]


def test_a_driver_that_keeps_dying_ends_the_engine_with_its_words(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "dies")
    monkeypatch.setattr(driving, "FIRST_WAIT", 0.01)

    with pytest.raises(EngineFailed, match=r"died 5 times within a minute; .* ValueError: nothing will come of this"):
        supervise(Ear())

    assert len(epochs(project)) == 5


@pytest.mark.parametrize(("manner", "starts"), [("another", 1), ("lost for good", 2)])
def test_what_would_fail_again_is_not_tried_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, manner: str, starts: int
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", manner)

    with pytest.raises(EngineFailed) as raised:
        supervise(Ear())

    assert raised.value.exit_code == 7
    assert len(epochs(project)) == starts


def test_a_log_that_lost_its_end_is_gone_on_with_from_an_older_checkpoint_and_the_view_is_made_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "lost")
    reset = threading.Event()
    monkeypatch.setattr(Projector, "reset", lambda _: reset.set())

    def end() -> None:
        reset.wait(30)
        interrupt()

    ear = Ear(when={"running": threading.Thread(target=end).start})
    supervise(ear)

    assert ear.heard == ["log", "restart", "log", "running", "stopping", "stopped"]
    assert "goes back to checkpoint 8, the newest that the log still covers" in ear.words[2]
    assert "passed over, for they hold entries that are gone: checkpoint 9" in ear.words[2]
    assert "its senders must send it again" in ear.words[2]
    assert reset.is_set()
    assert epochs(project) == [1, 2]


def test_a_checkpoint_that_is_named_gives_way_to_no_other(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "lost")

    with pytest.raises(EngineFailed, match="its end is lost"):
        supervise(Ear(), restore=project / "older")

    assert epochs(project) == [1]


def test_a_second_ctrl_c_ends_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "does not stop")

    supervise(Ear(when={"figures": interrupt, "stopping": interrupt}))

    assert note(project).stopped == 0


def test_a_view_that_is_long_in_the_making_ends_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Semaphore(0)
    read = Gauges.read

    def count(gauges: Gauges) -> Figures:
        asked.release()
        return read(gauges)

    def late(path: Path, log_id: str) -> Projector:
        for _ in range(3):
            asked.acquire(timeout=30)
        return Projector(path, log_id)

    monkeypatch.setattr(Gauges, "read", count)

    def look() -> None:
        if len(ear.shown) > 3:  # the view has been asked for in vain, and is made by now
            interrupt()
        else:
            ear.when["figures"] = look

    monkeypatch.setattr(supervisor, "Projector", late)
    ear = Ear(when={"figures": look})
    supervise(ear)

    assert ear.heard == ["running", "stopping", "stopped"]


def test_a_checkpoint_that_is_named_is_gone_on_from_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DRIVER", "dies once")
    plans: list[str] = []
    ear = Ear(when={"restart": lambda: plans.append(planned(project)), "running": interrupt})

    supervise(ear, restore=project / "older")

    assert plans == [str(project / "older")]
    assert not planned(project)


def planned(project: Path) -> str:
    return read_plan(project / ".longwatch" / "plan.json").restore


def test_redis_is_started_again(project: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.append(note(project).pids.redis)
        os.kill(killed[0], signal.SIGKILL)
        threading.Timer(1.5, interrupt).start()

    ear = Ear(when={"figures": kill})

    supervise(ear)

    assert ear.heard.count("redis") == 2
    assert note(project).stopped > 0


def test_a_second_engine_is_refused_and_leaves_the_first_alone(project: Path) -> None:
    server = EmbeddedRedis(project / ".longwatch")
    server.ensure()
    log = RedisLog.create(server.url)
    init = Path("/proc/1/stat").read_text(encoding="ascii")
    other = Owner(Owner.this_process().host, Owner.this_process().boot, 1, int(init.rpartition(")")[2].split()[19]))
    log.take_lease(other)

    with pytest.raises(LogBusy):
        supervise(Ear())

    assert server.running()
    log.close()
    server.stop()


def test_what_was_fixed_with_the_log_cannot_be_changed_and_need_not_be_repeated(project: Path) -> None:
    supervise(Ear(when={"figures": interrupt}), lapse=20_000.0)
    supervise(Ear(when={"figures": interrupt}))

    with pytest.raises(LogMismatch, match="lapse"):
        supervise(Ear(), lapse=5.0)


def test_an_empty_log_under_old_checkpoints_is_refused(project: Path) -> None:
    supervise(Ear(when={"figures": interrupt}))
    mark = project / ".longwatch" / "checkpoints" / "job" / "chk-1" / "_metadata"
    mark.parent.mkdir(parents=True)
    mark.write_text("")
    for file in (project / ".longwatch" / "redis").glob("*.aof"):
        file.unlink()

    with pytest.raises(LogLost, match="holds checkpoints of runs that stand on a log"):
        supervise(Ear())


class _Log:
    """Three entries were passed since the checkpoint of time 1,000."""

    def publications(self) -> list[Publication]:
        return [Publication(900, {0: Position("5-0")}), Publication(1900, {0: Position("8-0")})]

    def scan(self, topic: str, partition: int, after: str | None, until: str) -> Iterator[str]:
        first, last = (order_of(position)[0] for position in (after or "0-0", until))
        return (f"{number}-0" for number in range(first + 1, last + 1))


@pytest.mark.parametrize(("stopped", "digest", "refused"), [(0, "new", True), (1, "new", False), (0, "old", False)])
def test_changed_code_after_a_crash_is_asked_about(
    tmp_path: Path, stopped: int, digest: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = EngineFile("1", "a:b", "log", Owner.this_process(), 0, code={"order": "old"}, stopped=stopped)
    folder = DataFolder(tmp_path)
    monkeypatch.setattr(DataFolder, "newest_checkpoint", lambda _: 1000)

    def check() -> None:
        check_code(last, {"order": digest}, folder, _Log())  # type: ignore[arg-type]

    if not refused:
        check()
        return
    with pytest.raises(CodeChanged) as raised:
        check()

    assert raised.value.entries == 3
    assert "--accept" in str(raised.value)
