"""What the supervisor tells those who watch from another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.data_folder import now
from engine.gauges import Figures
from engine.supervisor import Progress
from engine.vitals import FILE, FRESH_MS, Vitals, VitalSigns, read_vitals


@dataclass
class Ear:
    heard: list[object] = field(default_factory=list)

    def say(self, what: str, words: str, **facts: object) -> None:
        self.heard.append((what, words, facts))

    def show(self, progress: Progress) -> None:
        self.heard.append(progress)


def signs(data: Path) -> VitalSigns:
    found = read_vitals(data)
    assert found is not None
    return found


def test_what_is_said_and_shown_is_handed_on(tmp_path: Path) -> None:
    ear = Ear()
    vitals = Vitals(ear, tmp_path, died=False)
    progress = Progress(Figures(), 1.0, 400, "running")
    vitals.say("view", "behind", error="x")
    vitals.show(progress)

    assert ear.heard == [("view", "behind", {"error": "x"}), progress]


def test_an_engine_that_runs_is_up_as_long_as_it_says_so(tmp_path: Path) -> None:
    vitals = Vitals(Ear(), tmp_path, died=False)
    vitals.say("running", "running", metrics=["127.0.0.1:9250"])
    vitals.show(Progress(Figures(), 1.0, 400, "running"))
    found = signs(tmp_path)

    assert found.flink == ("127.0.0.1:9250",)
    assert 0 <= now() - found.newest_checkpoint - 400 < 60_000
    assert found.is_up(found.at)
    assert not found.is_up(found.at + FRESH_MS)


@pytest.mark.parametrize("what", ["restart", "stopping", "stopped"])
def test_an_engine_that_does_something_else_is_not_up(tmp_path: Path, what: str) -> None:
    vitals = Vitals(Ear(), tmp_path, died=False)
    vitals.say("running", "running")
    vitals.say(what, "so it is")

    assert not signs(tmp_path).is_up(now())


def test_deaths_and_failed_checkpoints_are_counted_over_all_starts(tmp_path: Path) -> None:
    first = Vitals(Ear(), tmp_path, died=False)
    first.say("restart", "it died")
    first.say("checkpoint", "2 failed", failed=2)
    first.say("checkpoint", "one cannot be used", path="x", why="y")
    clean = Vitals(Ear(), tmp_path, died=False)
    clean.say("running", "running")
    killed = Vitals(Ear(), tmp_path, died=True)
    killed.say("checkpoint", "1 failed", failed=1)

    assert (signs(tmp_path).restarts, signs(tmp_path).checkpoints_failed) == (2, 3)
    assert signs(tmp_path).newest_checkpoint == 0


def test_a_new_start_forgets_where_the_last_one_was_found(tmp_path: Path) -> None:
    Vitals(Ear(), tmp_path, died=False).say("running", "running", metrics=["127.0.0.1:9250"])
    Vitals(Ear(), tmp_path, died=True).say("checkpoint", "no", failed=1)

    assert signs(tmp_path).flink == ()


def test_a_folder_without_an_engine_or_with_a_damaged_note_has_no_signs(tmp_path: Path) -> None:
    assert read_vitals(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"{")

    assert read_vitals(tmp_path) is None


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    Vitals(Ear(), tmp_path / "gone", died=False).say("running", "running")
