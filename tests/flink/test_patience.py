"""How long the driver waits for a Flink that does not answer, with a clock to move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.flink import driver
from engine.flink.driver import JobFailed, Patience
from engine.flink.rest import FlinkRefused, FlinkUnreachable

UNREACHABLE = FlinkUnreachable("http://localhost:1/jobs", "timed out")


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(driver, "time", clock)
    return clock


def failing(error: Exception) -> Callable[[], int]:
    def ask() -> int:
        raise error

    return ask


@pytest.mark.parametrize("error", [UNREACHABLE, FlinkRefused("/jobs", 500, "ask timed out"), TypeError("no answer")])
def test_one_question_that_fails_is_no_end_however_long_it_took(clock: Clock, error: Exception) -> None:
    patience = Patience(30)

    assert patience.ask(lambda: 1) == 1
    clock.now += 100
    assert patience.ask(failing(error)) is None


def test_nothing_answered_for_longer_than_it_waits_is_the_end(clock: Clock) -> None:
    patience = Patience(30)

    for _ in range(6):
        assert patience.ask(failing(UNREACHABLE)) is None
        clock.now += 5
    clock.now += 1
    with pytest.raises(FlinkUnreachable):
        patience.ask(failing(UNREACHABLE))


def test_an_answer_between_begins_the_wait_anew(clock: Clock) -> None:
    patience = Patience(30)

    for _ in range(10):
        assert patience.ask(failing(UNREACHABLE)) is None
        clock.now += 20
        assert patience.ask(lambda: 1) == 1


def test_what_flink_says_of_the_job_is_believed_at_once() -> None:
    with pytest.raises(JobFailed):
        Patience(30).ask(failing(JobFailed("LogLost: its end is lost")))
