"""What waits for people is listed, from the last record of each run, a page at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from sqlalchemy import Engine, event

from engine.core.ids import CallId
from engine.core.record import Asks
from engine.view.inbox import InboxCount, InboxFilter
from engine.view.projector import Projector
from engine.view.view import View
from tests.view.journal import Journal

REVIEW = Asks("reviewers", question="Somebody looks at it.", since=50, until=900)


def leave(since: int, name: str = "order_survey") -> Asks:
    return Asks("adjusters", CallId("c-1"), name, "Order a survey?", since, schema=Raw(b'{"type":"object"}'))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view.sqlite"


def projected(path: Path, journal: Journal) -> View:
    """In one batch for each run's record, so that rows are made, kept and dropped by many batches."""
    projector = Projector(path, "log")
    for partition, items in journal.items.items():
        for item in items:
            projector.project({partition: [item]})
    projector.close()
    return View(path)


def test_what_a_run_asks_is_listed_with_all_that_is_known(path: Path) -> None:
    journal = Journal()
    journal.add("a", "Review", asks=(REVIEW, leave(60)), visit=3, taken="ann")

    state, call = projected(path, journal).inbox()

    assert (state.workflow, state.key, state.state, state.visit, state.taken) == ("claims", "a", "Review", 3, "ann")
    assert (state.group, state.call, state.question, state.since, state.until) == (
        "reviewers", "", "Somebody looks at it.", 50, 900)  # fmt: skip
    assert (call.group, call.call, call.name, call.schema) == (
        "adjusters", "c-1", "order_survey", '{"type":"object"}')  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a batch a record"])
def test_the_last_record_says_what_is_asked(path: Path, *, together: bool) -> None:
    journal = Journal()
    journal.add("gone", "Review", asks=(REVIEW,))
    journal.add("fewer", "Review", asks=(REVIEW, leave(60)))
    journal.add("same", "Review", asks=(leave(70),))
    journal.add("gone", "Over", status="finished")
    journal.add("fewer", "Review", asks=(leave(60),))
    journal.add("same", "Review", asks=(leave(70),), ignored="no", taken="bob")
    if together:
        Projector(path, "log").project(journal.items)
    view = View(path) if together else projected(path, journal)

    assert [(row.key, row.group, row.taken) for row in view.inbox()] == [
        ("fewer", "adjusters", ""), ("same", "adjusters", "bob")]  # fmt: skip


def test_pages_go_on_where_the_last_one_ended(path: Path) -> None:
    journal = Journal()
    for number in range(7):
        journal.add(f"k{number}", "Review", asks=(leave(100 - number // 2), leave(100 - number // 2, "second")))
    view = projected(path, journal)

    for newest in (False, True):
        whole = view.inbox(newest=newest)
        pages = []
        after = None
        while page := view.inbox(limit=3, after=after, newest=newest):
            pages += page
            after = page[-1].place

        assert pages == whole
        assert len(whole) == 14
        assert [row.since for row in whole] == sorted((row.since for row in whole), reverse=newest)


def test_one_asks_for_a_group_a_workflow_and_a_taker(path: Path) -> None:
    journal = Journal()
    journal.add("a", "Review", asks=(REVIEW,), taken="ann")
    journal.add("b", "Review", asks=(REVIEW, leave(40)), workflow="other")
    journal.add("c", "Review", asks=(REVIEW,), taken="bob")
    view = projected(path, journal)

    assert [row.key for row in view.inbox(InboxFilter(group="reviewers"))] == ["a", "b", "c"]
    assert [row.key for row in view.inbox(InboxFilter(workflow="other"))] == ["b", "b"]
    assert [row.key for row in view.inbox(InboxFilter(taken="ann"))] == ["a"]
    assert view.inbox(InboxFilter(group="nobody")) == []
    assert view.inbox_counts() == [InboxCount("adjusters", 1, 0, 40), InboxCount("reviewers", 3, 2, 50)]


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("wanted", [InboxFilter(), InboxFilter(group="reviewers"), InboxFilter(workflow="claims")])
def test_a_page_is_read_from_an_index_and_nothing_is_sorted(path: Path, wanted: InboxFilter, *, newest: bool) -> None:
    journal = Journal()
    journal.add("a", "Review", asks=(REVIEW,))
    view = projected(path, journal)
    plans: list[str] = []

    @event.listens_for(Engine, "before_cursor_execute")
    def explain(_: object, cursor: Any, statement: str, parameters: Any, *__: object) -> None:
        if "FROM inbox" in statement:
            plans.extend(row[-1] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    view.inbox(wanted, limit=10, after=(5, 5, 5), newest=newest)
    event.remove(Engine, "before_cursor_execute", explain)

    assert [plan for plan in plans if "inbox" in plan and "INDEX" in plan]
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]
