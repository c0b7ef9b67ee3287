"""Which checkpoint a start goes on from when the log has lost its end, without Flink: each is taken for whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.flink import checkpoints
from engine.flink.checkpoints import Covered, Damaged, NoneCovered, NoWholeCheckpoint, find_covered
from engine.log.checks import END_LOST
from engine.log.errors import LogLost


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three checkpoints of one job; one whose `_metadata` says so is damaged."""

    def whats_wrong(path: Path, _java: object) -> str | None:
        return (path / "_metadata").read_text() or None

    monkeypatch.setattr(checkpoints, "_whats_wrong", whats_wrong)
    for number in (7, 8, 10):
        chk(tmp_path, number).mkdir(parents=True)
        (chk(tmp_path, number) / "_metadata").write_text("")
    return tmp_path


def chk(data: Path, number: int) -> Path:
    return data / "checkpoints" / "job" / f"chk-{number}"


def standing(data: Path) -> list[int]:
    return sorted(int(mark.parent.name.removeprefix("chk-")) for mark in data.glob("checkpoints/job/*/_metadata"))


class Covers:
    """A log that covers checkpoints up to a number."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.asked: list[int] = []

    def __call__(self, path: Path) -> None:
        number = int(path.name.removeprefix("chk-"))
        self.asked.append(number)
        if number > self.last:
            raise LogLost(f"position {number} was read once and the log ends at {self.last}: {END_LOST}; do this")


def ahead(data: Path, *numbers: int, last: int) -> tuple[Damaged, ...]:
    return tuple(Damaged(chk(data, n), f"position {n} was read once and the log ends at {last}") for n in numbers)


def test_the_newest_that_the_log_covers_is_chosen_and_newer_ones_are_set_aside(data: Path) -> None:
    covers = Covers(8)

    found = find_covered(data, None, covers)

    assert found == Covered(chk(data, 8), ahead(data, 10, last=8))
    assert covers.asked == [10, 8]
    assert standing(data) == [7, 8]
    assert (chk(data, 10) / "_metadata.ahead").exists()


def test_the_newest_stays_when_it_is_covered(data: Path) -> None:
    assert find_covered(data, None, Covers(10)) == Covered(chk(data, 10))
    assert standing(data) == [7, 8, 10]


def test_if_none_is_covered_it_refuses_and_leaves_all_as_they_are(data: Path) -> None:
    with pytest.raises(NoneCovered) as raised:
        find_covered(data, None, Covers(6))

    assert raised.value.ahead == ahead(data, 10, 8, 7, last=6)
    assert "none of the 3 checkpoints stands on what is left" in str(raised.value)
    assert "Give the log its files back" in str(raised.value)
    assert standing(data) == [7, 8, 10]


def test_a_damaged_one_is_passed_over_unasked(data: Path) -> None:
    (chk(data, 8) / "_metadata").write_text("half of it is gone")
    covers = Covers(7)

    found = find_covered(data, None, covers)

    assert found == Covered(chk(data, 7), ahead(data, 10, last=7), (Damaged(chk(data, 8), "half of it is gone"),))
    assert covers.asked == [10, 7]


def test_without_any_it_begins_at_the_beginning_and_with_damaged_ones_alone_it_refuses(data: Path) -> None:
    for number in (7, 8, 10):
        (chk(data, number) / "_metadata").write_text("half of it is gone")
    with pytest.raises(NoWholeCheckpoint):
        find_covered(data, None, Covers(10))

    for number in (7, 8, 10):
        (chk(data, number) / "_metadata").unlink()
    assert find_covered(data, None, Covers(10)) == Covered(None)
