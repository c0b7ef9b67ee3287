"""Identity, order, time and the run's end: what GUARANTEES.md promises, sentence by sentence."""

from __future__ import annotations

from msgspec import Raw

from engine.core.entry import EventEntry, OrderEntry, ResultEntry
from engine.core.fold import MAX_SEEN
from engine.core.ids import CallId, Position, RunId
from engine.core.record import CloudEvent, write_record
from engine.core.snapshot import read_stored, write_stored
from engine.core.transition import Place, Rules, StartCall, running_calls, transition
from tests.core import zoo
from tests.core.folding import DAY, HOUR, MINUTE, Run
from tests.core.zoo import Noise, Paid, Placed, Poked, Shipped, Withdrawn


def placed(**more: float) -> Run:
    run = Run(zoo.order, **more)  # type: ignore[arg-type]  # a time, a lapse
    run.send(Placed(order="k"))
    return run


# Identity and order ---------------------------------------------------------------------------------------------------


def test_a_start_event_begins_a_run_named_after_its_place() -> None:
    run, other = Run(zoo.order), Run(zoo.order)
    other.count = 5
    for one in (run, other):
        one.send(Placed(order="k"))

    assert run.snapshot.state == "Waiting"
    assert len(run.snapshot.run) == 16
    assert run.snapshot.run != other.snapshot.run
    assert run.record.from_ == ""
    assert run.record.to == "Waiting"
    assert run.record.seq == 1
    assert run.record.fields == {"order": "k"}


def test_a_repeat_of_an_event_is_dropped_and_told() -> None:
    run = placed()
    run.send(Poked(), id="a")
    run.send(Poked(), id="a")

    assert run.data["pokes"] == 1
    assert run.record.ignored == "a repeat: event 'a' of 'test' was taken before"


def test_a_repeat_of_the_start_event_is_dropped() -> None:
    run = Run(zoo.order)
    run.send(Placed(order="k"), id="a")
    run.send(Placed(order="k"), id="a")

    assert run.record.ignored.startswith("a repeat")


def test_the_same_id_of_another_source_is_another_event() -> None:
    run = placed()
    for source in ("one", "two"):
        run.fold(EventEntry("order", "k", "a", source, "Poked", Raw(b"{}")))

    assert run.data["pokes"] == 2


def test_event_ids_are_remembered_for_seven_days() -> None:
    run = placed()
    run.send(Poked(), id="a")
    run.now += 7 * DAY
    run.send(Poked(), id="a")
    assert run.data["pokes"] == 1

    run.now += 1
    run.send(Poked(), id="a")

    assert run.data["pokes"] == 2


def test_at_most_a_thousand_event_ids_are_remembered() -> None:
    run = placed()
    for number in range(MAX_SEEN + 1):
        run.send(Noise(), id=f"n{number}")

    assert len(run.snapshot.seen) == MAX_SEEN

    run.send(Noise(), id="n1")
    assert run.record.ignored.startswith("a repeat")
    run.send(Noise(), id="n0")
    assert run.record.ignored == "Waiting ignores Noise on purpose"


def test_an_event_that_a_state_does_not_know_is_ignored_and_told() -> None:
    run = placed()
    run.send(Paid(amount=1))
    run.send(Placed(order="k"))

    assert run.record.ignored == "the run has begun: Packing does not handle Placed"

    away = Run(zoo.trip)
    away.send(zoo.Booked())
    away.send(zoo.Noted(note="go"))
    away.send(zoo.Noted(note="again"))
    assert away.record.ignored == "Away does not know Noted"


def test_an_event_kept_for_later_is_taken_by_the_first_state_that_handles_it() -> None:
    run = placed()
    run.send(Shipped(parcel="p"))

    assert run.record.ignored == "kept for a later state: Waiting names Shipped in later="
    assert run.snapshot.state == "Waiting"

    run.send(Paid(amount=1))

    assert [(r.name, r.to) for r in run.records[-2:]] == [("Paid", "Packing"), ("Shipped", "Done")]


def test_a_kept_event_that_no_state_took_is_told_at_the_end() -> None:
    run = placed()
    run.send(Shipped(parcel="p"))
    run.send(Withdrawn(why="no"))

    assert run.record.ignored == "no state took this event, which had been kept"
    assert run.record.name == "Shipped"


def test_a_kept_event_that_does_not_fit_its_schema_is_a_dead_letter() -> None:
    run = placed()
    run.raw("Shipped", b'{"parcel": 7}')
    run.send(Paid(amount=1))

    assert run.snapshot.state == "Packing"
    assert run.snapshot.kept == ()
    assert "does not fit its schema: parcel" in run.dead[0].reason
    assert "dead letter" in run.record.ignored


def test_any_number_of_kept_events_is_told_at_the_end() -> None:
    run = placed()
    for number in range(1_200):
        run.send(Shipped(parcel=str(number)))
    run.send(Withdrawn(why="no"))

    assert run.record.status == "finished"
    assert len(run.last.records) == 1_201


def test_a_repeat_of_a_kept_event_is_dropped() -> None:
    run = placed()
    run.send(Shipped(parcel="p"), id="a")
    run.send(Shipped(parcel="p"), id="a")

    assert len(run.snapshot.kept) == 1


def test_an_early_event_is_held_until_its_run_begins() -> None:
    run = Run(zoo.order)
    run.send(Poked(), id="a")
    assert run.last.wakes == run.now + HOUR
    run.now += HOUR - 1
    run.send(Placed(order="k"))

    assert run.data["pokes"] == 1
    assert not run.dead


def test_a_repeat_of_an_early_event_is_dropped_before_and_after_the_start() -> None:
    run = Run(zoo.order)
    run.send(Poked(), id="a")
    run.send(Poked(), id="a")
    run.send(Placed(order="k"))
    run.send(Poked(), id="a")

    assert run.data["pokes"] == 1


def test_each_early_event_is_held_for_an_hour_of_its_own() -> None:
    run = Run(zoo.order)
    run.send(Poked(), id="a")
    run.now += 40 * MINUTE
    run.send(Poked(), id="b")
    run.tick()

    assert [d.id for d in run.dead] == ["a"]
    assert run.dead[0].reason == "no run of 'order' with this key began in time"
    assert run.dead[0].entry == "1-0"

    run.tick()
    assert [d.id for d in run.dead] == ["a", "b"]
    assert run.stored is None


def test_a_start_after_the_hour_finds_the_early_event_gone() -> None:
    run = Run(zoo.order)
    run.send(Poked(), id="a")
    run.now += HOUR
    run.send(Placed(order="k"))

    assert [d.id for d in run.dead] == ["a"]
    assert run.data["pokes"] == 0


def test_the_hour_for_early_events_is_a_setting() -> None:
    run = Run(zoo.order, rules=Rules(early_hold=5))
    run.send(Poked())

    assert run.last.wakes == run.now + 5


def test_early_events_are_bounded() -> None:
    run = Run(zoo.order)
    for number in range(1_001):
        run.send(Poked(), id=str(number))

    assert run.dead[0].reason == "1000 events already wait for this run to begin"
    assert len(run.early.events) == 1_000


def test_an_event_of_unknown_type_is_a_dead_letter_with_its_bytes() -> None:
    for run in (placed(), Run(zoo.order)):
        run.raw("Nonsense", b'{"a":1}', id="x")

        (letter,) = run.dead
        assert letter.reason == "workflow 'order' knows no event 'Nonsense'"
        assert b'"a":1' in letter.body
        assert (letter.workflow, letter.key, letter.type, letter.id) == ("order", "k", "Nonsense", "x")
        assert not run.last.records


def test_an_event_that_does_not_fit_its_schema_is_a_dead_letter() -> None:
    run = placed()
    before = run.stored
    run.raw("Paid", b'{"amount":"much"}')

    assert run.dead[0].reason.startswith("Paid does not fit its schema: amount: Input should be a valid integer")
    assert run.stored == before


def test_a_start_event_that_does_not_fit_begins_nothing_and_loses_no_early_event() -> None:
    run = Run(zoo.order)
    run.send(Poked())
    run.raw("Placed", b"{}")

    assert len(run.dead) == 1
    assert len(run.early.events) == 1
    assert run.last.wakes


def test_a_result_or_a_tick_for_nobody_changes_nothing() -> None:
    run = Run(zoo.order)
    run.fold(ResultEntry("order", "k", RunId("r"), CallId("1.0"), 1, Raw(b"1")))

    assert run.stored is None
    assert not run.last.records


def test_an_order_for_nobody_is_a_dead_letter() -> None:
    run = Run(zoo.order)
    run.order("cancel")

    assert run.dead[0].reason == "there is no run order/k to cancel"


def test_a_published_event_carries_its_cause_its_key_and_its_hops() -> None:
    run = placed()
    run.send(Withdrawn(why="no"), hops=4)

    (published,) = run.published
    record = next(r for r in run.records if r.to == "Dropped")
    envelope = published.envelope
    assert envelope.id == f"{record.run}.{record.seq}.0"
    assert (envelope.source, envelope.type, envelope.subject) == ("longwatch/order", "Sold", "k")
    assert envelope.longwatchhops == 5
    assert envelope.longwatchcause == f"{record.run}.{record.seq}"
    assert envelope.time == "1970-01-11T00:00:00.000Z"
    assert [(p.id, p.type, p.key) for p in record.published] == [(envelope.id, "Sold", "k")]
    assert b'"order":"k"' in write_record(envelope)


def test_a_run_halts_above_a_hundred_hops() -> None:
    run = Run(zoo.fragile)
    run.send(zoo.Began())
    run.send(zoo.Do(what="publish"), hops=99)
    assert run.published[-1].envelope.longwatchhops == 100

    run.send(zoo.Do(what="publish"), hops=100)

    assert run.snapshot.halted is not None
    assert "100 published events in a row" in run.snapshot.halted.error


# Time -----------------------------------------------------------------------------------------------------------------


def test_timers_fire_in_order_at_their_due_time_before_the_entry() -> None:
    run = placed()
    began = run.now
    run.now += 9 * DAY + 5
    run.send(Paid(amount=1))

    fired = [(r.name, r.at - began) for r in run.records[1:]]
    assert fired == [
        ("Waiting.remind", 3 * DAY),
        ("Waiting.remind", 6 * DAY),
        ("Open.weekly", 8 * DAY),
        ("Waiting.remind", 9 * DAY),
        ("Paid", 9 * DAY + 5),
    ]
    assert [r.index for r in run.records[1:]] == [0, 1, 2, 3, 4]
    assert run.records[1].prev == "1-0/0"
    assert run.records[2].prev == "2-0/0"


def test_a_timer_due_at_the_very_time_of_an_entry_fires_before_it() -> None:
    run = placed()
    run.now += 14 * DAY
    run.send(Paid(amount=1))

    assert "Waiting.expire" in [r.name for r in run.records]
    assert run.record.ignored == "the run is finished (Dropped)"


def test_an_every_timer_does_not_drift_when_its_tick_is_late() -> None:
    run = placed()
    began = run.now
    run.tick(began + 3 * DAY + HOUR)
    run.tick(began + 6 * DAY + 2 * HOUR)

    assert run.data["seen"] == ["reminded 14 00:00", "reminded 17 00:00"]
    assert run.last.wakes == began + 8 * DAY


def test_a_tick_that_comes_too_early_changes_nothing() -> None:
    run = placed()
    before, wakes = run.stored, run.last.wakes
    run.tick(run.now + DAY)

    assert run.stored == before
    assert not run.last.records
    assert run.last.wakes == wakes


def test_timers_of_a_state_count_from_entering_it() -> None:
    run = placed()
    run.now += 2 * DAY
    run.send(Paid(amount=1))

    assert {(t.owner, t.handler): t.due - run.now for t in run.snapshot.timers} == {
        ("Open", "overdue"): 28 * DAY,
        ("Open", "weekly"): 6 * DAY,
        ("", "lost"): 7 * DAY,
    }


def test_timers_of_a_superstate_count_from_entering_the_group() -> None:
    run = placed()
    group = run.snapshot.groups[0]
    run.now += 2 * DAY
    run.send(Paid(amount=1))

    assert run.snapshot.groups == (group,)
    assert (group.name, group.visit, group.entered) == ("Open", 1, run.now - 2 * DAY)
    assert run.snapshot.visit == 2
    assert run.snapshot.entered == run.now


def test_staying_lets_the_timers_go_on() -> None:
    run = placed()
    timers = run.snapshot.timers
    run.now += DAY
    run.send(Poked())

    assert run.snapshot.timers == timers
    assert run.snapshot.visit == 1


def test_the_last_timer_ends_the_run() -> None:
    run = placed()
    while run.stored is not None and run.last.wakes < run.now + 20 * DAY and run.record.to == "Waiting":
        run.tick()

    assert run.record.to == "Dropped"
    assert run.record.name == "Waiting.expire"
    assert run.record.at == 24 * DAY


def test_a_time_from_data_fires_then_and_only_then() -> None:
    run = Run(zoo.trip)
    leaves = run.now + 5 * DAY
    run.send(zoo.Booked(when=zoo.utc(leaves)))
    assert run.last.wakes == leaves - DAY
    run.tick()
    assert run.made(StartCall)[0].input == Raw(b'"pack your bags 15"')
    run.tick()

    assert run.snapshot.state == "Away"
    assert run.snapshot.entered == leaves


def test_a_time_from_data_is_asked_again_when_the_data_change() -> None:
    run = Run(zoo.trip)
    run.send(zoo.Booked())
    assert [t.handler for t in run.snapshot.timers] == ["forgotten"]
    run.send(zoo.Moved(when=zoo.utc(run.now + 9 * DAY)))
    assert run.last.wakes == run.now + 8 * DAY
    run.send(zoo.Moved(when=zoo.utc(run.now + 4 * DAY)))
    assert run.last.wakes == run.now + 3 * DAY
    run.send(zoo.Moved())

    assert [t.handler for t in run.snapshot.timers] == ["forgotten"]


def test_a_time_that_is_moved_into_the_past_fires_at_once_and_not_before() -> None:
    run = Run(zoo.trip)
    run.send(zoo.Booked())
    run.now += 50 * DAY
    run.send(zoo.Moved(when=zoo.utc(run.now - 20 * DAY)))

    assert run.last.wakes == run.now

    run.tick()
    assert [r.at for r in run.records[-2:]] == [run.now, run.now]
    assert run.snapshot.state == "Away"


def test_a_time_that_has_fired_does_not_fire_again_when_other_data_change() -> None:
    run = Run(zoo.trip)
    run.send(zoo.Booked(when=zoo.utc(run.now + 5 * DAY)))
    run.send(zoo.Noted(note="wait"))
    run.now += 6 * DAY
    run.send(zoo.Noted(note="more"))

    assert run.data["notes"] == ["wait", "waited", "more"]
    assert [t.handler for t in run.snapshot.timers] == ["forgotten"]
    assert [r.name for r in run.records if r.cause == "timer"] == ["Trip.eve", "Planned.departure"]


def test_a_superstates_time_that_has_fired_does_not_fire_again_in_the_next_state() -> None:
    run = Run(zoo.trip)
    run.send(zoo.Booked(when=zoo.utc(run.now + 5 * DAY)))
    run.now += 4 * DAY + HOUR
    run.send(zoo.Noted(note="go"))

    assert [t.handler for t in run.snapshot.timers] == ["back"]


def test_a_handler_sees_log_time_and_draws_the_same_numbers_again() -> None:
    run = placed()
    run.now += 90 * MINUTE
    run.send(Poked())
    run.send(Poked())

    first, second = run.data["seen"]
    assert first.startswith("01:30 k 0.")
    assert first != second


# Runs and their end ---------------------------------------------------------------------------------------------------


def test_a_finished_run_keeps_its_snapshot_until_its_last_call_is_answered() -> None:
    run = placed()
    run.send(Paid(amount=1))
    packing = run.call("tell")
    run.send(Shipped(parcel="p"))
    thanks = run.call("tell")
    assert run.record.status == "finished"
    assert [c.id for c in run.snapshot.calls] == [packing.id, thanks.id]
    run.result(packing, None)
    assert [c.id for c in run.snapshot.calls] == [thanks.id]
    run.fail(thanks)

    assert (run.grave.state, run.grave.ended, run.grave.expires) == ("Done", run.now, run.now + 7 * DAY)
    assert len(run.stored or b"") < 120


def test_what_comes_for_a_finished_run_is_told() -> None:
    run = placed()
    run.send(Withdrawn(why="no"))
    ended = run.record
    run.send(Poked())

    assert run.record.ignored == "the run is finished (Dropped)"
    assert (run.record.run, run.record.seq, run.record.prev) == (ended.run, ended.seq + 1, "2-0/0")
    assert run.record.status == "finished"


def test_a_start_event_begins_a_new_run_after_the_retention_and_not_before() -> None:
    run = placed()
    first = run.snapshot.run
    run.send(Withdrawn(why="no"))
    run.now += 7 * DAY - 1
    run.send(Placed(order="k"))
    assert run.record.ignored == "the run is finished (Dropped)"
    run.now += 1
    run.send(Placed(order="k"))

    assert run.snapshot.state == "Waiting"
    assert run.snapshot.run != first
    assert run.record.seq == 1


def test_the_tombstone_is_swept_by_a_tick_after_its_retention() -> None:
    run = placed()
    run.send(Withdrawn(why="no"))
    run.tick(run.now + DAY)
    assert run.grave.state == "Dropped"
    assert not run.last.records
    run.tick()

    assert run.stored is None


def test_a_cancelled_run_ends_with_its_calls_and_timers() -> None:
    run = placed()
    run.send(Shipped(parcel="p"))
    run.send(Paid(amount=0))
    run.send(Poked(text="hello"))
    call = run.call()
    run.order("cancel", "a mistake")

    assert run.cancelled == [call.id]
    record = next(r for r in run.records if r.cause == "order")
    assert (record.who, record.why, record.name, record.status) == ("ann", "a mistake", "cancel", "finished")
    assert run.record.ignored == "no state took this event, which had been kept"
    assert run.grave.state == "Waiting"


def test_cancelling_a_run_that_has_ended_is_ignored() -> None:
    run = placed()
    run.send(Paid(amount=1))
    run.send(Shipped(parcel="p"))
    run.order("cancel")

    assert run.record.ignored == "the run is finished (Done)"


def test_resuming_a_run_that_goes_is_ignored() -> None:
    run = placed()
    run.order("resume")

    assert run.record.ignored == "the run is not halted"


# Forms ----------------------------------------------------------------------------------------------------------------


def test_what_is_stored_is_canonical() -> None:
    run = placed()
    for event in (Poked(), Poked(text="x"), Shipped(parcel="p"), Paid(amount=1)):
        run.send(event)
        assert run.stored is not None
        assert write_stored(read_stored(run.stored)) == run.stored

    early = Run(zoo.order)
    early.send(Poked())
    assert early.stored is not None
    assert write_stored(early.early) == early.stored


def test_a_record_carries_the_digest_of_the_code_and_of_what_was_left() -> None:
    run = placed()

    assert run.record.code == zoo.order.code
    assert len(run.record.snapshot) == 16
    assert bytes(run.record.base) == b""


def test_the_first_record_under_new_code_carries_the_snapshot_that_it_began_from() -> None:
    run = placed()
    snapshot = run.snapshot
    snapshot.code = "other"
    run.stored = before = write_stored(snapshot)
    run.send(Poked())

    assert bytes(run.record.base) == before

    run.send(Poked())
    assert bytes(run.record.base) == b""


def test_calls_in_flight_are_found_again_in_what_is_stored() -> None:
    run = Run(zoo.work)
    run.send(zoo.Asked())

    assert run.stored is not None
    assert running_calls(run.stored) == run.made(StartCall)
    assert run.last.running


def test_a_finished_run_has_no_calls_in_flight() -> None:
    run = Run(zoo.work)
    run.send(zoo.Asked())
    run.order("cancel")

    assert run.stored is not None
    assert running_calls(run.stored) == []


def test_a_run_of_another_partition_is_another_run() -> None:
    entry = EventEntry("order", "k", "a", "s", "Placed", Raw(b'{"order":"k"}'))
    one, two = (transition(zoo.order, None, entry, Place(p, Position("1-0"), 5)) for p in (1, 2))

    assert one.records[0].run != two.records[0].run


def test_an_order_tells_who_and_why() -> None:
    run = placed()
    run.fold(OrderEntry("order", "k", "retry", "bob", "the mail server is back"))

    assert (run.record.who, run.record.why) == ("bob", "the mail server is back")
    assert run.record.ignored == "no call of this run waits for another attempt"


def test_an_envelope_with_defaults_is_short() -> None:
    assert write_record(CloudEvent(id="a", source="s", type="T")) == b'{"id":"a","source":"s","type":"T"}'
