"""Held entries beyond the bound, without Flink: order, and exactness after a restore."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from engine.core.ids import Position
from engine.flink import held
from engine.flink.held import HeldEntries


class FakeCell:
    def __init__(self) -> None:
        self.value: bytes | None = None

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value

    def clear(self) -> None:
        self.value = None


class FakeQueue(list[bytes]):
    def size(self) -> tuple[int, int]:
        return len(self), sum(map(len, self))

    def popleft(self) -> bytes | None:
        return self.pop(0) if self else None


class FakeStore:
    """The keyed state of one run; a deep copy of it is a checkpoint."""

    def __init__(self) -> None:
        self.spilled, self.held = FakeCell(), FakeQueue()

    def cell(self, name: str) -> FakeCell:
        return self.spilled

    def queue(self, name: str) -> FakeQueue:
        return self.held

    def selected(self) -> str:
        return "claim\x1f4711"


@pytest.fixture(autouse=True)
def _small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MOST_ENTRIES", 3)


def entries(store: FakeStore, folder: Path) -> HeldEntries:
    return HeldEntries(store, folder)  # type: ignore[arg-type]  # it is a fake


def add(store: FakeStore, folder: Path, *numbers: int) -> None:
    for number in numbers:
        entries(store, folder).append(7, Position(f"{number}-0"), b"entry %d" % number)


def found(store: FakeStore, folder: Path) -> list[int]:
    return [int(entry.split()[1]) for entry in entries(store, folder)]


def test_beyond_the_bound_they_go_to_a_file_in_order_until_it_is_empty(tmp_path: Path) -> None:
    store = FakeStore()
    add(store, tmp_path, *range(6))
    assert (len(store.held), found(store, tmp_path)) == (3, [0, 1, 2, 3, 4, 5])
    entries(store, tmp_path).release(4)
    add(store, tmp_path, 6)
    assert (len(store.held), found(store, tmp_path)) == (0, [4, 5, 6])
    entries(store, tmp_path).release(3)
    add(store, tmp_path, 7)

    assert (list(store.held), found(store, tmp_path)) == ([b"entry 7"], [7])
    assert [path.suffix for path in tmp_path.iterdir()] == [".done"]


def test_what_a_crash_left_in_the_file_is_written_over_after_a_restore(tmp_path: Path) -> None:
    store = FakeStore()
    add(store, tmp_path, *range(5))
    checkpoint = copy.deepcopy(store)
    add(store, tmp_path, 5, 6, 7)
    restored = copy.deepcopy(checkpoint)

    assert found(restored, tmp_path) == [0, 1, 2, 3, 4]
    add(restored, tmp_path, 5)
    assert found(restored, tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_checkpoint_that_is_gone_back_to_still_finds_what_was_done_with(tmp_path: Path) -> None:
    store = FakeStore()
    add(store, tmp_path, *range(5))
    checkpoint = copy.deepcopy(store)
    entries(store, tmp_path).release(5)
    add(store, tmp_path, *range(10, 15))

    assert found(store, tmp_path) == [10, 11, 12, 13, 14]
    assert found(checkpoint, tmp_path) == [0, 1, 2, 3, 4]
    add(checkpoint, tmp_path, 5)
    entries(checkpoint, tmp_path).release(6)
    assert found(checkpoint, tmp_path) == []
