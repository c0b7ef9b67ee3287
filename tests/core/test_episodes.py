"""What belongs to one episode, how it begins and ends, and what a record tells of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from engine import (
    Call,
    Event,
    Final,
    Publish,
    Retry,
    State,
    StepFailed,
    Workflow,
    after,
    on,
    publish,
    runs,
    runs_each,
    step,
)
from engine.core.entry import Asker, EventEntry, FailureEntry, KeptEntry, QuestionEntry
from engine.core.entry import ResultEntry as Result
from engine.core.ids import CallId, Position, RunId
from engine.core.reaction import AskRun
from engine.core.record import Dropped, Episode, Group, Record, read_record
from engine.core.snapshot import read_stored
from engine.core.trace import episode_trace, parse_traceparent
from engine.core.transition import Place, PublishEvent, StartCall, running_calls, transition
from tests.core import test_asking as asking
from tests.core.episodes import check_episodes, check_spans, check_visits, parent_of
from tests.core.folding import DAY, HOUR, MINUTE, SECOND, Run

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Begun(Event, key="id"):
    id: str


class Poked(Event):
    fails: bool = False


class Told(Event):
    n: int = 0


class Shut(Event): ...


@step(retry=Retry(attempts=3, first_wait=timedelta(seconds=10), factor=100))
async def work(number: int) -> int:
    return number


@step(retry=Retry(attempts=1))
async def note(text: str) -> None: ...


class Open(State):
    """A superstate."""

    @on
    def shut(self, event: Shut) -> tuple[Closed, Publish]:
        del event
        return Closed(), publish(Told(n=1), key="other")


class Working(Open):
    later = (Poked,)

    @runs(work)
    def job(self) -> int:
        return 1

    @job.done
    def done(self, number: int) -> Resting:
        del number
        return Resting()

    @job.failed
    def failed(self, failure: StepFailed) -> Resting:
        del failure
        return Resting()


class Resting(Open):
    @on
    def poked(self, event: Poked) -> Many | Closed:
        if event.fails:
            message = "poked too hard"
            raise ValueError(message)
        return Many()

    @after(hours=1)
    def tired(self) -> tuple[Resting, Call[None]]:
        return self, note.call("tired")

    @after(days=3)
    def bored(self) -> Closed:
        return Closed()


class Many(State):
    numbers: tuple[int, ...] = ()

    @runs_each(work)
    def each(self) -> tuple[int, ...]:
        return self.numbers

    @each.done
    def done(self, numbers: tuple[int, ...]) -> Resting:
        del numbers
        return Resting()

    @each.failed
    def failed(self, failure: StepFailed) -> Resting:
        del failure
        return Resting()


class Closed(Final): ...


def begin(event: Begun | Told) -> Working:
    del event
    return Working()


episodic = Workflow("episodic", start=begin, states=[Working, Resting, Many, Closed])


def event(kind: str, id_: str = "e", *, data: bytes = b"{}", **more: Any) -> EventEntry:
    return EventEntry("episodic", "k", id_, "test", kind, Raw(data), **more)


def begun(**more: Any) -> Run:
    run = Run(episodic)
    run.fold(event("Begun", "e0", data=b'{"id":"k"}', **more))
    return run


def rested() -> Run:
    run = begun()
    run.result(run.call(), 1)
    return run


def episode(record: Record) -> Episode:
    assert record.episode is not None
    return record.episode


def check(run: Run) -> None:
    stored = read_stored(run.stored) if run.stored else None
    check_episodes(run.records, lasts=getattr(stored, "episode", None) is not None)
    check_visits(run.records)


# -- how long it lasts -------------------------------------------------------------------------------------------------


def test_an_episode_lasts_until_the_run_waits() -> None:
    run = begun(traceparent=PARENT, tracestate="a=1", baggage="b=2")
    run.result(run.call(), 1)
    run.fold(event("Poked", "e1"))
    first, second, *third = run.records

    assert episode(first) == Episode(
        1, 10 * DAY, "event", "Begun", "e0", "test", "", 0, PARENT, "a=1", "b=2", inside=False
    )
    assert episode(second) == episode(first)
    assert (first.ends, second.ends) == (False, True)
    assert {episode(r).seq for r in third} == {3}
    assert [r.ends for r in third] == [False, True]  # nothing to do in `Many`: it is left at once
    assert (episode(third[0]).state, episode(third[0]).visit) == ("Resting", 2)
    assert run.snapshot.episode is None
    check(run)


def test_a_retry_that_is_near_belongs_to_the_episode_and_a_far_one_does_not() -> None:
    run = begun()
    run.fail(run.call())
    run.tick()
    run.fail(run.call())
    near, timer, far = run.records[1:]
    run.tick()

    assert (near.ends, timer.ends, far.ends) == (False, False, True)
    assert {episode(r).seq for r in (near, timer, far)} == {1}
    assert episode(run.record).seq == 5
    assert (episode(run.record).cause, episode(run.record).name) == ("timer", "retry work")
    assert not run.record.ends
    check(run)


def test_an_event_in_a_running_episode_is_part_of_it() -> None:
    run = begun()
    run.fold(event("Poked", "e1", traceparent=PARENT, baggage="x=1"))
    run.result(run.call(), 1)
    poked, moved, taken, done = run.records[1:]

    assert poked.ignored.startswith("kept for a later state")
    assert (poked.traceparent, poked.baggage) == (PARENT, "x=1")
    assert [episode(r).seq for r in run.records] == [1] * 5
    assert (moved.ends, taken.id, taken.ends, done.ends) == (False, "e1", False, True)
    check(run)


def test_a_call_that_outlives_its_run_belongs_to_the_episode() -> None:
    run = rested()
    run.tick()
    (call,) = run.made(StartCall)
    run.fold(event("Shut", "e1"))
    over = run.record
    run.result(call, None)

    assert (over.status, over.ends, over.began) == ("finished", False, 10 * DAY)
    assert run.record.ends
    assert not run.record.began
    assert episode(run.record) == episode(over)
    check(run)


def test_what_comes_too_late_is_an_episode_that_ends_at_once() -> None:
    run = rested()
    run.fold(event("Shut", "e1"))
    run.fold(event("Poked", "e2", traceparent=PARENT, hops=1))

    assert run.grave.seq == 4
    assert run.record.ignored
    assert run.record.ends
    assert episode(run.record) == Episode(4, run.now, "event", "Poked", "e2", "test", "Closed", 0, PARENT, inside=True)
    check(run)


# -- halts -------------------------------------------------------------------------------------------------------------


def test_a_halt_ends_the_episode_and_what_it_holds_back_has_its_own() -> None:
    run = rested()
    run.fold(event("Poked", "e1", data=b'{"fails":true}'))
    run.fold(event("Shut", "e2"))
    run.order("skip")
    halted, held, lifted, left_out, shut = run.records[2:]

    assert [episode(r).seq for r in (halted, held, lifted, left_out, shut)] == [3, 4, 5, 6, 7]
    assert [episode(r).id for r in (halted, held, left_out, shut)] == ["e1", "e2", "e1", "e2"]
    assert all(r.ends for r in run.records[1:])
    assert (episode(lifted).cause, episode(lifted).name) == ("order", "skip")
    assert shut.to == "Closed"
    check(run)


def test_a_call_that_ran_when_its_run_halted_goes_on_in_the_episode_of_the_order() -> None:
    run = begun()
    call = run.call()
    run.fold(FailureEntry("episodic", "k", call.run, call.id, 1, "Bad", "no key", final=True, halts=True))
    before = episode_trace(call.run, episode(run.record))
    run.order("resume")
    again = run.call()
    trace = episode_trace(call.run, episode(run.record))

    assert parse_traceparent(call.trace) == parse_traceparent(parent_of(before, "attempt", call.run, call.id, 1))
    assert again.trace == parent_of(trace, "attempt", call.run, call.id, 2)
    assert trace != before
    check(run)


def test_a_snapshot_that_cannot_be_read_keeps_its_episode() -> None:
    run = begun()
    whole, run.stored = run.stored, b'{"t":"run","v":99,' + (run.stored or b"")[len(b'{"t":"run",') :]
    run.verdicts.clear()
    run.fold(event("Poked", "e1"))
    broken = run.record
    snap = run.snapshot
    snap.broken = whole or b""
    run.stored = msgspec.json.encode(snap)
    run.order("resume")

    assert broken.ends
    assert episode(broken).id == "e1"
    assert [episode(r).seq for r in run.records] == [1, 2, 1, 1]
    assert not run.record.ends


@pytest.mark.parametrize("order", ["cancel", "skip"])
def test_a_run_that_never_began_ends_its_episodes(order: Any) -> None:
    run = Run(failing)
    run.fold(EventEntry("failing", "k", "p", "test", "Poked", Raw(b"{}")))
    run.fold(EventEntry("failing", "k", "b", "test", "Begun", Raw(b'{"id":"k"}')))
    run.order(order)

    assert run.stored is None
    assert run.record.ends
    assert sum(bool(r.began) for r in run.records) == 1
    check(run)


class Here(State):
    @on
    def poked(self, event: Poked) -> There:
        del event
        return There()

    @after(days=1)
    def late(self) -> There:
        return There()


class There(Final): ...


def refuse(event: Begun) -> Here:
    raise ValueError(event.id)


failing = Workflow("failing", start=refuse, states=[Here, There])


# -- what a record tells -----------------------------------------------------------------------------------------------


def test_a_record_tells_what_was_left() -> None:
    run = rested()
    run.now += HOUR
    run.fold(event("Poked", "e1"))
    run.fold(event("Shut", "e2"))
    begin_, done, tired, poked, over_nothing, shut = run.records
    start = 10 * DAY

    assert begin_.left == ()
    assert done.left == (Group("Working", 1, start),)
    assert tired.left == ()
    assert poked.left == (Group("Resting", 2, start), Group("Open", 1, start))
    assert over_nothing.left == (Group("Many", 3, start + HOUR),)
    assert shut.left == (Group("Resting", 4, start + HOUR), Group("Open", 4, start + HOUR))
    assert [r.began for r in run.records] == [0, 0, 0, 0, 0, start]
    check(run)


def test_a_run_that_is_cancelled_has_left_all() -> None:
    run = rested()
    run.order("cancel")

    assert run.record.left == (Group("Resting", 2, 10 * DAY), Group("Open", 1, 10 * DAY))
    assert run.record.began == 10 * DAY
    assert run.record.ends
    check(run)


def test_a_record_tells_how_late_a_timer_was_and_what_it_started() -> None:
    run = rested()
    due = run.last.wakes
    run.tick(due + 7 * SECOND)

    assert (run.record.name, run.record.late, run.record.starts) == ("Resting.tired", 7 * SECOND, 1)
    assert [r.starts for r in run.records] == [1, 0, 1]


def test_a_record_tells_of_an_attempt_and_what_it_kept() -> None:
    run = begun()
    call = run.call()
    place = "episodic", "k", call.run, call.id, 1
    run.fold(KeptEntry(*place, 0, "part", Raw(b"1"), kind="model", started=5, took=6, spans=Raw(b"[1]")))
    run.fold(Result(*place, Raw(b"1"), started=3, took=9, spans=Raw(b"[2]")))
    part, whole = run.records[1:]

    assert (part.kind, part.started, part.took, bytes(part.spans)) == ("model", 5, 6, b"[1]")
    assert (whole.kind, whole.started, whole.took, bytes(whole.spans)) == ("", 3, 9, b"[2]")


def test_a_call_that_is_given_up_is_told_of_when_it_has_kept_something() -> None:
    run = begun()
    call = run.call()
    run.fold(KeptEntry("episodic", "k", call.run, call.id, 1, 0, "part", Raw(b"1")))
    run.fold(event("Shut", "e1"))

    assert run.record.dropped == (Dropped(call.id, "work", 1, 10 * DAY),)
    assert run.cancelled == [call.id]
    bare = begun()
    bare.fold(event("Shut", "e1"))
    assert bare.record.dropped == ()


def test_an_attempt_that_answers_after_all_is_told_apart() -> None:
    run = begun()
    call = run.call()
    run.fail(call)
    run.result(call, 1)

    assert [(r.cause, r.attempt, r.again) for r in run.records[1:]] == [("failure", 1, False), ("result", 1, True)]
    check_spans(run.records)


def test_an_attempt_that_is_behind_answers_and_the_one_that_runs_is_dropped() -> None:
    run = begun()
    call = run.call()
    run.fail(call)
    run.tick()
    run.fold(KeptEntry("episodic", "k", call.run, call.id, 2, 0, "part", Raw(b"1")))
    run.result(call, 1)

    assert run.record.again
    assert run.record.dropped == (Dropped(call.id, "work", 2, 10 * DAY),)
    check_spans(run.records)


# -- traces ------------------------------------------------------------------------------------------------------------


def test_attempts_and_published_events_stand_in_the_trace_of_their_episode() -> None:
    run = begun(traceparent=PARENT, tracestate="a=1", baggage="b=2", hops=1)
    call = run.call()
    run.fold(event("Shut", "e1", traceparent="00-other"))
    (published,) = [c.envelope for c in run.last.commands if isinstance(c, PublishEvent)]

    assert episode(run.record).inside
    assert (call.trace, call.tracestate, call.baggage) == (
        parent_of(TRACE, "attempt", call.run, call.id, 1),
        "a=1",
        "b=2",
    )
    assert published.traceparent == parent_of(TRACE, "publish", published.id)
    assert (published.tracestate, published.baggage) == ("a=1", "b=2")


def test_an_event_from_outside_begins_a_trace_of_its_own() -> None:
    run = begun(traceparent=PARENT)
    trace = episode_trace(run.record.run, episode(run.record))

    assert not episode(run.record).inside
    assert trace != TRACE
    assert run.call().trace == parent_of(trace, "attempt", run.record.run, run.call().id, 1)


def test_attempts_begun_again_after_a_restart_stand_where_they_stood() -> None:
    run = begun(traceparent=PARENT, baggage="b=2", hops=3)

    assert running_calls(run.stored or b"") == [run.call()]


def test_what_was_stored_before_episodes_were_kept_is_still_read() -> None:
    run = begun()
    old = msgspec.json.decode(run.stored or b"", type=dict[str, Raw])
    for name in ("episode", "began"):
        del old[name]
    run.stored = msgspec.json.encode(old)
    (call,) = running_calls(run.stored)
    run.result(call, 1)
    record = read_record(
        b'{"workflow":"w","key":"k","run":"r","version":1,"seq":1,"at":1,"entry":"1-0","cause":"event"}'
    )

    assert (call.trace, call.baggage) == ("", "")
    assert episode(run.record).seq == 2
    assert run.record.ends
    run.order("cancel")
    assert run.record.began == 10 * DAY
    assert (record.episode, record.ends, record.left) == (None, False, ())


# -- between runs ------------------------------------------------------------------------------------------------------


def test_a_question_stands_under_the_attempt_that_asks_it_and_its_answer_goes_on_there() -> None:
    run = Run(asking.claim)
    run.fold(EventEntry("claim", "k", "e", "test", "Filed", Raw(b'{"customer":"ann"}'), baggage="b=1"))
    (asked,) = run.made(AskRun)
    trace = episode_trace(run.record.run, episode(run.record))
    asked_at = parent_of(trace, "attempt", run.record.run, asked.asker.call, 1)
    ended = run.record.ends
    run.now += SECOND
    run.fold(Result("claim", "k", asked.asker.run, asked.asker.call, 1, Raw(b'{"claims":1}')))

    assert (asked.traceparent, asked.baggage) == (asked_at, "b=1")
    assert ended
    assert run.record.traceparent == asked_at
    assert (episode(run.record).traceparent, episode(run.record).inside) == (asked_at, True)
    assert episode_trace(run.record.run, episode(run.record)) == trace
    check(run)


def test_an_answer_that_took_long_begins_a_trace_of_its_own() -> None:
    run = Run(asking.claim)
    run.fold(EventEntry("claim", "k", "e", "test", "Filed", Raw(b'{"customer":"ann"}')))
    (asked,) = run.made(AskRun)
    run.now += 2 * MINUTE
    run.fold(Result("claim", "k", asked.asker.run, asked.asker.call, 1, Raw(b'{"claims":1}')))

    assert (episode(run.record).traceparent, episode(run.record).inside) == (asked.traceparent, False)
    assert run.record.traceparent == asked.traceparent


def test_whoever_is_asked_goes_on_with_the_trace_of_who_asks() -> None:
    place = Place(0, Position("1-0"), 10 * DAY)
    asker = Asker("claim", "c", RunId("r"), CallId("1.0"))
    entry = QuestionEntry("memory", "ann", "HistoryAsked", Raw(b'{"customer":"ann"}'), asker, PARENT, baggage="b=1")
    started = EventEntry("memory", "ann", "e", "test", "Claimed", Raw(b"{}"))
    stored = transition(asking.memory, None, started, place).stored
    reaction = transition(asking.memory, stored, entry, Place(0, Position("2-0"), 10 * DAY))
    (record,) = reaction.records

    assert episode(record).inside
    assert (episode(record).traceparent, episode(record).baggage) == (PARENT, "b=1")
    assert (record.traceparent, record.baggage) == (PARENT, "b=1")
    assert record.ends
