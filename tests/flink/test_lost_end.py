"""A log that comes back without its end: the engine goes back to a checkpoint that the log still covers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.log.checks import END_LOST
from tests.flink.harness import Journal, Stage
from tests.flink.test_engine import LAPSE, orders
from tests.flink.world import TrialBegun

pytestmark = [pytest.mark.flink, pytest.mark.redis]

SETTINGS: dict[str, Any] = {"backend": "rocksdb", "retained_checkpoints": 20, "checkpoint_interval_ms": 1000}


def numbers(stage: Stage) -> list[int]:
    """The completed checkpoints, oldest first."""
    return sorted(number(mark.parent) for mark in stage.data.glob("checkpoints/*/chk-*/_metadata"))


def number(path: Path) -> int:
    return int(path.name.removeprefix("chk-"))


def two_more(stage: Stage) -> int:
    """Wait for two further checkpoints, so for one that was triggered after the call; the newest."""
    newest = max(numbers(stage), default=0)
    stage.until(lambda: max(numbers(stage), default=0) >= newest + 2, "two more checkpoints")
    return max(numbers(stage))


def log_file(stage: Stage) -> Path:
    return stage.data / "redis" / "appendonly.aof"


def lose_end(stage: Stage, size: int) -> None:
    """Redis dies, and comes back with the first bytes of its file."""
    os.kill(int(info(stage, "process_id")), signal.SIGKILL)
    stage.until(lambda: not stage.server.running(), "Redis is dead")
    os.truncate(log_file(stage), size)
    stage.server.ensure()
    stage.log.close()  # it connects again by itself


def info(stage: Stage, name: str) -> str:
    lines = stage.redis("INFO", "server").decode().splitlines()
    return str(next(line for line in lines if line.startswith(f"{name}:")).partition(":")[2])


def test_it_goes_back_to_the_newest_checkpoint_that_the_log_covers(tmp_path: Path) -> None:
    with Stage(tmp_path, lapse=LAPSE) as stage:
        first = stage.start(**SETTINGS)
        stage.send(*orders(20, "kept"), *(TrialBegun(id=f"k{i}", how="brief") for i in range(5)))
        stage.until_status("order", "finished", 20)
        stage.until_status("trial", "finished", 5)
        stage.until_quiet()
        covered = two_more(stage)
        size = log_file(stage).stat().st_size
        stage.send(*orders(20, "lost"))
        stage.until(lambda: ("order", "lost0") in stage.journal.latest, "what will be lost is folded")
        two_more(stage)

        lose_end(stage, size)
        assert END_LOST in first.wait_for("failed")["error"]
        first.wait()
        before = numbers(stage)
        stage.send(*orders(20, "new"))  # the log's tail is ahead of what was lost

        second = stage.start(wait=False, look_back=True, **SETTINGS)
        went_back = second.wait_for("went_back")
        chosen = number(Path(went_back["path"]))
        ahead = [number(Path(item["path"])) for item in went_back["ahead"]]
        assert ahead == [each for each in reversed(before) if each > chosen]
        assert ahead
        assert chosen >= covered
        assert all("was read once" in item["why"] for item in went_back["ahead"])
        assert not [each for each in numbers(stage) if each > chosen]  # set aside, and looking made none
        assert second.wait_for("running")["restored_from"] == went_back["path"]

        stage.journal = Journal(stage.log)
        stage.until_status("order", "finished", 40)
        stage.proven()
        assert not any(key.startswith("lost") for _, key in stage.journal.latest)
        assert not stage.letters()
