"""Steps: retries, totals, fan-out, failures, and calls that nobody waits for."""

from __future__ import annotations

from datetime import timedelta

from msgspec import structs

from engine import Retry
from engine.core.ids import RunId
from engine.core.record import PendingCall
from engine.core.transition import StartCall
from engine.core.working import MAX_FAILED
from tests.core import zoo
from tests.core.folding import MINUTE, SECOND, Run
from tests.core.zoo import Asked, Paid, Placed, Poked, Shipped, Withdrawn


def asked(items: tuple[int, ...] = (), *, lapse: float = 1.0) -> tuple[Run, StartCall, StartCall]:
    run = Run(zoo.work, lapse=lapse)
    run.send(Asked(items=items))
    first, second = run.made(StartCall)
    return run, first, second


def checking(count: int) -> Run:
    run, first, second = asked(tuple(range(count)))
    run.result(first, 2)
    run.result(second, 3)
    return run


def waiting(run: Run) -> list[tuple[str, int, str, int]]:
    return [(c.id, c.attempt, c.status, c.due - run.now if c.due else 0) for c in run.snapshot.calls]


# Both steps of a state ------------------------------------------------------------------------------------------------


def test_both_steps_start_at_once_with_their_own_inputs() -> None:
    run, first, second = asked()

    assert [(c.step, bytes(c.input), c.attempt) for c in (first, second)] == [
        ("fetch", b'"ab"', 1),
        ("patient", b'"abc"', 1),
    ]
    assert (first.id, second.id) == ("1.0", "1.1")
    assert run.record.status == "running"
    assert [c.step for c in run.record.calls] == ["fetch", "patient"]


def test_results_are_handed_on_in_the_order_of_the_steps() -> None:
    run, first, second = asked((7,))
    run.result(second, 3)
    assert run.snapshot.state == "Fetching"
    run.result(first, 2)

    assert run.data["sizes"] == [2, 3]


def test_a_result_that_comes_twice_is_late() -> None:
    run, first, _ = asked()
    run.result(first, 2)
    run.result(first, 9)

    assert run.record.ignored == "late: nobody waits for this call any longer"
    assert bytes(run.snapshot.works[0].results[0][1]) == b"2"


def test_a_result_for_another_run_of_the_key_is_late() -> None:
    run, first, _ = asked()
    run.result(structs.replace(first, run=zoo_run()), 2)

    assert run.record.ignored.startswith("late")


def zoo_run() -> RunId:
    other = Run(zoo.work)
    other.count = 9
    other.send(Asked())
    return other.snapshot.run


def test_the_first_failure_wins_and_the_others_are_cancelled() -> None:
    run, first, second = asked()
    run.fail(first, "ValueError", "gone", final=True)

    record = run.record
    assert (record.to, record.error, record.name, record.attempt) == ("Failed", "ValueError: gone", "fetch", 1)
    assert b'"step":"fetch","error":"gone","type":"ValueError","attempts":1' in bytes(record.data)
    assert run.cancelled == [second.id]
    run.result(second, 1)
    assert run.record.ignored == "the run is finished (Failed)"


# Retries --------------------------------------------------------------------------------------------------------------


def test_a_failed_attempt_waits_and_is_made_again_by_a_timer() -> None:
    run, first, _ = asked()
    run.fail(first, "Timeout", "after 30 s")

    assert waiting(run)[0] == (first.id, 1, "waiting", 10 * SECOND)
    assert run.record.calls[0] == PendingCall(
        id=first.id,
        step="fetch",
        attempt=1,
        due=run.now + 10 * SECOND,
        status="waiting",
        error="Timeout: after 30 s",
    )
    run.tick()

    (again,) = run.made(StartCall)
    assert (again.id, again.attempt, again.since) == (first.id, 2, first.since)
    assert run.record.name == "retry fetch"


def test_waits_grow_by_the_factor_up_to_the_longest() -> None:
    run, first, _ = asked()
    run.fail(first)
    run.tick()
    run.fail(run.call("fetch"))

    assert waiting(run)[0] == (first.id, 2, "waiting", 20 * SECOND)


def test_after_the_last_attempt_the_failure_is_handed_on() -> None:
    run, first, _ = asked()
    for _ in range(2):
        run.fail(run.call("fetch"))
        run.tick()
    run.fail(run.call("fetch"), "Down", "still")

    assert run.record.to == "Failed"
    assert b'"attempts":3' in bytes(run.record.data)
    assert first.attempt == 1


def test_waits_are_stretched_by_the_lapse() -> None:
    run, first, _ = asked(lapse=20_000)
    run.fail(first)

    assert waiting(run)[0][3] == 10 * SECOND * 20_000


def test_a_wait_that_the_other_side_asks_for_is_kept() -> None:
    run, first, _ = asked()
    run.fail(first, wait=45_000)

    assert waiting(run)[0][3] == 45 * SECOND


def test_the_total_ends_a_call_before_its_attempts_are_used_up() -> None:
    run, _, second = asked()
    run.fail(second)
    run.tick()
    run.fail(run.call("patient"))

    assert waiting(run)[1][3] == 120 * SECOND

    run.tick()
    assert run.now - second.since == 180 * SECOND
    run.fail(run.call("patient"), "Down", "for good")
    assert run.record.to == "Failed"


def test_the_total_is_stretched_by_the_lapse() -> None:
    run, _, second = asked(lapse=100)
    run.fail(second)
    run.tick()
    run.fail(run.call("patient"))

    assert waiting(run)[1][3] == 12_000 * SECOND


def test_the_failure_of_an_attempt_that_was_given_up_is_late() -> None:
    run, first, _ = asked()
    run.fail(first)
    run.fail(first)
    assert run.record.ignored == "late: attempt 1 was given up before"
    run.tick()
    run.fail(first)

    assert run.record.ignored == "late: attempt 1 was given up before"


def test_the_result_of_an_earlier_attempt_is_taken() -> None:
    run, first, _ = asked()
    run.fail(first)
    run.result(first, 2)

    assert [c.step for c in run.snapshot.calls] == ["patient"]
    assert run.last.wakes == 0


def test_a_retry_order_starts_waiting_calls_at_once() -> None:
    run, first, _ = asked()
    run.fail(first)
    run.order("retry")

    (again,) = run.made(StartCall)
    assert (again.id, again.attempt) == (first.id, 2)
    assert run.last.wakes == 0


def test_waits_of_a_retry_stay_finite() -> None:
    retry = Retry(factor=1e10, longest_wait=timedelta(minutes=1))

    assert retry.wait(1) == 1_000
    assert retry.wait(2) == MINUTE
    assert retry.wait(1_000_000) == MINUTE


# Fan-out --------------------------------------------------------------------------------------------------------------


def test_a_fan_out_runs_no_more_at_once_than_its_limit() -> None:
    run = checking(5)

    assert [c.status for c in run.snapshot.calls] == ["running", "running", "queued", "queued", "queued"]
    assert [bytes(c.input) for c in run.made(StartCall)] == [b"0", b"1"]


def test_results_of_a_fan_out_come_in_the_order_of_the_inputs() -> None:
    run = checking(5)
    open_calls = run.made(StartCall)
    while open_calls:
        call = open_calls.pop()
        run.result(call, int(bytes(call.input)) * 10)
        open_calls += run.made(StartCall)
        if run.record.to == "Checking":
            assert sum(c.status == "running" for c in run.snapshot.calls) <= 2

    assert run.record.to == "Checked"
    assert b'"results":[0,10,20,30,40]' in bytes(run.record.data)


def test_a_fan_out_over_nothing_is_done_at_once() -> None:
    run = checking(0)

    assert [(r.name, r.to) for r in run.records[-2:]] == [("patient", "Checking"), ("check_item each", "Checked")]
    assert b'"results":[]' in bytes(run.record.data)


def test_a_failure_in_a_fan_out_takes_the_queued_ones_with_it() -> None:
    run = checking(4)
    first, second = run.made(StartCall)
    run.fail(first, final=True)

    assert run.record.to == "Failed"
    assert run.cancelled == [second.id]
    assert run.grave.state == "Failed"


def test_a_waiting_attempt_does_not_let_a_queued_one_start() -> None:
    run = checking(3)
    first, second = run.made(StartCall)
    run.fail(first)
    assert not run.made(StartCall)
    run.result(second, 1)

    assert [bytes(c.input) for c in run.made(StartCall)] == [b"2"]


# Calls that nobody waits for ------------------------------------------------------------------------------------------


def placed() -> Run:
    run = Run(zoo.order)
    run.send(Placed(order="k"))
    return run


def test_a_call_that_nobody_waits_for_outlives_its_state_and_the_final_one() -> None:
    run = placed()
    run.send(Poked(text="hello"))
    call = run.call("tell")
    run.send(Paid(amount=1))
    run.send(Shipped(parcel="p"))

    assert call.id in [c.id for c in run.snapshot.calls]
    assert call.id not in run.cancelled


def test_its_result_changes_nothing() -> None:
    run = placed()
    run.send(Poked(text="hello"))
    run.result(run.call("tell"), None)

    assert run.record.ignored == ""
    assert run.snapshot.calls == ()
    assert (run.record.from_, run.record.to) == ("Waiting", "Waiting")


def test_one_that_failed_for_good_is_kept_to_be_retried() -> None:
    run = placed()
    run.send(Poked(text="hello"))
    run.fail(run.call("tell"), "Down", "no mail")

    (call,) = run.record.calls
    assert (call.status, call.error) == ("failed", "Down: no mail")
    assert run.record.status == "waiting"


def test_one_that_failed_for_good_is_started_by_a_retry_order() -> None:
    run = placed()
    run.send(Poked(text="hello"))
    run.fail(run.call("tell"), "Down", "no mail")
    run.order("retry")

    assert run.call("tell").attempt == 2
    assert run.record.status == "running"


def test_only_the_last_hundred_that_failed_are_kept() -> None:
    run = placed()
    for number in range(MAX_FAILED + 2):
        run.send(Poked(text=str(number)))
        run.fail(run.call("tell"))

    assert len(run.snapshot.calls) == MAX_FAILED
    assert bytes(run.snapshot.calls[0].input) == b'"2"'
    assert (len(run.record.calls), run.record.more_calls) == (20, MAX_FAILED - 20)


def test_failed_ones_do_not_keep_a_finished_run_alive() -> None:
    run = placed()
    run.send(Poked(text="hello"))
    run.fail(run.call("tell"))
    run.send(Withdrawn(why="no"))

    assert run.grave.state == "Dropped"


def test_a_run_that_ended_still_retries_its_last_call() -> None:
    run = Run(zoo.claim)
    run.send(zoo.Began())
    run.fail(run.call())
    assert run.record.status == "finished"
    assert run.last.wakes == run.now + 5 * SECOND
    run.tick()
    run.result(run.call(), 1)

    assert run.grave.state == "Closed"
