"""One batch against a collector that misbehaves: what gets there, what is counted, what is said."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observability import delivery
from observability.delivery import Delivery, Pace, Tally
from observability.sender import Collector, Verdict, open_sender, read_headers
from tests.observability.collector import (
    Reply,
    Store,
    a_span,
    envelope,
    grpc_collector,
    http_collector,
    rejecting,
)

SPANS = [a_span(number) for number in range(1, 41)]
NAMES = {f"span {number}" for number in range(1, 41)}
QUICK = Pace(first=0.001, longest=0.01, tries=3)


class Bench:
    """A collector, a sender and a delivery."""

    def __init__(self, stack: ExitStack, protocol: str, **options: object) -> None:
        self.store = Store()
        start = grpc_collector if protocol == "grpc" else http_collector
        self.url = stack.enter_context(start(self.store))
        self.tally, self.stopping = Tally(), threading.Event()
        self.collector = Collector(**{"url": self.url, "protocol": protocol, "timeout": 5.0, **options})  # type: ignore[arg-type]
        self.sender = open_sender(self.collector)
        stack.callback(self.sender.close)
        self.delivery = Delivery(self.sender, envelope, self.tally, self.stopping, QUICK, self.collector.shown)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["http/protobuf", "grpc"])
def bench(request: pytest.FixtureRequest, stack: ExitStack) -> Bench:
    return Bench(stack, request.param)


@pytest.fixture
def http(stack: ExitStack) -> Bench:
    return Bench(stack, "http/protobuf")


def at_first(count: int, reply: Reply) -> Callable[[list[Span]], Reply | None]:
    left = [count]

    def behave(_spans: list[Span]) -> Reply | None:
        left[0] -= 1
        return reply if left[0] >= 0 else None

    return behave


def refusing(*names: str, reply: Reply) -> Callable[[list[Span]], Reply | None]:
    return lambda spans: reply if {span.name for span in spans} & set(names) else None


def test_a_batch_gets_there_in_one_request(bench: Bench) -> None:
    assert bench.delivery.deliver(SPANS)

    assert bench.store.names == NAMES
    assert bench.store.requests == [40]
    assert bench.tally == Tally(sent=40)


def test_requests_go_over_one_connection_with_the_headers_that_were_asked_for(stack: ExitStack) -> None:
    bench = Bench(stack, "http/protobuf", headers=(("x-key", "s3cret"),), gzip=True)

    bench.delivery.deliver(SPANS)
    bench.delivery.deliver(SPANS)

    headers = bench.store.headers[1]
    assert headers["path"] == "/v1/traces"
    assert headers["x-key"] == "s3cret"
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["user-agent"].startswith("Longwatch/")
    assert all(len(bodies) == 2 for bodies in bench.store.bodies.values())


def test_grpc_takes_headers_and_compression_too(stack: ExitStack) -> None:
    bench = Bench(stack, "grpc", headers=(("x-key", "s3cret"),), gzip=True)

    assert bench.delivery.deliver(SPANS)
    assert bench.store.headers[0]["x-key"] == "s3cret"
    assert bench.store.names == NAMES


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=429, headers={"retry-after": "0"}),
        Reply(status=500, body=b"no disk"),
        Reply(status=502),
        Reply(status=503, headers={"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        Reply(status=504, headers={"retry-after": "soon"}),
        Reply(cut=True),
        Reply(cut=True, takes=True),
        Reply(status=401),
        Reply(status=403),
        Reply(status=404),
        Reply(status=302, headers={"location": "http://127.0.0.1:1/"}),
    ],
    ids=lambda reply: f"{reply.status}{' cut' * reply.cut}{' taken' * reply.takes}",
)
def test_a_collector_that_does_not_take_it_now_is_waited_for(http: Bench, reply: Reply) -> None:
    http.store.behave = at_first(2, reply)

    assert http.delivery.deliver(SPANS)

    assert http.store.names == NAMES
    assert http.store.differing == []
    assert http.tally.sent == 40
    assert http.tally.refused == 0
    assert http.tally.failures.total() == 2
    assert http.tally.trouble == ""


@pytest.mark.parametrize(
    "code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAUTHENTICATED", "UNIMPLEMENTED"]
)
def test_a_grpc_collector_that_does_not_take_it_now_is_waited_for(stack: ExitStack, code: str) -> None:
    bench = Bench(stack, "grpc")
    bench.store.behave = at_first(2, Reply(code=code))

    assert bench.delivery.deliver(SPANS)

    assert bench.tally.sent == 40
    assert bench.tally.refused == 0
    assert bench.tally.failures == {f"grpc {code.lower()}": 2}


def test_as_long_as_a_collector_asks_for_it_is_left_in_peace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(bench.stopping, "wait", waits.append)
    kind = b"type.googleapis.com/google.rpc.RetryInfo"
    detail = b"\x0a" + bytes([len(kind)]) + kind + b"\x12\x04\x0a\x02\x08\x07"  # an Any: 7 s
    details = b"\x08\x0e\x1a" + bytes([len(detail)]) + detail
    bench.store.behave = at_first(
        1,
        Reply(
            status=503,
            headers={"retry-after": "7"},
            code="UNAVAILABLE",
            metadata=(("grpc-status-details-bin", details),),
        ),
    )

    assert bench.delivery.deliver(SPANS)
    assert waits == [7.0]


def test_waits_grow_to_a_bound_and_differ(http: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    http.delivery._pace = Pace()
    monkeypatch.setattr(http.stopping, "wait", waits.append)
    http.store.behave = at_first(20, Reply(status=503))

    http.delivery.deliver(SPANS)

    assert all(0.5 * min(0.2 * 2**n, 30) <= wait <= min(0.2 * 2**n, 30) for n, wait in enumerate(waits))
    assert len(set(waits)) == 20


def test_a_collector_that_is_down_is_waited_for_until_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store, tally = Store(), Tally()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    collector = Collector(f"http://ann:pa55word@127.0.0.1:{port}/v1/traces?key=k3y9")
    sender = open_sender(collector)
    delivering = Delivery(sender, envelope, tally, threading.Event(), QUICK, collector.shown)
    thread = threading.Thread(target=delivering.deliver, args=(SPANS,))
    thread.start()
    while tally.failures["connection refused"] < 3:
        time.sleep(0.001)
    with http_collector(store, port):
        thread.join()
    sender.close()

    assert store.names == NAMES
    assert store.headers[0]["authorization"] == "Basic YW5uOnBhNTV3b3Jk"
    assert store.headers[0]["path"] == "/v1/traces?key=k3y9"
    said = [record.getMessage() for record in caplog.records if record.name == "observability.delivery"]
    assert said[0].startswith(f"the collector http://127.0.0.1:{port}/v1/traces takes no spans (connection refused)")
    assert "is back" in said[1]
    assert len(said) == 2
    assert "pa55word" not in caplog.text
    assert "k3y9" not in caplog.text


def test_a_slow_answer_is_not_waited_for_longer_than_the_timeout(stack: ExitStack) -> None:
    bench = Bench(stack, "http/protobuf", timeout=0.2)
    bench.store.behave = at_first(1, Reply(slow=0.6, takes=True))

    assert bench.delivery.deliver(SPANS)
    assert bench.tally.failures == {"timeout": 1}
    assert bench.store.differing == []


@pytest.mark.parametrize("status", [400, 413, 500])
def test_only_the_spans_that_a_collector_refuses_are_left_out_and_they_are_named(
    http: Bench, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    http.store.behave = refusing("span 7", "span 8", "span 31", reply=Reply(status=status, body=b"\x12\x03bad"))

    assert http.delivery.deliver(SPANS)

    assert http.store.names == NAMES - {"span 7", "span 8", "span 31"}
    assert http.store.doubled == {}
    assert http.tally.sent == 37
    assert http.tally.refusals == {f"http {status}": 3}
    assert f"trace {7:032x} span {7:016x} 'span 7'" in caplog.text
    assert f"http {status}: bad" in caplog.text
    assert http.tally.trouble == ""


@pytest.mark.parametrize(
    ("code", "words"), [("INVALID_ARGUMENT", "bad"), ("RESOURCE_EXHAUSTED", "message larger than max (5 vs. 4)")]
)
def test_a_grpc_collectors_refused_spans_are_found_too(stack: ExitStack, code: str, words: str) -> None:
    bench = Bench(stack, "grpc")
    bench.store.behave = refusing("span 1", "span 40", reply=Reply(code=code, words=words))

    assert bench.delivery.deliver(SPANS)
    assert bench.store.names == NAMES - {"span 1", "span 40"}
    assert bench.tally.refusals == {f"grpc {code.lower()}": 2}


def test_a_batch_that_is_too_large_goes_in_parts(http: Bench) -> None:
    http.store.behave = lambda spans: Reply(status=413) if len(spans) > 7 else None

    assert http.delivery.deliver(SPANS)
    assert http.store.names == NAMES
    assert http.store.doubled == {}
    assert http.tally.refused == 0


def test_a_batch_of_which_every_span_is_refused_is_counted_and_the_next_one_goes(
    http: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    http.store.behave = lambda spans: Reply(status=400) if any(span.name != "good" for span in spans) else None

    assert http.delivery.deliver(SPANS)
    assert http.delivery.deliver([a_span(99, "good")])
    assert http.tally.refusals == {"http 400": 40}
    assert http.store.names == {"good"}
    assert caplog.text.count("refused: trace") == 20
    assert "refused: 20 more spans of this batch" in caplog.text


def test_a_server_that_refuses_everything_is_no_judge_of_spans(http: Bench) -> None:
    http.store.behave = at_first(30, Reply(status=400, body=b"what is this?"))

    assert http.delivery.deliver(SPANS)
    assert http.store.names == NAMES
    assert http.tally.refused == 0
    assert http.store.requests.count(40) == 16  # 15 of them refused, each as an empty request was too


def test_a_server_that_breaks_in_the_search_for_refused_spans_is_waited_for(http: Bench) -> None:
    asked = [0]

    def behave(spans: list[Span]) -> Reply | None:
        asked[0] += 1
        if 5 < asked[0] < 40:
            return Reply(status=400)
        return Reply(status=400) if any(span.name == "span 7" for span in spans) else None

    http.store.behave = behave

    assert http.delivery.deliver(SPANS)
    assert http.store.names == NAMES - {"span 7"}
    assert http.tally.refusals == {"http 400": 1}


def test_what_a_collector_rejects_of_a_request_that_it_took_is_counted_and_not_sent_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.store.behave = at_first(1, rejecting(15, "too old"))

    assert bench.delivery.deliver(SPANS)
    assert bench.store.requests == [40]
    assert bench.tally.sent == 25
    assert bench.tally.refusals == {"partial success": 15}
    assert "15 of 40 spans were rejected" in caplog.text
    assert "too old" in caplog.text


def test_a_warning_of_a_collector_rejects_nothing(bench: Bench) -> None:
    bench.store.behave = at_first(1, rejecting(0, "use another version"))

    assert bench.delivery.deliver(SPANS)
    assert bench.tally == Tally(sent=40)


def test_answers_that_are_no_protobuf_do_no_harm(http: Bench) -> None:
    http.store.behave = at_first(1, Reply(body=b"\xff\xff\xff\xff<html>" * 9_000))

    assert http.delivery.deliver(SPANS)
    assert http.delivery.deliver(SPANS)
    assert http.tally == Tally(sent=80)


def test_nothing_is_waited_for_when_it_is_to_stop(http: Bench) -> None:
    http.delivery._pace = Pace(first=1000, longest=1000)
    http.store.behave = lambda _spans: Reply(status=503)
    thread = threading.Timer(0.05, http.stopping.set)
    thread.start()

    assert not http.delivery.deliver(SPANS)
    thread.join()


def test_keys_that_a_server_repeats_are_not_said(stack: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(stack, "http/protobuf", headers=(("authorization", "Bearer t0ken"),))
    headers = {"content-type": "text/plain"}
    bench.store.behave = at_first(1, Reply(status=401, body=b"Bearer t0ken:\x00 t0ken\nis not known", headers=headers))

    bench.delivery.deliver(SPANS)

    assert "takes no spans (http 401: ***: *** is not known): see to address, protocol and key" in caplog.text
    assert "t0ken" not in caplog.text
    assert "t0ken" not in repr(bench.collector)


@pytest.mark.parametrize(
    ("url", "reason", "verdict"),
    [
        ("https://127.0.0.1:{port}", "tls", Verdict.MISCONFIGURED),
        ("http://127.0.0.1:port", "url", Verdict.MISCONFIGURED),
        ("http://nowhere.invalid:4318", "host not found", Verdict.LATER),
        ("http://127.0.0.1:1", "connection refused", Verdict.LATER),
    ],
)
def test_what_fails_below_http_is_told(http: Bench, url: str, reason: str, verdict: Verdict) -> None:
    sender = open_sender(Collector(url.replace("{port}", http.url.rpartition(":")[2])))
    answer = sender.send(b"")
    sender.close()

    assert (answer.reason, answer.verdict) == (reason, verdict)


def test_headers_are_read_as_opentelemetry_writes_them() -> None:
    text = "api-key=a%20b , Authorization = Basic%20eHg= ,broken,=x,bad name=1,evil=a%0d%0ab,c="

    assert read_headers(text) == (("api-key", "a b"), ("authorization", "Basic eHg="), ("c", ""))


def test_a_collector_is_told_by_opentelemetrys_variables() -> None:
    from engine.settings import Settings  # noqa: PLC0415

    environment = {
        "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "b=2",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
    }
    found = Collector.of(Settings(otlp="https://u:p@host/x?k=v"), environment)

    assert found.headers == (("b", "2"),)
    assert (found.gzip, found.timeout, found.certificate) == (True, 2.5, "ca.pem")
    assert found.shown == "https://host/x"
    assert Collector.of(Settings(), {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}).timeout == 10.0


def test_every_verdict_is_dealt_with() -> None:
    assert {each.name for each in Verdict} == {"TAKEN", "LATER", "BROKEN", "REFUSED", "TOO_LARGE", "MISCONFIGURED"}
    assert delivery.name_of(a_span(3)) == f"trace {3:032x} span {3:016x} 'span 3'"
