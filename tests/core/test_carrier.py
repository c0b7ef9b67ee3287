"""What of a trace comes with an event, and what of it a run hands on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from engine import Application, EventRefused, client
from engine.carrier import carried
from engine.cli import send
from engine.core.record import CloudEvent
from engine.core.trace import parse_traceparent
from engine.intake import carrying, entries, envelope_of, read, read_envelope
from tests.core.machine import Go, machine

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
application = Application(workflows=[machine])


def event(**attributes: Any) -> bytes:
    plain = {"specversion": "1.0", "id": "1", "source": "test", "type": "Go", "data": {"key": "k", "script": [1]}}
    return msgspec.json.encode(plain | {name.replace("_", "-"): value for name, value in attributes.items()})


def test_an_entry_takes_over_the_trace_of_its_event() -> None:
    (entry,) = read(event(traceparent=PARENT, tracestate="a=1,b=2", baggage="who=ann;p=1,x=%20"), application)

    assert (entry.traceparent, entry.tracestate, entry.baggage) == (PARENT, "a=1,b=2", "who=ann;p=1,x=%20")


@pytest.mark.parametrize("name", ["uber_trace_id", "ubertraceid", "Uber_Trace_Id"])
def test_an_old_jaeger_header_is_understood(name: str) -> None:
    (entry,) = read(event(**{name: f"{TRACE}:{SPAN}:0:1"}), application)

    assert entry.traceparent == PARENT


def test_a_traceparent_goes_before_a_jaeger_header() -> None:
    (entry,) = read(event(traceparent=PARENT, ubertraceid="1:2:0:1"), application)

    assert entry.traceparent == PARENT


@pytest.mark.parametrize(
    ("broken", "taken"),
    [
        ("rubbish", "rubbish"),
        ("x" * 300, "x" * 256),
        ("", ""),
        (None, ""),
        (17, "17"),
        ({"trace": 1}, '{"trace":1}'),
        (f"  {PARENT} ", PARENT),
        ("00-\u0663\U0001f600", "00-\u0663\U0001f600"),
    ],
)
def test_nothing_about_a_trace_refuses_an_event(broken: Any, taken: str) -> None:
    (entry,) = read(event(traceparent=broken), application)

    assert entry.traceparent == taken
    read(event(tracestate=broken, baggage=broken, uber_trace_id=broken), application)


def test_a_broken_jaeger_header_is_kept_as_text() -> None:
    (entry,) = read(event(ubertraceid="0:0:0:1"), application)

    assert entry.traceparent == "0:0:0:1"


def test_lists_that_are_too_long_lose_their_last_members() -> None:
    found = carried({"tracestate": ",".join(f"k{n}=v" for n in range(200)), "baggage": "a=" + "x" * 9000})

    assert len(found.tracestate) <= 512
    assert found.tracestate.startswith("k0=v,k1=v")
    assert found.tracestate.endswith("=v")
    assert found.baggage == ""
    assert carried({"baggage": "a=" + "x" * 8190}).baggage.endswith("x")


def test_headers_may_be_written_in_any_case() -> None:
    assert carried({"TraceParent": PARENT, "Baggage": "a=1", "Host": "x"}) == (PARENT, "", "a=1")


def test_headers_stand_in_for_a_trace_that_an_event_does_not_name() -> None:
    named = read_envelope(event(traceparent=PARENT, baggage="own=1"))
    other = carried({"traceparent": f"00-{'a' * 32}-{SPAN}-01", "baggage": "other=1"})
    filled = carrying(envelope_of(Go(key="k", script=(1,))), other)

    assert carrying(named, other) is named
    assert [(e.traceparent, e.baggage) for e in entries(filled, application)] == [(other.traceparent, "other=1")]


def test_baggage_survives_being_written_and_read() -> None:
    envelope = CloudEvent(id="1", source="s", type="Go", baggage="a=1", tracestate="b=2", traceparent=PARENT)
    again = client._envelope(envelope, "")

    assert (again.baggage, again.tracestate, again.traceparent) == ("a=1", "b=2", PARENT)


def test_an_event_that_is_wrong_otherwise_is_refused_as_before() -> None:
    with pytest.raises(EventRefused, match="specversion"):
        read(event(traceparent="rubbish", specversion="2.0"), application)


@pytest.mark.parametrize(("bits", "carrier"), [(64, "text_map"), (128, "text_map"), (128, "http_headers")])
def test_the_real_jaeger_client_hands_over_its_trace(bits: int, carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jaeger_client: Any = import_module("jaeger_client")
    monkeypatch.setattr("jaeger_client.tracer.local_ip", lambda: "127.0.0.1")  # it leaves sockets open
    reporter = import_module("jaeger_client.reporter").NullReporter()
    sampler = jaeger_client.ConstSampler(decision=True)
    tracer = jaeger_client.Tracer("shop", reporter, sampler, generate_128bit_trace_id=bits == 128)
    with tracer.start_span("file claim") as span:
        headers: dict[str, str] = {}
        tracer.inject(span.context, carrier, headers)
        (by_header,) = read(event(**headers), application)
        (entry,) = entries(carrying(envelope_of(Go(key="k", script=(1,))), carried(headers)), application)
        context: Any = span.context

        assert parse_traceparent(entry.traceparent) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
        assert entry.traceparent.endswith("-01")
        assert by_header.traceparent == entry.traceparent


def test_a_client_hands_over_the_headers_of_a_tracer(tmp_path: Path) -> None:
    one = client.Client(application, data=tmp_path)
    headers = {"TraceParent": PARENT, "baggage": "a=1"}
    (entry,) = one.check(Go(key="k", script=(1,)), headers=headers)
    (named,) = one.check(event(traceparent="00-own"), headers=headers)

    assert (entry.traceparent, entry.baggage) == (PARENT, "a=1")
    assert (named.traceparent, named.baggage) == ("00-own", "")


def test_the_command_line_takes_headers() -> None:
    assert send._headers([f"TraceParent: {PARENT}", "baggage:a=1"]) == {"traceparent": PARENT, "baggage": "a=1"}
    with pytest.raises(typer.BadParameter, match="'host' is no header of a trace"):
        send._headers(["Host: x"])
