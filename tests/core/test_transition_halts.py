"""Halts are verdicts: what stops a run, what it keeps, and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from engine.core.definition import Workflow, state_spec
from engine.core.entry import EventEntry, OrderEntry, ResultEntry
from engine.core.errors import HandlerFailed
from engine.core.fold import MAX_AT_ONCE, MAX_ERROR
from engine.core.ids import Position
from engine.core.model import State
from engine.core.reaction import MAX_SNAPSHOT
from engine.core.snapshot import FORMAT, write_stored
from engine.core.transition import Place, StartCall, Verdict, running_calls, transition
from tests.core import upgraded, zoo
from tests.core.folding import DAY, HOUR, Run, event_entry
from tests.core.zoo import Began, Do, Gift, Paid, Placed, Poked, Shipped


def begun() -> Run:
    run = Run(zoo.fragile)
    run.send(Began())
    return run


def done(run: Run, *what: str) -> None:
    for one in what:
        run.send(Do(what=one))


def mend(monkeypatch: pytest.MonkeyPatch, what: str = "raise") -> None:
    """The next version of the code takes `what` as anything else."""
    monkeypatch.delitem(zoo.WRONG, what)


# What halts a run -----------------------------------------------------------------------------------------------------


def test_a_handler_that_raises_leaves_nothing_behind_but_its_failure() -> None:
    run = begun()
    entry = event_entry(zoo.fragile, Do(what="raise"), id="x")
    place = Place(3, Position("9-0"), run.now)
    with pytest.raises(HandlerFailed) as failed:
        transition(zoo.fragile, run.stored, entry, place)

    assert failed.value.index == 0
    assert failed.value.error == "ValueError: as told"
    assert failed.value.cause == "event Do in Fragile"
    assert failed.value.where.startswith("zoo.py:")


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raise", "ValueError: as told"),
        ("exit", "SystemExit: 3"),
        ("rude", "Rudeness: very"),
        ("mute", "Mute: (its words cannot be had: Rudeness)"),
        ("surrogate", r"ValueError: \ud800 is half a letter"),
        ("nothing", "do answered with nothing, but its annotation says Fragile | Fine | Nowhere | Call | Publish"),
        ("number", "do answered with int"),
        ("started", "do answered with Began"),
        ("unnamed", "do answered with Hidden"),
        ("two", "do answered with Fine"),
        ("unwritten", "PydanticSerializationError: "),
        ("input", "PydanticSerializationError: "),
        ("nan", "ValidationError: 1 validation error for Fragile"),
    ],
)
def test_what_a_handler_may_not_do_halts_its_run(what: str, error: str) -> None:
    run = begun()
    done(run, "a", what)

    halted = run.snapshot.halted
    assert halted is not None
    assert error in halted.error
    assert halted.cause == "event Do in Fragile"
    assert halted.at == run.now
    assert run.data["log"] == ["a"]
    assert run.record.status == "halted"
    assert run.record.halted == halted
    assert run.last.wakes == 0
    assert [h.position for h in run.held] == ["3-0"]
    assert run.snapshot.held == 1


def test_an_interrupt_is_no_failure_of_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo.WRONG, "interrupt", KeyboardInterrupt())
    run = begun()
    with pytest.raises(KeyboardInterrupt):
        done(run, "interrupt")


def test_a_long_error_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(zoo.WRONG, "raise", ValueError("x" * 100_000))
    run = begun()
    done(run, "raise")

    assert run.record.halted is not None
    assert len(run.record.halted.error) < MAX_ERROR + 100


def test_too_large_a_snapshot_halts() -> None:
    run = begun()
    run.send(Do(what="large", size=MAX_SNAPSHOT // 2))
    assert run.record.status != "halted"
    run.send(Do(what="large", size=MAX_SNAPSHOT))

    assert run.snapshot.halted is not None
    assert "the limit is 4194304" in run.snapshot.halted.error
    assert len(run.data["log"][0]) == MAX_SNAPSHOT // 2


def test_moves_without_end_halt() -> None:
    run = begun()
    done(run, "nowhere")

    assert run.snapshot.halted is not None
    assert run.snapshot.halted.error == "more than 1000 moves at once without a wait; add a state that waits"
    assert len(run.last.records) == MAX_AT_ONCE + 2
    assert run.held == []

    run.order("resume")
    assert run.snapshot.halted is not None


def test_moves_without_end_are_ended_by_cancel() -> None:
    run = begun()
    done(run, "nowhere")
    run.order("cancel")

    assert run.grave.state in ("Nowhere", "Elsewhere")


def test_a_time_that_is_always_over_halts() -> None:
    run = Run(zoo.restless)
    run.send(Began())
    run.tick()

    assert run.snapshot.halted is not None
    assert "moves at once" in run.snapshot.halted.error


def test_a_start_that_raises_halts_a_run_without_a_state() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k", amount=-1))

    assert run.snapshot.state == ""
    assert run.record.status == "halted"
    assert run.record.halted is not None
    assert run.record.halted.cause == "event Placed in start"


def test_a_start_that_answers_with_no_state_halts() -> None:
    run = Run(zoo.stateless)
    run.send(Began())

    assert run.record.halted is not None
    assert "start answered with no state" in run.record.halted.error


# While it is halted ---------------------------------------------------------------------------------------------------


def test_what_comes_for_a_halted_run_is_held_in_order_and_told() -> None:
    run = begun()
    done(run, "raise", "b")
    run.now += 3 * DAY
    done(run, "c")

    assert [h.position for h in run.held] == ["2-0", "3-0", "4-0"]
    assert run.record.ignored == "held: the run is halted"
    assert run.snapshot.held == 3
    assert run.snapshot.seq == 4
    assert "tock" not in run.data["log"]


def test_a_halted_run_starts_no_calls_again() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k"))
    run.send(Poked(text="hello"))
    run.send(Paid(amount=-1))

    assert run.stored is not None
    assert running_calls(run.stored) == []
    assert not run.last.running


def test_a_tick_does_not_move_a_halted_run() -> None:
    run = begun()
    done(run, "raise")
    before = run.stored
    run.tick(run.now + 30 * DAY)

    assert run.stored == before
    assert len(run.held) == 1


# Orders ---------------------------------------------------------------------------------------------------------------


def test_resume_folds_each_held_entry_at_its_own_time_with_the_timers_between(monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun()
    began = run.now
    run.now += DAY
    done(run, "raise")
    run.now += 2 * DAY
    done(run, "b")
    run.now += 2 * DAY
    mend(monkeypatch)
    run.order("resume")

    assert run.data["log"] == ["raise", "tock", "b", "tock"]
    assert [(r.name, (r.at - began) // DAY, r.entry) for r in run.last.records] == [
        ("resume", 5, "4-0"),
        ("Do", 1, "2-0"),
        ("Fragile.tock", 2, "3-0"),
        ("Do", 3, "3-0"),
        ("Fragile.tock", 4, "4-0"),
    ]
    assert run.held == []
    assert run.snapshot.halted is None
    assert run.last.wakes == began + 6 * DAY


def test_resume_without_a_mend_halts_again_and_holds_the_rest() -> None:
    run = begun()
    done(run, "raise", "b")
    run.order("resume")

    assert run.snapshot.halted is not None
    assert [h.position for h in run.held] == ["2-0", "3-0"]
    assert run.snapshot.held == 2
    assert run.verdicts[Position("4-0")].index == 1


def test_resume_lets_go_of_what_it_folded_before_it_halted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun()
    done(run, "raise", "b", "exit", "c")
    mend(monkeypatch)
    run.order("resume")

    assert run.data["log"] == ["raise", "b"]
    assert [h.position for h in run.held] == ["4-0", "5-0"]
    assert run.snapshot.held == 2
    assert run.last.release == 2
    mend(monkeypatch, "exit")
    run.order("resume")
    assert run.data["log"] == ["raise", "b", "exit", "c"]


def test_skip_leaves_out_the_entry_that_halted() -> None:
    run = begun()
    done(run, "raise", "b")
    run.order("skip")

    assert run.data["log"] == ["b"]
    assert [(r.name, r.ignored) for r in run.last.records] == [("skip", ""), ("Do", "left out by an order"), ("Do", "")]


def test_cancel_ends_a_halted_run_and_tells_what_it_left_out() -> None:
    run = begun()
    done(run, "raise", "b")
    run.order("cancel")

    assert [(r.name, r.ignored, r.status) for r in run.last.records] == [
        ("cancel", "", "finished"),
        ("Do", "the run was cancelled", "finished"),
        ("Do", "the run was cancelled", "finished"),
    ]
    assert run.held == []
    assert run.grave.state == "Fragile"


def test_retry_waits_for_resume_while_a_run_is_halted() -> None:
    run = begun()
    done(run, "raise")
    run.order("retry")

    assert [type(h.entry) for h in run.held] == [EventEntry, OrderEntry]


def test_a_timer_that_halts_holds_the_entry_that_brought_it(monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun()
    done(run, "break the clock")
    run.now += 2 * DAY + HOUR
    done(run, "b")

    assert run.record.halted is not None
    assert run.record.halted.cause == "timer Fragile.tock"
    assert run.record.halted.at == run.now - HOUR
    assert [h.position for h in run.held] == ["3-0"]
    run.order("resume")
    assert run.snapshot.halted is not None
    assert [h.position for h in run.held] == ["3-0"]


def test_skip_leaves_out_the_timer_that_halted_and_no_entry() -> None:
    run = begun()
    done(run, "break the clock")
    run.now += 2 * DAY + HOUR
    done(run, "b")
    run.order("skip")

    assert run.data["log"] == ["break the clock", "b"]
    assert run.last.wakes == run.now - HOUR + 2 * DAY


def test_skip_leaves_out_a_timer_that_fires_once() -> None:
    run = begun()
    done(run, "break the timer")
    run.tick(run.now + 10 * DAY)
    assert run.record.halted is not None
    assert run.held == []
    run.order("skip")

    assert [t.handler for t in run.snapshot.timers] == ["tock"]
    assert run.snapshot.halted is None


def test_a_tick_that_brought_a_broken_timer_is_not_held() -> None:
    run = begun()
    done(run, "break the clock")
    run.tick()

    assert run.record.status == "halted"
    assert run.held == []
    assert run.snapshot.held == 0


def test_a_kept_event_that_halts_does_not_take_the_entry_before_it_along() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k"))
    run.send(Shipped(parcel="bad"))
    run.send(Paid(amount=1))

    assert run.snapshot.state == "Packing"
    assert run.snapshot.halted is not None
    assert run.held == []
    assert run.snapshot.held == 0

    run.order("resume")
    assert run.snapshot.halted is not None
    assert [r.name for r in run.last.records] == ["resume", "Shipped"]


def test_skip_leaves_out_the_kept_event_that_halted() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k"))
    run.send(Shipped(parcel="bad"))
    run.send(Paid(amount=1))
    run.send(zoo.Noise())
    run.order("skip")

    assert run.snapshot.kept == ()
    assert run.snapshot.halted is None
    assert [(r.name, r.ignored) for r in run.last.records] == [
        ("skip", ""),
        ("Shipped", "left out by an order"),
        ("Noise", ""),
    ]


def test_a_halted_start_goes_on_after_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(zoo.order)
    run.send(Poked())
    run.send(Placed(order="k", amount=-1))
    run.send(Poked())
    starting = replace(zoo.order.starting, function=lambda placed: zoo.Waiting(order=placed.order))
    monkeypatch.setattr(zoo.order, "starting", starting)
    run.order("resume")

    assert run.snapshot.state == "Waiting"
    assert run.data["pokes"] == 2


def test_skipping_a_start_forgets_the_run_and_loses_no_event() -> None:
    run = Run(zoo.order)
    run.send(Poked())
    run.send(Placed(order="k", amount=-1))
    run.send(Paid(amount=1))
    run.order("skip")

    assert run.stored is None
    assert run.held == []
    assert run.record.status == "finished"
    assert [d.type for d in run.dead] == ["Poked", "Paid"]
    run.send(Placed(order="k"))
    assert run.snapshot.state == "Waiting"


def test_a_run_that_halted_after_its_end_can_be_cancelled() -> None:
    run = Run(zoo.claim)
    run.send(Began())
    ended = run.now
    call = run.call()
    entry = ResultEntry("claim", "k", call.run, call.id, 1, Raw(b"1"))
    verdict = Verdict(0, "HandlerTimeout: no answer in 2 s")
    run.stored = transition(zoo.claim, run.stored, entry, Place(3, Position("9-0"), run.now), verdict=verdict).stored
    run.now += DAY
    run.order("cancel")

    assert run.grave.ended == ended


def test_cancelling_a_run_that_halted_at_its_start_forgets_it() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k", amount=-1))
    run.order("cancel")

    assert run.stored is None
    assert run.held == []


# The verdict ----------------------------------------------------------------------------------------------------------


def test_a_fold_with_a_verdict_goes_the_way_that_was_gone_after_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun()
    before = run.stored
    done(run, "raise")
    halted = run.last
    entry = event_entry(zoo.fragile, Do(what="raise"), id="e2")
    mend(monkeypatch)
    place = Place(3, Position("2-0"), run.now)
    again = transition(zoo.fragile, before, entry, place, verdict=run.verdicts[Position("2-0")])

    assert again == halted


def test_a_verdict_can_be_put_on_a_handler_that_does_not_end() -> None:
    run = begun()
    entry = event_entry(zoo.fragile, Do(what="would never end"), id="x")
    verdict = Verdict(0, "HandlerTimeout: no answer in 2 s", "states.py:7 in do", "event Do in Fragile")
    reaction = transition(zoo.fragile, run.stored, entry, Place(3, Position("2-0"), run.now), verdict=verdict)

    assert reaction.hold
    assert reaction.records[0].halted is not None
    assert reaction.records[0].halted.error == "HandlerTimeout: no answer in 2 s"


def test_a_verdict_survives_its_codec() -> None:
    verdict = Verdict(2, "ValueError: no", "states.py:7 in do", "event Do in Fragile")

    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


# What cannot be read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"[1]", b"{}", b"\xff\xfe", b'{"t":"early"}', b'{"t":"run","v":1}']
)
def test_stored_bytes_that_cannot_be_read_halt_the_run_and_are_kept(garbage: bytes) -> None:
    run = begun()
    whole = run.stored
    run.stored = garbage
    done(run, "b")

    assert run.snapshot.broken == garbage
    assert run.record.status == "halted"
    assert run.record.halted is not None
    assert run.record.halted.cause == "snapshot"
    assert "the stored snapshot cannot be read" in run.record.halted.error
    assert len(run.held) == 1

    done(run, "c")
    run.order("resume")
    assert "still cannot be read" in run.record.ignored
    assert len(run.held) == 2

    snapshot = run.snapshot
    snapshot.broken = whole or b""
    run.stored = write_stored(snapshot)
    run.order("resume")
    assert run.data["log"] == ["b", "c"]
    assert run.held == []


def test_a_run_that_cannot_be_read_can_be_cancelled() -> None:
    run = begun()
    run.stored = b"garbage"
    done(run, "b")
    run.order("cancel")

    assert run.grave.ended == run.now


def test_a_snapshot_of_a_newer_form_halts() -> None:
    run = begun()
    snapshot = run.snapshot
    snapshot.v = FORMAT + 1
    run.stored = write_stored(snapshot)
    done(run, "b")

    assert run.record.halted is not None
    assert f"written in form {FORMAT + 1}, this code reads up to {FORMAT}" in run.record.halted.error
    assert (run.record.run, run.record.to, run.record.seq) == (snapshot.run, "Fragile", 2)
    run.order("resume")
    assert "still cannot be read" in run.record.ignored
    snapshot.v = FORMAT
    halted = run.snapshot
    halted.broken = write_stored(snapshot)
    run.stored = write_stored(halted)
    run.order("resume")
    assert run.data["log"] == ["b"]
    assert [r.seq for r in run.records] == [1, 2, 3, 4, 5]


def test_a_run_that_cannot_be_read_keeps_its_id_if_that_can() -> None:
    run = begun()
    id_ = run.snapshot.run
    run.stored = (run.stored or b"")[:-9]
    done(run, "b")

    assert run.record.run == id_


def test_a_state_that_does_not_fit_the_code_halts_and_goes_on_after_the_mend() -> None:
    run = begun()
    snapshot = run.snapshot
    whole = snapshot.data
    snapshot.data = Raw(b'{"log":3}')
    run.stored = write_stored(snapshot)
    done(run, "b")

    assert run.record.halted is not None
    assert "state Fragile as version 1 stored it does not fit this code" in run.record.halted.error

    snapshot = run.snapshot
    snapshot.data = whole
    run.stored = write_stored(snapshot)
    run.order("resume")
    assert run.data["log"] == ["b"]


def test_a_state_that_the_code_does_not_have_halts_and_can_be_cancelled() -> None:
    run = begun()
    snapshot = run.snapshot
    snapshot.state = "Gone"
    run.stored = write_stored(snapshot)
    done(run, "b")
    assert run.record.halted is not None
    assert "workflow 'fragile' version 1 has no state Gone" in run.record.halted.error
    run.order("resume")
    assert run.record.status == "halted"
    run.order("cancel")

    assert run.grave.state == "Gone"


# From one version to the next -----------------------------------------------------------------------------------------


def upgrade(run: Run, workflow: Workflow[Any]) -> None:
    run.workflow = workflow


def test_a_state_of_an_older_version_is_migrated_when_an_entry_comes() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="hello"))
    run.now += DAY
    upgrade(run, upgraded.after_it)
    run.fold(EventEntry("desk", "k", "a", "s", "Read", Raw(b"{}")))

    assert run.record.version == 2
    assert (run.record.from_, run.record.to) == ("Letter", "Message")
    assert run.data == {"words": ["hello"], "reads": 1}
    assert run.snapshot.entered == run.now - DAY


def test_a_migrated_state_has_the_timers_of_the_new_version() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="hello"))
    began = run.now
    run.now += DAY
    run.workflow = upgraded.after_it
    run.send(upgraded.Read())

    assert {t.handler: (t.due - began) // HOUR for t in run.snapshot.timers} == {
        "expire": 480,
        "nag": 32,
        "close": 216,
    }


def test_a_new_timer_that_leads_on_and_is_overdue_fires_at_once() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="hello"))
    run.now += 15 * DAY
    run.workflow = upgraded.after_it
    run.send(upgraded.Read())
    assert run.last.wakes == run.now
    run.tick()

    assert run.record.to == "Shut"
    assert run.record.name == "Message.close"


def test_work_that_the_new_version_does_not_know_is_cancelled_and_its_own_started() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="hello"))
    (old,) = run.made(StartCall)
    run.workflow = upgraded.after_it
    run.send(upgraded.Read())

    assert run.cancelled == [old.id]
    assert [c.step for c in run.made(StartCall)] == ["check_item"]


def test_a_migration_that_answers_with_what_is_no_state_halts() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="no state"))
    run.workflow = upgraded.after_it
    run.send(upgraded.Read())

    assert run.record.halted is not None
    assert "migrate['Letter'] answered with str, which is not in states=" in run.record.halted.error


def test_a_migration_that_raises_halts() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="raise"))
    run.workflow = upgraded.after_it
    run.send(upgraded.Read())

    assert run.record.halted is not None
    assert "RuntimeError: no way" in run.record.halted.error


def test_a_state_without_a_migration_is_read_as_it_is() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k"))
    newer = Workflow("order", version=2, start=zoo.place, states=[zoo.Waiting, zoo.Packing, zoo.Done, zoo.Dropped])
    timers = set(run.snapshot.timers)
    run.workflow = newer
    run.send(Poked())

    assert run.record.version == 2
    assert set(run.snapshot.timers) == timers
    assert bytes(run.record.base) != b""


def test_an_older_code_reads_what_a_newer_one_stored_if_it_can() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="hello"))
    snapshot = run.snapshot
    snapshot.version = 7
    run.stored = write_stored(snapshot)
    run.send(upgraded.Read())

    assert run.record.halted is None
    assert run.record.version == 1


def test_a_kept_event_waits_for_the_migration() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k"))
    run.send(Shipped(parcel="p"))
    snapshot = run.snapshot
    snapshot.version = 0
    run.stored = write_stored(snapshot)
    run.send(Paid(amount=1))

    assert run.record.to == "Done"


def test_a_gift_moves_through_work_over_nothing_that_halts_in_a_circle() -> None:
    run = begun()
    run.send(Gift(text="x"))
    run.order("skip")

    assert run.snapshot.works == ()
    assert run.snapshot.halted is None


def test_a_specs_groups_are_its_superstates() -> None:
    class Local(zoo.Open):
        pass

    kind: type[State] = Local
    assert state_spec(kind).groups == ("Open",)


def test_an_entry_handler_that_answers_with_a_state_halts() -> None:
    run = Run(zoo.sloppy)
    run.send(Gift(text="enter"))

    assert run.record.halted is not None
    assert "greet answered with Fine, but its annotation says Call" in run.record.halted.error


def test_inputs_that_are_too_few_halt() -> None:
    run = Run(zoo.sloppy)
    run.send(Gift(text="inputs"))

    assert run.record.halted is not None
    assert "Sloppy.lookups must give 2 inputs, one for each of fetch + patient" in run.record.halted.error
    assert run.commands == []


def test_a_superstates_timer_goes_on_behind_a_state_that_overrides_it() -> None:
    run = Run(zoo.watched)
    began = run.now
    run.send(Began())
    run.now += 2 * DAY
    run.send(Poked())

    assert [r.ignored for r in run.records if r.name == "Watched.watch"] == ["Asleep has no timer watch of Watched"] * 2
    assert run.last.wakes == began + 3 * DAY
    run.tick()
    assert run.record.ignored == ""
    assert [bytes(c.input) for c in run.made(StartCall)] == [b'"watched"']


def test_a_halted_start_whose_event_no_longer_fits_stays_halted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k", amount=-1))
    monkeypatch.setitem(zoo.order.starts_on, "Placed", zoo.Withdrawn)
    run.order("resume")

    assert run.record.halted is not None
    assert "Placed does not fit its schema: why: Field required" in run.record.halted.error
    assert len(run.held) == 1


def test_a_verdict_on_the_order_itself_leaves_the_halt_as_it_was() -> None:
    run = begun()
    done(run, "break the clock")
    run.tick()
    timer = run.snapshot.halted_timer
    entry = OrderEntry("fragile", "k", "skip", "ann")
    verdict = Verdict(0, "HandlerTimeout: no answer in 2 s")
    reaction = transition(zoo.fragile, run.stored, entry, Place(3, Position("9-0"), run.now), verdict=verdict)
    run.stored = reaction.stored

    assert run.snapshot.halted_timer == timer
    assert not reaction.hold
    assert reaction.release == 0


def test_work_of_a_renamed_state_goes_on_where_the_new_one_has_it() -> None:
    run = Run(upgraded.before)
    run.send(upgraded.Opened(text="hello"))
    (call,) = run.made(StartCall)
    run.workflow = upgraded.renamed
    run.send(upgraded.Read())

    assert run.snapshot.state == "Note"
    assert not run.cancelled
    assert not run.made(StartCall)
    run.result(call, 5)
    assert run.record.to == "Shut"
