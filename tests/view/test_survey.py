"""Ages and overdue timers, read a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.view.projector import Projector
from engine.view.survey import Found, Survey
from tests.view.journal import HALT, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view.sqlite"


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def survey(path: Path) -> Iterator[Survey]:
    with closing(Survey(path)) as made:
        yield made


def project(path: Path, journal: Journal) -> None:
    with closing(Projector(path, "log")) as projector:
        projector.project(journal.items)


def test_the_oldest_of_each_state_and_the_overdue_of_each_workflow_are_found(
    path: Path, journal: Journal, survey: Survey
) -> None:
    journal.add("a", "Review", since=500, wakes=4_000)
    journal.add("b", "Review", since=300, wakes=9_000)
    journal.add("c", "Review", since=400, status="halted", halted=HALT)
    journal.add("d", "Paid", since=100, status="finished")
    journal.add("e", "Review", since=200, workflow="other", wakes=1)
    project(path, journal)
    survey.step(5_000)

    assert survey.is_through
    assert survey.found == Found({("claims", "Review"): 300, ("other", "Review"): 200}, {"claims": 1, "other": 1})


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pieces_of_any_size_find_the_same(path: Path, journal: Journal, survey: Survey, size: int) -> None:
    for number in range(20):
        journal.add(f"k{number}", f"State{number % 3}", since=1_000 - number, wakes=number)
    project(path, journal)
    steps = 0
    while not steps or not survey.is_through:
        assert survey.found is None
        survey.step(10, size)
        steps += 1

    assert survey.found is not None
    assert survey.found.overdue == {"claims": 9}
    assert survey.found.oldest == {
        ("claims", f"State{state}"): 1_000 - last for state, last in ((0, 18), (1, 19), (2, 17))
    }
    assert steps >= 20 // size


def test_what_a_pass_found_stands_until_the_next_one_is_through(path: Path, journal: Journal, survey: Survey) -> None:
    journal.add("a", "Review", since=500)
    journal.add("b", "Review", since=400)
    project(path, journal)
    survey.step(10)
    before = survey.found
    journal.add("b", "Paid", status="finished")
    project(path, journal)
    survey.step(10, 1)

    assert not survey.is_through
    assert survey.found == before
    survey.step(10, 5)
    assert survey.found == Found({("claims", "Review"): 500}, {"claims": 0})


def test_a_view_that_is_not_there_or_is_made_anew_has_no_runs(path: Path, journal: Journal, survey: Survey) -> None:
    survey.step(10)

    assert survey.found is None
    project(path, journal)
    survey.step(10)
    assert survey.found == Found()
