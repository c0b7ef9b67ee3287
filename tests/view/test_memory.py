"""What a projector remembers of its batches changes nothing in the view, whoever else writes it and whatever fails."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from engine.core.record import Asks
from engine.log.protocol import Item
from engine.view import database
from engine.view.database import ViewDamaged
from engine.view.projector import Projector
from engine.view.view import Count, View
from tests.view.journal import HALT, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view.sqlite"


def contents(path: Path) -> tuple[object, ...]:
    view = View(path)
    inbox = [(row.key, row.state, row.name) for row in view.inbox()]
    found = view.runs(), view.counts(), inbox, view.cursors(), view.as_of()
    view.close()
    return found


MOVES = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["One", "Two"]),
    st.sampled_from(["running", "running", "running", "waiting", "finished", "unread", "ignored", "asking", "old"]),
    st.sampled_from([{}, {"region": "north"}, {"region": "south", "who": "ann"}]),
)


def journal_of(moves: list[tuple[str, str, str, dict[str, str]]]) -> list[Item]:
    journal = Journal()
    ends = dict.fromkeys("abc", 0)
    for key, state, what, fields in moves:
        run = f"{ord(key):08x}{ends[key]:08x}"
        match what:
            case "unread":
                journal.add(key, "", run="none", status="halted", halted=HALT, data="", since=0)
            case "ignored":
                journal.add(key, state, run=run, status="running", ignored="too late", since=0)
            case "asking":
                asks = (Asks("people", name=state, question="Well?", since=journal.time, schema=Raw(b"{}")),)
                journal.add(key, state, run=run, status="running", fields=fields, asks=asks)
            case "old":
                journal.add(key, state, run=run, status="running", data="", since=0)
            case _:
                journal.add(key, state, run=run, status=what, fields=fields)
        ends[key] += what == "finished"  # then the key begins again
    return journal.items.get(0, [])


@settings(max_examples=25, deadline=None)
@given(st.lists(MOVES, max_size=10), st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=6))
def test_any_batches_by_any_projectors_give_one_view(
    tmp_path_factory: pytest.TempPathFactory,
    moves: list[tuple[str, str, str, dict[str, str]]],
    cuts: list[tuple[int, bool, bool]],
) -> None:
    folder = tmp_path_factory.mktemp("views")
    items = journal_of(moves)
    alone = Projector(folder / "alone", "log")
    for item in items:
        alone.project({0: [item]})
        alone.close()
        alone = Projector(folder / "alone", "log")
    alone.close()

    projectors = [Projector(folder / "shared", "log"), Projector(folder / "shared", "log")]
    left = items
    for count, second, dies in [*cuts, (len(items), False, False)]:
        projectors[second].project({0: left[:count]})
        left = left[count:]
        if dies:
            projectors[second].close()
            projectors[second] = Projector(folder / "shared", "log")
    for projector in projectors:
        projector.close()

    assert contents(folder / "shared") == contents(folder / "alone")


def test_a_batch_that_fails_leaves_nothing_in_memory(path: Path) -> None:
    journal = Journal()
    journal.add("a", "One", status="running", fields={"region": "north"})
    projector = Projector(path, "log")
    projector.project(journal.items)
    second = journal.add("a", "Two", status="running", fields={"region": "south"})
    bad = Item("9000-0", 9_000, b'{"workflow":"x","key":"y","run":"z","version":"no"}')
    with pytest.raises(ValueError, match="version"):
        projector.project({0: [second, bad], 1: [bad]})
    projector.project({0: [second]})
    journal.add("a", "Three", status="finished", fields={})
    projector.project(journal.items)
    view = View(path)

    assert view.counts() == [Count("claims", "Three", "finished", 1)]
    assert view.of_key("a")[0].fields == {}


def test_more_runs_than_are_remembered_are_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.view.memory.REMEMBERED", 2)
    journal = Journal()
    projector = Projector(path, "log")
    for state in ("One", "Two", "Three"):
        for key in "abcde":
            journal.add(key, state, status="running", fields={"state": state})
            projector.project(journal.items)

    assert View(path).counts() == [Count("claims", "Three", "running", 5)]
    assert {row.fields["state"] for row in View(path).runs()} == {"Three"}


def test_a_view_that_another_began_anew_is_not_remembered(path: Path) -> None:
    journal = Journal()
    journal.add("a", "One", status="running")
    first, second = Projector(path, "log"), Projector(path, "log")
    first.project(journal.items)
    second.reset()

    assert first.cursors() == {}

    journal.add("b", "Two", status="running")

    assert first.project(journal.items) == 2
    assert len(View(path).runs()) == 2


def test_a_projector_goes_on_after_a_view_that_was_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 1)
    journal = Journal()
    journal.add("a", "One", status="running")
    projector = Projector(path, "log")
    projector.project(journal.items)
    journal.add("a", "Two")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(ViewDamaged, match="locked"):
            projector.project(journal.items)
    other.execute("ROLLBACK")
    other.close()

    assert projector.project(journal.items) == 1
    assert View(path).counts() == [Count("claims", "Two", "waiting", 1)]
