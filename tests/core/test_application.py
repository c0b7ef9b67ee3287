"""Events on their way in: envelopes checked, keys found, one entry for each workflow that takes them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from msgspec import Raw

from engine import Application, Event, EventRefused, Workflow
from engine.core.entry import EventEntry
from engine.core.errors import HandlerFailed
from engine.core.model import key_of
from engine.core.record import CloudEvent
from tests.core import zoo
from tests.core.broken import Over

app = Application(workflows=[zoo.order, zoo.work])


def envelope(type: str, data: bytes, **more: Any) -> CloudEvent:
    return CloudEvent(id="a", source="/shop", type=type, data=Raw(data), **more)


def entries(type: str, data: bytes, **more: Any) -> list[EventEntry]:
    cloud = envelope(type, data, **more)
    return app.entries(app.read_event(cloud), cloud)


def test_the_key_of_an_event_is_found_in_its_data() -> None:
    (entry,) = entries("Placed", b'{"order":"4711"}', traceparent="00-1-2-01", tracestate="x", longwatchhops=2)

    assert (entry.workflow, entry.key, entry.id, entry.source, entry.type) == ("order", "4711", "a", "/shop", "Placed")
    assert (entry.traceparent, entry.tracestate, entry.hops) == ("00-1-2-01", "x", 2)
    assert bytes(entry.data) == b'{"order":"4711"}'


def test_an_answer_says_whose_it_is_and_to_which_visit() -> None:
    (entry,) = entries("Placed", b'{"order":"4711"}', longwatchwho="ann", longwatchvisit=3)

    assert (entry.who, entry.visit) == ("ann", 3)


def test_the_key_of_an_event_without_a_field_is_its_subject() -> None:
    assert [e.key for e in entries("Paid", b'{"amount":1}', subject="4711")] == ["4711"]


def test_an_event_without_a_key_is_refused() -> None:
    with pytest.raises(EventRefused, match="subject: Paid has no key for 'order'; name the run in 'subject'"):
        entries("Paid", b'{"amount":1}')
    with pytest.raises(EventRefused, match=r"data.order: Placed has no key for 'order'"):
        entries("Placed", b'{"order":""}')


def test_a_subject_that_says_something_else_is_refused() -> None:
    with pytest.raises(EventRefused) as refused:
        entries("Placed", b'{"order":"4711"}', subject="4712")

    assert refused.value.field == "subject"
    assert refused.value.reason == "is '4712', but order says '4711'; leave subject out, or make them agree"
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_an_event_that_nobody_takes_is_refused() -> None:
    with pytest.raises(EventRefused, match="no workflow takes 'Nothing'; this application knows Asked, Noise, "):
        app.read_event(envelope("Nothing", b"{}"))
    with pytest.raises(EventRefused, match="no workflow takes 'Booked'"):
        app.entries(zoo.Booked(), envelope("Booked", b"{}"))


def test_an_event_that_does_not_fit_is_refused_with_its_field() -> None:
    with pytest.raises(EventRefused) as refused:
        app.read_event(envelope("Paid", b'{"amount":"much"}'))

    assert refused.value.field == "data.amount"
    assert refused.value.reason.startswith("Input should be a valid integer")


def test_one_event_goes_to_every_workflow_that_takes_it_by_its_own_key() -> None:
    def follow(placed: zoo.Placed) -> Over:
        return Over()

    other = Workflow("other", start=follow, states=[Over], on_key={zoo.Placed: "order"})
    both = Application(workflows=[zoo.order, other])
    cloud = envelope("Placed", b'{"order":"4711"}')

    assert [(e.workflow, e.key) for e in both.entries(both.read_event(cloud), cloud)] == [
        ("order", "4711"),
        ("other", "4711"),
    ]


def test_an_event_without_a_key_has_an_empty_one() -> None:
    class Bare(Event):
        pass

    assert key_of(Bare(), "") == ""


def test_a_failure_of_a_handler_survives_pickling() -> None:
    failed = HandlerFailed(2, "ValueError: no", "states.py:7 in do", "event Do in Fragile")

    assert str(pickle.loads(pickle.dumps(failed))) == "event Do in Fragile: ValueError: no (states.py:7 in do)"
