from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.flink.drivers import RunningDriver, counting_plan, driver, eventually, is_alive, outputs

pytestmark = pytest.mark.flink


def agree(data: Path) -> int:
    """Check every line of every partition; gives how far they came together."""
    for partition in range(4):
        for line in outputs(data, partition):
            assert line["place"] == line["total"] == line["held"], line
    return sum(outputs(data, partition)[-1]["place"] for partition in range(4))


def places(data: Path, partition: int = 0) -> list[int]:
    return [line["place"] for line in outputs(data, partition)]


def started(running: RunningDriver) -> dict[str, object]:
    line = running.wait_for("running")
    before = len(places(running.data))
    eventually(lambda: len(places(running.data)) > before + 5, "the counting goes on")
    return line


def test_stop_at_one_go_on_at_two_and_back_with_nothing_lost(tmp_path: Path) -> None:
    savepoint = None
    for parallelism, cluster in ((1, "mini"), (2, "standalone"), (1, "mini")):
        with driver(counting_plan(tmp_path, parallelism=parallelism, cluster=cluster)) as running:
            line = started(running)
            assert line["restored_from"] == savepoint
            savepoint = running.stop()["savepoint"]

    assert agree(tmp_path) > 0
    for partition in range(4):
        assert places(tmp_path, partition) == list(range(1, len(places(tmp_path, partition)) + 1))
    assert len({line["reader"] for line in outputs(tmp_path, 3)}) == 3
    assert {line["walked"] for line in outputs(tmp_path, 0)[-3:]} == {40}


@pytest.mark.parametrize("backend", ["rocksdb", "heap"])
def test_killed_with_its_java_it_goes_on_from_the_newest_checkpoint(tmp_path: Path, backend: str) -> None:
    with driver(counting_plan(tmp_path, backend=backend)) as running:
        line = started(running)
        running.wait_for("checkpoint")
        running.kill()
        eventually(lambda: not is_alive(int(line["jvm_pid"])), "Java dies with its driver", 5)  # type: ignore[call-overload]
    lines = len(places(tmp_path))
    with driver(counting_plan(tmp_path, backend=backend)) as running:
        line = started(running)
        assert "/chk-" in str(line["restored_from"])
        first = places(tmp_path)[lines]
        assert 1 < first <= places(tmp_path)[lines - 1] + 1
        running.wait_for("checkpoint")
        running.stop()

    agree(tmp_path)


def test_a_java_that_is_killed_ends_the_driver_with_words(tmp_path: Path) -> None:
    with driver(counting_plan(tmp_path)) as running:
        line = started(running)
        os.kill(int(line["jvm_pid"]), signal.SIGKILL)  # type: ignore[call-overload]
        since = time.monotonic()
        code = running.process.wait(30)
        took = time.monotonic() - since
        running._reader.join(5)

    assert code == 1
    assert took < 5  # 0.1 s on a machine that is not loaded
    assert running.lines[-1]["driver"] == "failed"
    assert "Java (process" in running.lines[-1]["error"]


def test_a_failing_open_says_its_words(tmp_path: Path) -> None:
    (tmp_path / "fail-open").touch()
    with driver(counting_plan(tmp_path)) as running:
        assert running.process.wait(180) == 1
        running._reader.join(5)

    assert running.lines[-1] == {
        "driver": "failed",
        "error": "ConnectionRefusedError: the log at redis://nowhere is lost",
    }


def test_a_failure_on_purpose_says_its_words(tmp_path: Path) -> None:
    with driver(counting_plan(tmp_path)) as running:
        started(running)
        (tmp_path / "fence").touch()
        assert running.process.wait(30) == 1
        running._reader.join(5)

    assert running.lines[-1] == {"driver": "failed", "error": "Fenced: epoch 1 is over: epoch 2 writes now"}


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    with driver(counting_plan(tmp_path)) as running:
        started(running)
        running.wait_for("checkpoint")
        running.kill()
    metadata = sorted(tmp_path.glob("checkpoints/*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime)
    newest = metadata[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    with driver(counting_plan(tmp_path)) as running:
        skipped = running.wait_for("skipped")
        line = started(running)
        running.stop()

    assert skipped["path"] == str(newest.parent)
    assert "_metadata" in skipped["why"]
    assert line["restored_from"] == str(metadata[-2].parent)
    agree(tmp_path)


def test_the_folder_stays_bounded_over_restarts(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        with driver(counting_plan(tmp_path)) as running:
            running.wait_for("checkpoint")
            time.sleep(1)
            counts.append(len(list(tmp_path.glob("checkpoints/*/*/_metadata"))))
            running.kill()
    with driver(counting_plan(tmp_path)) as running:
        running.wait_for("checkpoint")
        savepoint = Path(running.stop()["savepoint"])
        folders = list((tmp_path / "checkpoints").iterdir())

    assert max(counts) <= 4
    assert len(folders) <= 2
    assert list((tmp_path / "savepoints").iterdir()) == [savepoint]
    agree(tmp_path)


def test_a_stop_whose_savepoint_fails_ends_on_the_last_checkpoint(tmp_path: Path) -> None:
    with driver(counting_plan(tmp_path)) as running:
        started(running)
        running.wait_for("checkpoint")
        (tmp_path / "savepoints").rmdir()
        (tmp_path / "savepoints").touch()
        stopped = running.stop()

    assert stopped["savepoint"] is None
    assert stopped["error"].startswith("The savepoint was not made: ")
    assert stopped["error"].endswith("It ends on the last checkpoint.")
    assert list(tmp_path.glob("checkpoints/*/chk-*/_metadata"))


def test_only_damaged_checkpoints_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    damaged = tmp_path / "checkpoints" / "0123" / "chk-7"
    damaged.mkdir(parents=True)
    (damaged / "_metadata").write_bytes(b"\x49\x60\x67\x22")
    with driver(counting_plan(tmp_path)) as running:
        assert running.process.wait(180) == 1
        running._reader.join(5)

    assert "None of the 1 checkpoints can be read" in running.lines[-1]["error"]
    assert (damaged / "_metadata").exists()
