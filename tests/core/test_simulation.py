"""`engine.testing.Simulation`, as users' tests use it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from engine import StepFailed
from engine.testing import START, NotRepeatable, Simulation
from tests.core import zoo
from tests.core.zoo import Asked, Began, Checked, Do, Dropped, Paid, Placed, Poked, Shipped, Waiting


@pytest.fixture
def run() -> Simulation[Placed]:
    made = Simulation(zoo.order)
    made.fake(zoo.tell, lambda text: None)
    return made


def test_a_run_is_driven_to_its_end(run: Simulation[Placed]) -> None:
    run.send(Placed(order="4711"))
    assert run.state() == Waiting(order="4711")
    run.send(Paid(amount=3))
    run.send(Shipped(parcel="p"))

    assert run.state() == zoo.Done(order="4711", parcel="p")
    assert run.finished
    assert run.calls(zoo.tell) == ["pack 4711", "thanks"]
    assert run.calls(zoo.fetch) == []


def test_a_forgotten_order_is_reminded_and_expires(run: Simulation[Placed]) -> None:
    run.send(Placed(order="4711"))
    run.advance(days=13, hours=23, minutes=59, seconds=59)
    assert not run.finished
    run.advance(seconds=1)

    assert run.state() == Dropped(order="4711", why="never paid")
    assert run.now == START + timedelta(days=14)
    assert [r.name for r in run.records if r.name == "Waiting.remind"] == ["Waiting.remind"] * 4


def test_a_finished_run_stays_finished_when_it_is_forgotten(run: Simulation[Placed]) -> None:
    run.send(Placed(order="4711"))
    run.order("cancel", why="a mistake")
    run.advance(days=30)

    assert run.finished
    assert run.snapshot is None
    assert run.state() == Waiting(order="4711")


def test_the_state_of_a_run_that_has_not_begun_cannot_be_had(run: Simulation[Placed]) -> None:
    assert not run.finished
    assert run.halted() is None
    with pytest.raises(LookupError, match="the run has not begun; send the event that starts it"):
        run.state()


def test_steps_answer_as_they_are_told_and_failures_follow_their_retries() -> None:
    run = Simulation(zoo.work)
    answers = iter([OSError("down"), OSError("down"), 7])

    def fetch(name: str) -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        assert name == "ab"
        return int(str(answer))

    async def patient(name: str) -> int:
        return len(name)

    run.fake(zoo.fetch, fetch)
    run.fake(zoo.patient, patient)  # type: ignore[arg-type]  # an async fake may stand in as well
    run.fake(zoo.check_item, lambda item: item + 1)
    run.send(Asked(items=(1, 2, 3)))
    assert run.snapshot is not None
    assert run.snapshot.state == "Fetching"
    run.advance(minutes=1)

    assert run.state() == Checked(results=(2, 3, 4), sizes=(7, 3), at=START + timedelta(seconds=30))
    assert run.calls(zoo.fetch) == ["ab"] * 3


def test_an_answer_of_the_wrong_type_is_a_failed_attempt() -> None:
    run = Simulation(zoo.work)
    run.fake(zoo.fetch, lambda name: "seven")  # type: ignore[arg-type, return-value]
    run.fake(zoo.patient, len)
    run.send(Asked())
    run.advance(hours=1)

    failed = run.state()
    assert isinstance(failed, zoo.Failed)
    assert (failed.step, failed.type, failed.attempts) == ("fetch", "InvalidResult", 3)


def test_an_error_that_is_never_retried_is_final() -> None:
    run = Simulation(zoo.strict)
    run.fake(zoo.strict_step, _raise)
    run.send(Began())

    assert run.state() == zoo.Fallen(failure=StepFailed(step="strict_step", error="no", type="ValueError", attempts=1))


def _raise(_: int) -> int:
    message = "no"
    raise ValueError(message)


def test_a_step_without_a_fake_is_told() -> None:
    run = Simulation(zoo.work)
    with pytest.raises(LookupError, match="step fetch was called, but not faked"):
        run.send(Asked())


def test_a_handler_that_fails_halts_the_run_until_it_is_told_to_go_on(run: Simulation[Placed]) -> None:
    run.send(Placed(order="4711"))
    run.send(Paid(amount=-1))
    run.send(Poked())
    halted = run.halted()
    assert halted is not None
    assert halted.error == "ValueError: a negative amount"
    run.order("skip")

    assert run.halted() is None
    state = run.state()
    assert isinstance(state, Waiting)
    assert state.pokes == 1
    assert run.ignored[-1] == "left out by an order"


def test_a_repeat_is_ignored_and_told(run: Simulation[Placed]) -> None:
    run.send(Placed(order="4711"))
    for _ in range(2):
        run.send(Poked(), id="same")

    assert run.ignored == ["a repeat: event 'same' of 'test' was taken before"]


def test_published_events_and_dead_letters_are_seen(run: Simulation[Placed]) -> None:
    run.send(Placed(order="4711"))
    run.send(zoo.Withdrawn(why="no"))
    other = Simulation(zoo.order)
    other.send(Poked())
    other.advance(hours=1)

    assert run.published == [zoo.Sold(order="4711", amount=0)]
    assert [d.type for d in other.dead] == ["Poked"]


def test_a_handler_that_is_not_pure_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count()
    monkeypatch.setitem(zoo.WRONG, "impure", lambda _: zoo.Fragile(log=(str(next(count)),)))
    run = Simulation(zoo.fragile)
    run.send(Began())
    with pytest.raises(NotRepeatable, match="a handler must be pure"):
        run.send(Do(what="impure"))


def test_a_time_that_is_over_fires_at_once() -> None:
    run = Simulation(zoo.trip)
    run.fake(zoo.tell, lambda text: None)
    run.send(zoo.Booked(when=datetime(2020, 1, 1, tzinfo=UTC)))

    assert run.state() == zoo.Away(when=datetime(2020, 1, 1, tzinfo=UTC))
    assert run.now == START
