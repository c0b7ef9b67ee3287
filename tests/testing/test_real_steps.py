"""Steps that run for real in a `Simulation`: what they keep, how they fail, whom they ask, and engines that die."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine import Leave, NeverAgain, StepHalts, TryAgain
from engine.testing import Simulation
from tests.testing.office import (
    ROME,
    Approved,
    Booked,
    Cancelled,
    Dropped,
    Trips,
    TripWanted,
    World,
    ask_trips,
    book,
    trip,
)

PARTS = ("flight done", "hotel done", "car done")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def run(world: World) -> Simulation[TripWanted]:
    run = Simulation(trip)
    run.fake(ask_trips, lambda question: Trips(count=len(question.customer)))
    run.real(book, resources={"world": world})
    return run


def booked(run: Simulation[TripWanted], *, asks: bool = False) -> Simulation[TripWanted]:
    run.send(ROME.model_copy(update={"asks": asks}))
    run.answer(Approved(), who="bo")
    return run


def test_a_real_step_does_its_parts_and_keeps_them(run: Simulation[TripWanted], world: World) -> None:
    booked(run)

    assert run.state() == Booked(wanted=ROME, parts=PARTS, by="bo")
    assert world.done == ["flight", "hotel", "car"]
    assert [r.inner for r in run.records if r.cause == "kept" and r.inner] == ["flight", "hotel", "car"]
    assert run.calls(ask_trips)[0].customer == "ann"


def test_a_failed_part_is_tried_again_and_the_others_are_not(run: Simulation[TripWanted], world: World) -> None:
    world.fails["hotel"] = [OSError("closed"), OSError("closed")]
    booked(run)
    assert run.records[-1].inner == "hotel"
    run.advance(minutes=5)

    assert run.state() == Booked(wanted=ROME, parts=PARTS, by="bo")
    assert world.done == ["flight", "hotel", "hotel", "hotel", "car"]


def test_failures_end_the_call_as_its_retry_says(run: Simulation[TripWanted], world: World) -> None:
    world.fails["car"] = [OSError("closed")] * 3
    booked(run)
    run.advance(hours=1)

    assert run.state() == Dropped(why="OSError: closed")


def test_a_provider_that_is_down_is_waited_for(run: Simulation[TripWanted], world: World) -> None:
    world.fails["car"] = [TryAgain("down", after=timedelta(minutes=30), outage=True)] * 10
    booked(run)
    run.advance(hours=4, minutes=59)
    assert not run.finished
    run.advance(minutes=1)

    assert isinstance(run.state(), Booked)
    assert world.done.count("flight") == 1
    assert world.done.count("car") == 11


def test_a_failure_for_good_is_not_tried_again(run: Simulation[TripWanted], world: World) -> None:
    world.fails["car"] = [NeverAgain("no such town")]
    booked(run)

    assert run.state() == Dropped(why="NeverAgain: no such town")


def test_an_operators_matter_halts_the_run(run: Simulation[TripWanted], world: World) -> None:
    world.fails["car"] = [StepHalts("the key is refused")]
    booked(run)
    halted = run.halted()
    assert halted is not None
    assert "the key is refused" in halted.error
    run.order("resume")

    assert isinstance(run.state(), Booked)
    assert world.done == ["flight", "hotel", "car", "car"]


@pytest.mark.parametrize("results", [1, 2, 3, 4])
def test_an_engine_that_dies_after_a_result_goes_on_behind_it(
    run: Simulation[TripWanted], world: World, results: int
) -> None:
    run.crash_after(results)
    booked(run)

    assert run.state() == Booked(wanted=ROME, parts=PARTS, by="bo")
    assert world.done == ["flight", "hotel", "car"]


@pytest.mark.parametrize(("results", "lost"), [(1, "flight"), (2, "hotel"), (3, "car")])
def test_a_result_that_was_lost_is_made_again_and_said_to_be(
    run: Simulation[TripWanted], world: World, results: int, lost: str
) -> None:
    run.crash_after(results, lost=True)
    booked(run)

    assert run.state() == Booked(wanted=ROME, parts=PARTS, by="bo")
    assert world.done.count(lost) == 2
    assert len(world.done) == 4
    assert [r.inner for r in run.records if r.again] == [lost]


def test_an_answer_of_the_step_itself_that_was_lost_costs_nothing_that_was_kept(
    run: Simulation[TripWanted], world: World
) -> None:
    run.crash_after(4, lost=True)
    booked(run)

    assert run.finished
    assert world.done == ["flight", "hotel", "car"]


def test_an_engine_can_be_killed_in_the_middle_of_the_work(run: Simulation[TripWanted], world: World) -> None:
    class Deadly(World):
        async def do(self, what: str) -> str:
            answer = await super().do(what)
            if self.done.count("hotel") == 1 and what == "hotel":
                run.crash()
            return answer

    world = Deadly()
    run.real(book, resources={"world": world})
    booked(run)

    assert world.done == ["flight", "hotel", "hotel", "car"]


def test_a_crash_between_two_calls_costs_nothing(run: Simulation[TripWanted], world: World) -> None:
    run.send(ROME)
    run.crash()
    run.answer(Approved())

    assert run.finished
    assert world.done == ["flight", "hotel", "car"]


def test_a_step_that_kills_the_engine_again_and_again_is_told(run: Simulation[TripWanted]) -> None:
    def answer(wish: object) -> list[str]:
        run.crash()
        return []

    run.fake(book, answer)
    run.send(ROME)
    with pytest.raises(RuntimeError, match="died 1000 times"):
        run.answer(Approved())


def test_a_fake_may_kill_the_engine_too(run: Simulation[TripWanted]) -> None:
    times = iter([True, False])

    def answer(wish: object) -> list[str]:
        if next(times):
            run.crash()
        return ["all"]

    run.fake(book, answer)
    booked(run)

    assert run.state() == Booked(wanted=ROME, parts=("all",), by="bo")
    assert len(run.calls(book)) == 2


def test_results_are_counted_from_one(run: Simulation[TripWanted]) -> None:
    with pytest.raises(ValueError, match="is number 1"):
        run.crash_after(0)


# -- people ------------------------------------------------------------------------------------------------------------


def test_a_step_asks_and_goes_on_with_the_answer(run: Simulation[TripWanted], world: World) -> None:
    booked(run, asks=True)
    (asked,) = run.inbox()
    assert (asked.group, asked.question) == ("bookers", "A car in rome?")
    run.advance(days=30)
    run.answer("yes", who="cy")

    assert run.inbox() == []
    assert isinstance(run.state(), Booked)
    assert world.done == ["flight", "hotel", "car"]


@pytest.mark.parametrize("no", ["no", Leave(granted=False, note="too dear")])
def test_a_step_hears_a_no(run: Simulation[TripWanted], no: object) -> None:
    booked(run, asks=True)
    run.answer(no, who="cy")

    state = run.state()
    assert isinstance(state, Booked)
    assert state.parts[-1] == "no car, said cy"


def test_an_answer_that_does_not_fit_is_refused(run: Simulation[TripWanted]) -> None:
    booked(run, asks=True)
    with pytest.raises(ValueError, match="'perhaps' is no answer to 'A car in rome\\?'"):
        run.answer("perhaps")
    assert len(run.inbox()) == 1


def test_an_answer_to_nothing_says_what_is_asked(run: Simulation[TripWanted]) -> None:
    run.send(ROME)
    with pytest.raises(LookupError, match=r"what waits for people: state \(group bookers\)"):
        run.answer("yes")


def test_what_is_taken_is_for_who_took_it(run: Simulation[TripWanted]) -> None:
    run.send(ROME)
    run.take("ann")
    run.answer(Approved(), who="bo")
    assert run.ignored == ["taken by ann: to be released first"]
    run.release("ann")
    run.answer(Approved(), who="bo")

    assert run.finished


def test_of_two_answers_one_wins(run: Simulation[TripWanted]) -> None:
    booked(run, asks=True)
    run.send(Cancelled(), who="late", visit=2)

    assert run.ignored == ["answered already: the run has moved on to Booking"]


async def test_an_async_test_may_simulate_too(run: Simulation[TripWanted], world: World) -> None:
    booked(run)

    assert run.finished
    assert world.done == ["flight", "hotel", "car"]


def test_an_event_for_another_run_is_refused(run: Simulation[TripWanted]) -> None:
    run.send(ROME)
    with pytest.raises(ValueError, match="TripWanted is for the run 'oslo', this one is 'rome'"):
        run.send(TripWanted(trip="oslo", customer="ann"))


def test_a_step_that_is_neither_faked_nor_real_says_both_ways() -> None:
    run = Simulation(trip)
    run.fake(ask_trips, lambda question: Trips())
    run.send(ROME)
    with pytest.raises(LookupError, match=r"say run.fake\(book, lambda input: ...\) or run.real\(book\)"):
        run.answer(Approved())
