"""What calls keep, how they fail on the way, and what becomes of attempts that nobody waits for any longer."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from msgspec import Raw

from engine import Event, Final, Retry, State, StepContext, StepFailed, Workflow, after, on, runs, step
from engine.core.entry import FailureEntry, KeptEntry, Kind, Order, Used
from engine.core.ids import CallId
from engine.core.reaction import CancelCall, Forget, Keep, Reaction, StartCall
from engine.core.record import PendingCall
from engine.core.transition import running_calls
from tests.core.folding import DAY, HOUR, SECOND, Run


@step(retry=Retry(attempts=3, first_wait=timedelta(seconds=10), longest_wait=timedelta(seconds=60)))
async def write(text: str, context: StepContext) -> int:
    return len(text)


@step(retry=Retry(attempts=3, first_wait=timedelta(seconds=10)), total=timedelta(minutes=1))
async def hurry(text: str, context: StepContext) -> int:
    return len(text)


class Ordered(Event):
    text: str
    hurried: bool = False


class Stopped(Event):
    pass


class Poked(Event):
    hard: bool = True


class Writing(State):
    text: str

    @runs(write)
    def work(self) -> str:
        return self.text

    @work.done
    def written(self, pages: int) -> Written:
        return Written(pages=pages)

    @work.failed
    def failed(self, failure: StepFailed) -> Left:
        return Left(failure=failure)

    @on
    def stopped(self, event: Stopped) -> Left:
        return Left()

    @on
    def poked(self, event: Poked) -> Writing:
        if event.hard:
            message = "ouch"
            raise ValueError(message)
        return self

    @after(days=2)
    def late(self) -> Left:
        return Left()


class Hurrying(State):
    text: str

    @runs(hurry)
    def work(self) -> str:
        return self.text

    @work.done
    def written(self, pages: int) -> Written:
        return Written(pages=pages)

    @work.failed
    def failed(self, failure: StepFailed) -> Left:
        return Left(failure=failure)


class Written(Final):
    pages: int


class Left(Final):
    failure: StepFailed | None = None


def begin(event: Ordered) -> Writing | Hurrying:
    return Hurrying(text=event.text) if event.hurried else Writing(text=event.text)


book = Workflow("book", start=begin, states=[Writing, Hurrying, Written, Left])


@pytest.fixture
def run() -> Run:
    run = Run(book)
    run.send(Ordered(text="ab"))
    return run


def keep(
    run: Run,
    call: StartCall,
    index: int,
    *,
    name: str = "",
    kind: Kind = "once",
    used: Used | None = None,
    again: bool = False,
) -> Reaction:
    name = name or f"page {index}"
    output = Raw(msgspec.json.encode(name))
    entry = KeptEntry("book", "k", call.run, call.id, call.attempt, index, name, output, kind, used=used, again=again)
    return run.fold(entry)


def fail(
    run: Run, call: StartCall, *, outage: bool = False, halts: bool = False, wait: int = 0, inner: str = ""
) -> Reaction:
    return run.fold(
        FailureEntry(
            "book",
            "k",
            call.run,
            call.id,
            call.attempt,
            "Down",
            "no ink",
            outage=outage,
            halts=halts,
            wait=wait,
            inner=inner,
        )
    )


def shown(run: Run) -> PendingCall:
    (call,) = run.record.calls
    return call


def test_a_result_is_kept_beside_the_run_and_counted(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    keep(run, call, 1)

    assert run.made(Keep) == [Keep(call.run, call.id, "page 1", Raw(b'"page 1"'))]
    assert shown(run).kept == 2
    assert b"page 1" not in (run.stored or b"")
    assert (run.record.cause, run.record.name, run.record.inner) == ("kept", "write", "page 1")


def test_the_next_attempt_is_told_how_much_is_kept(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    keep(run, call, 1)
    fail(run, call)
    run.tick()
    (again,) = run.made(StartCall)

    assert (again.id, again.attempt, again.kept, again.failures) == (call.id, 2, 2, 1)
    assert running_calls(run.stored or b"") == [again]


def test_what_is_kept_is_forgotten_when_the_call_is_over(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    run.result(call, 7)

    assert run.made(Forget) == [Forget(call.run, call.id)]


def test_a_call_that_kept_nothing_is_not_forgotten(run: Run) -> None:
    run.result(run.call(), 7)

    assert run.made(Forget) == []


def test_leaving_the_state_ends_the_call_and_forgets_what_it_kept(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    run.send(Stopped())

    assert run.made(CancelCall) == [CancelCall(call.run, call.id)]
    assert run.made(Forget) == [Forget(call.run, call.id)]


def test_an_order_that_cancels_the_run_forgets_too(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    run.order("cancel")

    assert run.made(Forget) == [Forget(call.run, call.id)]


def test_a_result_that_is_kept_already_is_late(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    keep(run, call, 0, name="another")

    assert run.record.ignored == "late: result 0 of this call is kept already"
    assert run.made(Keep) == []
    assert shown(run).kept == 1


def test_a_result_of_a_call_that_is_over_is_late(run: Run) -> None:
    call = run.call()
    run.result(call, 7)
    keep(run, call, 0)

    assert run.record.ignored == "the run is finished (Written)"
    assert run.made(Keep) == []


def test_two_attempts_of_one_call_keep_each_result_once(run: Run) -> None:
    """The first one was given up, but its process lives on: whoever comes first with a result has kept it."""
    first = run.call()
    keep(run, first, 0)
    fail(run, first)
    run.tick()
    second = run.call()
    keep(run, first, 1, name="page 1")
    keep(run, second, 1, name="page 1")
    kept = [c.name for c in run.commands if isinstance(c, Keep)]

    assert kept == ["page 0", "page 1"]
    assert shown(run).kept == 2


def test_a_failure_of_an_attempt_that_was_given_up_is_late(run: Run) -> None:
    first = run.call()
    fail(run, first)
    run.tick()
    fail(run, first)

    assert run.record.ignored == "late: attempt 1 was given up before"
    assert shown(run).status == "running"


def test_failures_are_counted_since_the_last_result(run: Run) -> None:
    for page in range(4):
        fail(run, run.call())
        run.tick()
        fail(run, run.call())
        run.tick()
        keep(run, run.call(), page)

    assert run.call().attempt == 9
    for _ in range(2):
        fail(run, run.call())
        run.tick()
    fail(run, run.call(), inner="page 4")

    assert run.record.to == "Left"
    assert (run.record.error, run.record.inner, run.record.attempt) == ("Down: no ink", "page 4", 11)


def test_a_result_makes_the_waits_short_again(run: Run) -> None:
    fail(run, run.call())
    run.tick()
    fail(run, run.call())
    assert run.last.wakes == run.now + 20 * SECOND
    run.tick()
    keep(run, run.call(), 0)
    fail(run, run.call())

    assert run.last.wakes == run.now + 10 * SECOND


def test_an_outage_does_not_count(run: Run) -> None:
    for _ in range(20):
        fail(run, run.call(), outage=True)
        run.tick()
    fail(run, run.call(), outage=True)

    assert run.last.wakes == run.now + 60 * SECOND
    assert run.snapshot.calls[0].outages == 21
    assert run.snapshot.calls[0].failures == 0


def test_an_outage_ends_with_the_state(run: Run) -> None:
    began = run.now
    while run.record.to == "Writing":
        fail(run, run.call(), outage=True)
        run.tick()

    assert run.record.to == "Left"
    assert run.now == began + 2 * DAY


def test_an_outage_ends_with_the_steps_total() -> None:
    run = Run(book)
    run.send(Ordered(text="ab", hurried=True))
    for _ in range(2):
        fail(run, run.call(), outage=True)
        run.tick()
    assert run.record.to == "Hurrying"
    fail(run, run.call(), outage=True)

    assert run.record.to == "Left"


def test_the_other_sides_wait_is_kept_where_it_is_longer(run: Run) -> None:
    fail(run, run.call(), wait=int(HOUR))

    assert run.last.wakes == run.now + HOUR


def test_progress_is_shown_and_counts_as_nothing(run: Run) -> None:
    call = run.call()
    fail(run, call)
    run.tick()
    entry = KeptEntry("book", "k", call.run, call.id, 2, 0, "progress", kind="progress", note="page 3 of 9" + "!" * 999)
    run.fold(entry)

    assert shown(run).note == ("page 3 of 9" + "!" * 999)[:500]
    assert shown(run).kept == 0
    assert run.snapshot.calls[0].failures == 1
    assert run.made(Keep) == []


def test_a_result_whose_outcome_was_unknown_says_so(run: Run) -> None:
    keep(run, run.call(), 0, again=True)

    assert run.record.again


def test_what_a_model_used_stands_in_the_record(run: Run) -> None:
    used = Used("assessor", input=100, output=20, cost=None)
    keep(run, run.call(), 0, kind="model", used=used)

    assert run.record.used == used
    assert run.record.spent is None


def test_what_an_attempt_keeps_that_was_given_up_takes_no_place_of_the_one_that_runs(run: Run) -> None:
    call = run.call()
    fail(run, call)
    run.tick()
    again = run.call()
    keep(run, call, 0, name="stray")
    assert run.record.ignored == "late: attempt 1 was given up before"
    assert run.made(Keep) == []

    keep(run, again, 0)
    assert [k.name for k in run.made(Keep)] == ["page 0"]


# -- halts -------------------------------------------------------------------------------------------------------------


def test_a_step_may_halt_its_run(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    fail(run, call, halts=True)

    assert run.record.halted is not None
    assert run.record.halted.error == "StepHalts: write: no ink; mend it, then `longwatch resume`"
    assert len(run.held) == 1
    assert run.last.wakes == 0


def test_resume_tries_the_call_again_at_once(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    fail(run, call, halts=True)
    run.now += HOUR
    run.order("resume")
    (again,) = run.made(StartCall)

    assert (again.id, again.attempt, again.kept) == (call.id, 2, 1)
    assert run.record.halted is None
    assert run.held == []
    run.result(again, 7)
    assert run.record.to == "Written"


def test_a_call_that_halts_again_halts_the_run_again(run: Run) -> None:
    for _ in range(3):
        fail(run, run.call(), halts=True)
        assert run.record.halted is not None
        run.order("resume")

    assert run.record.halted is None
    assert run.call().attempt == 4


def test_skip_gives_the_call_up(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    fail(run, call, halts=True)
    run.order("skip")

    assert run.record.to == "Left"
    assert run.record.halted is None
    assert run.made(Forget) == [Forget(call.run, call.id)]
    assert run.held == []


def test_what_came_while_the_run_was_halted_is_folded_after_the_call_began_again(run: Run) -> None:
    call = run.call()
    fail(run, call, halts=True)
    keep(run, call, 0)  # of a part that went on when the attempt had failed
    run.send(Stopped())
    run.order("resume")

    assert run.record.to == "Left"
    assert [r.ignored for r in run.records[-2:]] == ["late: attempt 1 was given up before", ""]
    assert run.held == []


def test_a_time_that_came_while_the_run_was_halted_ends_it_after_it_goes_on(run: Run) -> None:
    fail(run, run.call(), halts=True)
    run.now += 3 * DAY
    run.order("resume")

    assert run.record.to == "Left"
    assert run.record.cause == "timer"


@pytest.mark.parametrize("order", ["resume", "skip"])
def test_what_was_in_flight_when_the_run_halted_is_started_when_it_goes_on(run: Run, order: Order) -> None:
    """An engine that was started in the meantime has not begun it: the run was halted. Where it runs, it runs once."""
    call = run.call()
    keep(run, call, 0)
    run.send(Poked())
    assert running_calls(run.stored or b"") == []
    run.order(order)
    if order == "resume":
        assert run.made(StartCall) == []
        run.order("skip")
    (again,) = run.made(StartCall)

    assert (again.id, again.attempt, again.kept, again.again) == (call.id, 1, 1, True)
    assert [c.id for c in running_calls(run.stored or b"")] == [call.id]


def test_what_came_to_its_end_while_the_run_was_halted_is_not_started_again(run: Run) -> None:
    call = run.call()
    run.send(Poked())
    run.result(call, 7)
    run.order("skip")

    assert run.record.to == "Written"
    assert run.made(StartCall) == []


def test_what_failed_while_the_run_was_halted_waits_as_its_retry_says(run: Run) -> None:
    call = run.call()
    run.send(Poked())
    fail(run, call)
    run.order("skip")

    assert run.made(StartCall) == []
    assert shown(run).status == "waiting"


def test_a_cancelled_run_starts_nothing(run: Run) -> None:
    run.send(Poked())
    run.order("cancel")

    assert run.made(StartCall) == []


class Fused(State):
    text: str

    @runs(write)
    def work(self) -> str:
        return self.text

    @work.done
    def written(self, pages: int) -> Written:
        return Written(pages=pages)

    @work.failed
    def failed(self, failure: StepFailed) -> Left:
        return Left(failure=failure)

    @after(hours=1)
    def burst(self) -> Left:
        raise ValueError


def light(event: Ordered) -> Fused:
    return Fused(text=event.text)


def test_to_skip_a_timer_gives_no_call_up_that_halts_behind_it() -> None:
    run = Run(Workflow("book", start=light, states=[Fused, Written, Left]))
    run.send(Ordered(text="ab"))
    run.now += HOUR
    fail(run, run.call(), halts=True)
    assert "Fused.burst" in str(run.record.halted)

    run.order("skip")

    assert "StepHalts" in str(run.record.halted)
    run.order("resume")
    assert run.record.halted is None
    assert run.call().attempt == 2


def test_a_run_that_cannot_be_read_leaves_nothing_of_what_it_kept_when_it_is_cancelled(run: Run) -> None:
    call = run.call()
    keep(run, call, 0)
    run.stored = (run.stored or b"")[:-1]
    run.send(Stopped())
    run.order("cancel")

    assert run.made(Forget) == [Forget(call.run, CallId(""))]
    assert run.grave.run == call.run
