"""Spans of real runs, made in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings

from engine import Application
from engine.core.entry import Used
from engine.core.ids import RunId
from engine.core.record import Record, read_record
from engine.core.trace import from_uber
from engine.log.protocol import Header
from engine.testing import Simulation, Simulations
from observability.projection import Projection
from observability.span import CLIENT, CONSUMER, ERROR, PRODUCER, Span
from tests.core.engine_model import Engine
from tests.core.test_properties import actions, play, scripts
from tests.core.zoo import Asked, Noise, Paid, Placed, Shipped, Withdrawn, fetch, order, patient, tell, work
from tests.observability.drawn import RECORDS
from tests.observability.traces import HEADER, PROJECTION, Traces, disordered, gather, only, orphans, tree
from tests.testing.office import ROME, Approved, TripWanted, book, customer, trip

SCHEDULES = int(os.environ.get("LONGWATCH_SCHEDULES", "200"))
OURS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def of(*runs: Simulation[Any]) -> Traces:
    return gather(record for run in runs for record in run.records)


def roots(traces: Traces) -> list[Span]:
    """The first spans of episodes and runs, in the order in which they were made."""
    return [s for s in traces.values() if not s.parent]


def told(run: Simulation[Any], **changes: Any) -> Traces:
    """The spans, had the first record been another one."""
    first = run.records[0]
    assert first.episode is not None
    episode = msgspec.structs.replace(first.episode, **changes)
    return gather(msgspec.structs.replace(r, episode=episode) if r.episode == first.episode else r for r in run.records)


@pytest.fixture
def shop() -> Simulation[Placed]:
    run = Simulation(order)
    run.fake(tell, lambda text: None)
    return run


# -- whole runs --------------------------------------------------------------------------------------------------------


def test_a_run_is_a_trace_of_visits_and_each_event_one_of_its_own(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))
    shop.advance(days=2)
    shop.send(Shipped(parcel="p"))
    traces = of(shop)
    first, second, third, whole = (
        span.trace for span in sorted(roots(traces), key=lambda s: (s.name[0] == "i", s.start_ns))
    )

    assert tree(traces, first) == ["process Placed", "  transition start -> Waiting"]
    assert tree(traces, second) == ["process Paid", "  transition Waiting -> Packing", "  tell"]
    assert tree(traces, third) == ["process Shipped", "  transition Packing -> Done", "  tell"]
    assert tree(traces, whole)[0] == "invoke_workflow order"
    assert orphans(traces) == disordered(traces) == []
    assert only(traces, "visit Packing").end_ns - only(traces, "visit Packing").start_ns >= 2 * 86_400 * 10**9


def test_every_span_tells_whose_it_is(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))

    for span in of(shop).values():
        assert span.named["workflow.name"] == "order"
        assert span.named["workflow.key"] == "o1"
        assert span.named["workflow.run_id"] == shop.records[0].run
        assert {"workflow.version", "workflow.seq", "workflow.state"} <= set(span.named)
    assert only(of(shop), "transition Waiting -> Packing").named["workflow.field.order"] == "o1"
    assert only(of(shop), "transition Waiting -> Packing").named["event.type"] == "Paid"


def test_a_run_that_waits_says_for_what_and_until_when(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    (stay,) = (s for s in of(shop).values() if s.name == "waits in Waiting")

    waits = stay.named["workflow.waits_for"]
    assert isinstance(waits, tuple)
    assert "timer Waiting.expire at 2026-01-19T09:00:00.000Z" in waits
    assert stay.named["workflow.waits_until"] == "2026-01-08T09:00:00.000Z"
    assert stay.end_ns == stay.start_ns + 1
    assert stay.links[0].reason == "episode"
    assert stay.named["workflow.link.episode"] == f"{stay.links[0].trace}/{stay.links[0].id}"


def test_a_timer_is_an_episode_of_its_own(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.advance(days=14)
    traces = of(shop)

    root = only(traces, "timer Waiting.expire")
    assert tree(traces, root.trace) == ["timer Waiting.expire", "  transition Waiting -> Dropped"]
    assert only(traces, "invoke_workflow order").named["workflow.outcome"] == "Dropped"
    assert orphans(traces) == []


def test_retries_of_a_short_while_are_one_trace() -> None:
    run = Simulation(work)
    run.fake(patient, lambda name: 4)
    failures = [OSError("no"), OSError("no")]

    def at_last(name: str) -> int:
        if failures:
            raise failures.pop()
        return 3

    run.fake(fetch, at_last)
    run.send(Asked())
    run.advance(minutes=1)
    traces = of(run)
    attempts = [s for s in traces.values() if s.named.get("workflow.step") == "fetch"]

    assert [(s.named["workflow.attempt"], s.status == ERROR) for s in attempts] == [(1, True), (2, True), (3, False)]
    assert attempts[0].named["error.type"] == "OSError"
    assert {s.trace for s in attempts} == {only(traces, "process Asked").trace}
    assert orphans(traces) == []


def test_an_episode_is_linked_to_its_run(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    root = only(of(shop), "process Placed")

    assert [link.reason for link in root.links] == ["run"]
    assert root.named["workflow.link.run"] == f"{root.links[0].trace}/{root.links[0].id}"


def test_a_halt_is_an_error_of_its_episode_and_of_the_place_where_the_run_waits(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=-1))
    shop.order("resume")
    shop.order("skip")
    shop.send(Paid(amount=5))
    traces = of(shop)
    halted = [s for s in traces.values() if s.status == ERROR and s.name == "process Paid"]

    assert [s.message for s in halted] == ["ValueError: a negative amount"] * 2
    assert halted[0].named["workflow.halted"] == "event Paid in Waiting"
    assert {"halted in Waiting", "order resume", "order skip"} <= {s.name for s in traces.values()}
    assert gather(shop.records) == traces


def test_a_cancelled_run_is_whole(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.order("cancel", why="a test")
    traces = of(shop)

    assert orphans(traces) == []
    assert only(traces, "invoke_workflow order").named["workflow.outcome"] == "cancelled"
    assert only(traces, "order cancel").named["workflow.why"] == "a test"
    assert only(traces, "visit Waiting").named["workflow.left_by"] == "order cancel"


def test_what_is_ignored_says_why(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Noise())

    assert only(of(shop), "process Noise").named["workflow.ignored"] == "Waiting ignores Noise on purpose"


def test_a_late_event_of_a_finished_run_is_told(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Withdrawn(why="no"))
    shop.send(Paid(amount=1))
    traces = of(shop)

    assert only(traces, "process Paid").named["workflow.ignored"] == "the run is finished (Dropped)"
    assert orphans(traces) == []


def test_superstates_are_left_with_the_run(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Withdrawn(why="no"))
    traces = of(shop)
    whole, outer, inner = (only(traces, name) for name in ("invoke_workflow order", "visit Open", "visit Waiting"))

    assert (inner.parent, outer.parent) == (outer.id, whole.id)


def test_a_state_that_is_left_stays_in_its_superstate(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))
    shop.send(Withdrawn(why="no"))
    traces = of(shop)
    outer, first, second = (only(traces, f"visit {name}") for name in ("Open", "Waiting", "Packing"))

    assert first.parent == second.parent == outer.id


def test_a_published_event_is_a_producer(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Withdrawn(why="no"))
    span = only(of(shop), "publish Sold")

    assert span.kind == PRODUCER
    assert span.named["messaging.message.id"] == shop.records[-1].published[0].id


# -- several runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def office() -> Simulations:
    office = Simulations(Application(workflows=[trip, customer]))
    office.fake(book, lambda wish: ["all"])
    return office


def spans_of(office: Simulations) -> Traces:
    return gather(record for run in office.runs for record in run.records)


def test_a_published_event_goes_on_with_the_trace(office: Simulations) -> None:
    office.send(ROME)
    office.run(trip, ROME.trip).answer(Approved(), who="bo")
    traces = spans_of(office)
    publish, process = only(traces, "publish TripBooked"), only(traces, "process TripBooked")

    assert (process.trace, process.parent, process.kind) == (publish.trace, publish.id, CONSUMER)
    assert process.named["workflow.name"] == "customer"


def test_a_question_and_its_answer_are_one_trace(office: Simulations) -> None:
    office.send(ROME)
    office.run(trip, ROME.trip).answer(Approved(), who="bo")
    office.send(TripWanted(trip="nice", customer=ROME.customer))
    traces = spans_of(office)
    wanted = [s for s in traces.values() if s.name == "process TripsAsked"]

    (asked,) = wanted
    lines = tree(traces, asked.trace)
    assert lines[0] == "process TripWanted"
    assert sorted(lines) == sorted(
        [
            "process TripWanted",
            "  transition start -> Looking",
            "  ask TripsAsked",
            "    process TripsAsked",
            "    result ask TripsAsked",
            "      transition Looking -> Deciding",
        ]
    )


# -- where an event comes from -----------------------------------------------------------------------------------------


def test_an_event_from_outside_is_linked_to_what_sent_it(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    root = only(told(shop, traceparent=OURS), "process Placed")

    assert root.trace != "4bf92f3577b34da6a3ce929d0e0e4736"
    assert root.parent == ""
    assert next((link.trace, link.id, link.reason) for link in root.links) == (*OURS.split("-")[1:3], "producer")
    assert root.named["workflow.link.producer"] == "4bf92f3577b34da6a3ce929d0e0e4736/00f067aa0ba902b7"


def test_an_old_jaeger_client_is_linked_to_as_well(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    uber = "4bf92f3577b34da6a3ce929d0e0e4736:f067aa0ba902b7:0:1"
    root = only(told(shop, traceparent=from_uber(uber)), "process Placed")

    assert (root.links[0].trace, root.links[0].id) == tuple(OURS.split("-")[1:3])


@pytest.mark.parametrize("text", ["rubbish", "00-0-0-01", f"{OURS}-more", "ff" + OURS[2:]])
def test_a_broken_traceparent_is_kept_as_it_came(shop: Simulation[Placed], text: str) -> None:
    shop.send(Placed(order="o1"))
    root = only(told(shop, traceparent=text), "process Placed")

    assert root.named["workflow.traceparent"] == text
    assert [link.reason for link in root.links] == ["run"]


# -- agents ------------------------------------------------------------------------------------------------------------


def test_an_agent_of_ten_turns_is_told_turn_by_turn() -> None:
    pytest.importorskip("pydantic_ai")
    from tests.testing.survey import YES, Place, Reported, Weather, damage, weather_on  # noqa: PLC0415 - an extra

    run: Simulation[Any] = Simulation(damage)
    run.fake(weather_on, lambda place: Weather(rain_mm=len(place.town)))
    run.fake_model("assessor", answers=[*([weather_on.call(Place(town="bonn"))] * 9), YES])
    run.send(Reported(town="bonn"))
    traces = of(run)
    chats = [s for s in traces.values() if s.name.startswith("chat ")]
    tools = [s for s in traces.values() if s.name == "execute_tool weather_on"]
    (attempt,) = (s for s in traces.values() if s.name == "invoke_agent assess")

    assert (len(chats), len(tools)) == (10, 9)
    assert {s.parent for s in (*chats, *tools)} == {attempt.id}
    assert {s.kind for s in chats} == {CLIENT}
    assert chats[0].named["gen_ai.operation.name"] == "chat"
    assert chats[0].named["gen_ai.usage.input_tokens"] == run.records[1].used.input  # type: ignore[union-attr]
    assert tools[0].named["gen_ai.tool.name"] == "weather_on"
    assert orphans(traces) == []


def content_of(record: Record, raw: bytes, name: str) -> object:
    """What the span of this name says of a record's content."""
    spans = PROJECTION.spans(msgspec.structs.replace(record, content=msgspec.Raw(raw)))
    (found,) = {value for span in spans for key, value in span.attributes if key == name}
    return found


def test_content_is_told_where_the_record_has_it(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))
    first, second = shop.records[0], shop.records[-1]

    assert content_of(first, b'{"order":"o1"}', "event.data") == '{"order":"o1"}'
    assert content_of(second, b'"a receipt"', "workflow.content") == '"a receipt"'
    assert not any("event.data" in span.named for span in of(shop).values())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"part_kind": "text", "content": "hi"}, {"type": "text", "content": "hi"}),
        (
            {"part_kind": "tool-call", "tool_name": "look", "args": {"a": 1}, "tool_call_id": "c1"},
            {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"a": 1}},
        ),
        ({"part_kind": "thinking", "content": "well"}, {"type": "reasoning", "content": "well"}),
    ],
)
def test_what_a_model_said_is_told_in_the_words_of_the_conventions(
    shop: Simulation[Placed], part: dict[str, Any], said: dict[str, Any]
) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))
    kept = msgspec.structs.replace(shop.records[-1], cause="kept", kind="model", used=Used("m"), inner="turn 1")
    raw = json.dumps({"used": {}, "response": {"parts": [part]}}).encode()

    told = json.loads(str(content_of(kept, raw, "gen_ai.output.messages")))
    assert told == [{"role": "assistant", "parts": [said], "finish_reason": "stop"}]
    assert content_of(kept, b'"***"', "gen_ai.output.messages") == '"***"'


# -- time --------------------------------------------------------------------------------------------------------------


def timed(record: Record, *, started: int, took: int, lapse: float) -> Span:
    """The span of an attempt that was measured so."""
    clock = Header("lapsed", 1, HEADER.origin, lapse)
    return next(
        s
        for s in Projection(clock).spans(msgspec.structs.replace(record, started=started, took=took))
        if s.name == "tell"
    )


def test_an_attempt_stands_in_log_time_and_says_its_wall_time(shop: Simulation[Placed]) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))
    record = msgspec.structs.replace(shop.records[-1], at=HEADER.origin + 3_600_000)
    assert record.episode is not None
    record = msgspec.structs.replace(record, episode=msgspec.structs.replace(record.episode, at=HEADER.origin))

    span = timed(record, started=HEADER.origin + 1000, took=500_000, lapse=60.0)
    assert span.start_ns == (HEADER.origin + 60_000) * 1_000_000
    assert span.end_ns - span.start_ns == 30 * 10**9
    assert span.named["workflow.took_ms"] == 500.0


@pytest.mark.parametrize("started", [1, HEADER.origin * 2])
def test_a_clock_that_is_wrong_moves_no_span_out_of_its_episode(shop: Simulation[Placed], started: int) -> None:
    shop.send(Placed(order="o1"))
    shop.send(Paid(amount=5))
    traces = gather(shop.records[:2])
    span = timed(shop.records[-1], started=started, took=10**9, lapse=1.0)
    root = next(s for s in gather(shop.records).values() if s.name == "process Paid")

    assert root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns
    assert traces


# -- anything ----------------------------------------------------------------------------------------------------------


@given(RECORDS)
@settings(max_examples=200)
def test_no_record_is_too_strange(record: Record) -> None:
    spans = PROJECTION.spans(record)

    assert all(len(s.trace) == 32 and len(s.id) == 16 and s.end_ns >= 0 for s in spans)
    assert all(span in PROJECTION.spans(record) for span in spans)


def records_of(engine: Engine) -> list[Record]:
    """The journal of an engine in memory."""
    records = []
    for raw in engine.outputs.values():
        try:
            records.append(read_record(raw))
        except msgspec.DecodeError:
            continue  # an event, or a dead letter
    return records


def over(records: Iterable[Record]) -> set[RunId]:
    """Runs that are finished, nothing of them going on any more."""
    whole = {r.run for r in records if r.began}
    going = {(r.run, r.episode.seq) for r in records if r.episode} - {
        (r.run, r.episode.seq) for r in records if r.episode and r.ends
    }
    return whole - {run for run, _ in going}


@given(scripts, actions)
@example([15], [(0, 0), (21, 108), (25, 34)])
@settings(max_examples=SCHEDULES, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_schedule_makes_whole_traces(script: list[int], schedule: list[tuple[int, int]]) -> None:
    records = records_of(play(script, schedule))
    traces = gather(records)
    done = over(records)

    assert [span for span in orphans(traces) if span.named["workflow.run_id"] in done] == []
    assert disordered(traces) == []
