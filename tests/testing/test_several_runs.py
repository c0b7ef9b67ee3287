"""Runs of several workflows in one test: they ask each other and hear what is published."""

from __future__ import annotations

import pytest

from engine import Application, EventRefused
from engine.testing import Simulation, Simulations
from tests.testing.office import (
    ROME,
    Approved,
    Booked,
    Deciding,
    Dropped,
    Remembering,
    TripBooked,
    Trips,
    TripWanted,
    ask_trips,
    book,
    customer,
    trip,
)


def test_another_workflow_is_really_asked() -> None:
    run = Simulation(trip, others=[customer])
    run.send(TripBooked(customer="ann", trip="oslo"))
    run.send(TripBooked(customer="ann", trip="bern"))
    run.send(ROME)

    assert run.state() == Deciding(wanted=ROME, trips=2)
    assert run.other(customer, "ann").state() == Remembering(count=2)


def test_where_there_is_no_such_run_the_other_answer_stands_in() -> None:
    run = Simulation(trip, others=[customer])
    run.send(ROME)

    assert run.state() == Deciding(wanted=ROME, trips=0)


def test_what_a_run_publishes_reaches_the_others() -> None:
    run = Simulation(trip, others=[customer])
    run.fake(book, lambda wish: ["all"])
    run.send(ROME)
    run.answer(Approved())

    assert run.published == [TripBooked(customer="ann", trip="rome")]
    assert run.other(customer, "ann").state() == Remembering(count=1)


def test_a_question_that_nobody_answers_is_told() -> None:
    run = Simulation(trip)
    with pytest.raises(LookupError, match="TripsAsked was asked, but nobody answers it here"):
        run.send(ROME)


def test_a_faked_question_may_fail() -> None:
    run = Simulation(trip)

    def lost(question: object) -> Trips:
        message = "no memory"
        raise OSError(message)

    run.fake(ask_trips, lost)
    run.send(ROME)

    assert run.state() == Dropped(why="OSError")


def test_a_fake_goes_before_the_workflow_that_answers() -> None:
    run = Simulation(trip, others=[customer])
    run.fake(ask_trips, lambda question: Trips(count=9))
    run.send(ROME)

    assert run.state() == Deciding(wanted=ROME, trips=9)


def test_simulations_hold_all_runs_of_an_application() -> None:
    office = Simulations(Application(workflows=[trip, customer]))
    office.fake(book, lambda wish: ["all"])
    for name in ("rome", "oslo", "bern"):
        office.send(TripWanted(trip=name, customer="ann"))
    assert [run.key for run, asks in office.inbox()] == ["rome", "oslo", "bern"]
    office.run(trip, "rome").answer(Approved(), who="bo")
    office.run(trip, "oslo").answer(Approved(), who="bo")
    office.send(TripWanted(trip="nice", customer="ann"))

    assert isinstance(office.run(trip, "rome").state(), Booked)
    assert office.run(trip, "nice").state() == Deciding(wanted=TripWanted(trip="nice", customer="ann"), trips=2)
    office.advance(days=7)
    assert office.run(trip, "bern").state() == Dropped(why="nobody decided")
    assert office.inbox() == []


def test_an_event_that_nobody_takes_is_refused() -> None:
    office = Simulations([customer])
    with pytest.raises(EventRefused, match="no workflow takes 'Approved'"):
        office.send(Approved())
    with pytest.raises(EventRefused, match="Approved has no key for 'trip'"):
        Simulations([trip, customer]).send(Approved())
