"""Real clients, instrumented by OpenTelemetry's packages, in steps: what the other side hears, what the log gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from engine.core.entry import AskedEntry, FailureEntry, KeptEntry, ResultEntry
from engine.core.ids import CallId, RunId
from engine.core.trace import span_id, traceparent
from engine.core.transition import StartCall
from engine.flink.attempt import Request
from engine.flink.calls import Calls
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.testing.providers import Plausible, Provider
from observability.inner_span import FAILED, InnerSpan, read_inner
from tests.flink.listener import Listener
from tests.flink.test_calls import appended, last
from tests.flink.traced import LISTENER, application

pytestmark = pytest.mark.redis

CLIENT = 2
RUN = RunId("r")
TRACE = "c0" * 16
STATE, BAGGAGE = "vendor=7", "tenant=acme"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RedisLog]:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    log = RedisLog.create(server.url, 1)
    yield log
    log.close()
    server.stop()


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with Listener() as listener:
        monkeypatch.setenv(LISTENER, listener.url)
        yield listener


@pytest.fixture
def calls(log: RedisLog, tmp_path: Path, listener: Listener) -> Iterator[Calls]:
    calls = Calls(application, EmbeddedRedis(tmp_path).url, log.header)
    calls.start()
    yield calls
    calls.stop(seconds=10)


def request(step: str, input: bytes, *, attempt: int = 1) -> Request:
    place = traceparent(TRACE, attempt_span(step, attempt))
    start = StartCall(RUN, CallId(step), step, Raw(input), attempt, 0, trace=place, tracestate=STATE, baggage=BAGGAGE)
    return Request("probing", "a", start)


def attempt_span(step: str, attempt: int = 1) -> str:
    return span_id("attempt", RUN, step, attempt)


def part_span(step: str, name: str) -> str:
    return span_id("kept", RUN, step, name)


def inner(entry: Any) -> tuple[InnerSpan, ...]:
    spans, dropped = read_inner(bytes(entry.spans))
    assert not dropped
    return spans


def the_client(entry: Any) -> InnerSpan:
    """The one span of an entry, which a client made."""
    (span,) = inner(entry)
    assert span.kind == CLIENT
    return span


def ends(*kinds: type[Any]) -> Callable[[list[Any]], bool]:
    return lambda found: any(isinstance(entry, kinds) for entry in found)


@pytest.mark.parametrize("step", ["ask_plainly", "ask_from_a_thread"])
def test_the_other_side_stands_below_the_client_and_the_client_below_the_attempt(
    step: str, calls: Calls, log: RedisLog, listener: Listener
) -> None:
    calls.submit([request(step, b'"/x?page=2"')])
    (entry,) = appended(log, last(ResultEntry))
    client = the_client(entry)
    headers = listener.headers("/x")

    assert listener.above("/x") == (TRACE, client.id)
    assert (headers["tracestate"], headers["baggage"]) == (STATE, BAGGAGE)
    assert client.parent == attempt_span(step)
    assert client.attributes["http.method"] == "GET"
    assert str(client.attributes["http.url"]).endswith("/x?page=2")
    assert entry.started * 10**6 <= client.start <= client.end
    assert client.end - entry.started * 10**6 <= entry.took * 1000 + 10**6


def test_parts_have_places_of_their_own_though_they_run_at_the_same_time(
    calls: Calls, log: RedisLog, listener: Listener
) -> None:
    step = "ask_in_parts"
    calls.submit([request(step, b'"/p"')])
    *parts, result = appended(log, last(ResultEntry))
    kept = {part.name: part for part in parts}

    assert the_client(result).parent == attempt_span(step)
    assert listener.above("/p/first") == (TRACE, the_client(result).id)
    for name in ("left", "right"):
        assert the_client(kept[name]).parent == part_span(step, name)
        assert listener.above(f"/p/{name}") == (TRACE, the_client(kept[name]).id)


def test_a_client_that_nobody_instruments_sends_what_the_context_gives_it(
    calls: Calls, log: RedisLog, listener: Listener
) -> None:
    step = "ask_in_parts"
    calls.submit([request(step, b'"/p"')])
    entries = appended(log, last(ResultEntry))

    assert listener.above("/p/third") == (TRACE, part_span(step, "third"))
    assert listener.above("/p/last") == (TRACE, attempt_span(step))
    assert listener.headers("/p/third")["tracestate"] == STATE
    assert listener.headers("/p/last")["baggage"] == BAGGAGE
    assert [inner(entry) for entry in entries if getattr(entry, "name", "") == "third"] == [()]


def test_what_a_failed_part_asked_is_told_by_the_failure(calls: Calls, log: RedisLog, listener: Listener) -> None:
    step = "ask_and_fail"
    calls.submit([request(step, b'"/f"', attempt=2)])
    (failure,) = appended(log, last(FailureEntry))

    assert failure.inner == "part"
    assert the_client(failure).parent == attempt_span(step, 2)
    assert listener.above("/f/2") == (TRACE, the_client(failure).id)


def test_a_client_that_is_told_of_an_error_says_so(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("ask_plainly", b'"/500"')])
    (result,) = appended(log, last(ResultEntry))

    assert the_client(result).status == FAILED


def test_what_a_step_asked_before_its_time_was_over_is_told(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("ask_too_long", b'"/slow"')])
    (failure,) = appended(log, last(FailureEntry))
    spans = {span.name: span.parent for span in inner(failure)}

    assert failure.error == "Timeout"
    assert spans == {"GET": attempt_span("ask_too_long"), "waits": attempt_span("ask_too_long")}


def test_a_question_to_a_person_tells_what_went_before_it_and_how_long_it_was(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("ask_a_person", b'"/before"')])
    (asked,) = appended(log, last(AskedEntry))

    assert the_client(asked).parent == attempt_span("ask_a_person")
    assert asked.started > 0
    assert asked.took > 0


def test_a_model_that_is_asked_has_one_chat_and_what_its_client_sent(
    calls: Calls, log: RedisLog, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("engine.llm.connections")  # its imports take seconds, which nobody is to wait for below
    with Provider(default=Plausible(turns=1)) as provider:
        monkeypatch.setenv("LONGWATCH_MODEL_JUDGE_URL", provider.openai_url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        calls.submit([request("judge", b'{"text":"a ring"}')])
        *parts, result = appended(log, ends(ResultEntry, FailureEntry))
        sent = [request.headers["traceparent"] for request in provider.requests]
    turns = [part for part in parts if part.kind == "model"]
    (tool,) = [part for part in parts if part.kind == "tool"]

    assert isinstance(result, ResultEntry), result
    assert inner(result) == ()
    assert [the_client(turn).parent for turn in turns] == [part_span("judge", turn.name) for turn in turns]
    assert sent == [traceparent(TRACE, the_client(turn).id) for turn in turns]
    assert the_client(tool).parent == part_span("judge", tool.name)
    assert listener.above("/look-up") == (TRACE, the_client(tool).id)
    assert listener.above("/look-up-by-hand") == (TRACE, part_span("judge", tool.name))
    assert "a ring" not in b"".join(bytes(part.spans) for part in parts).decode()


def test_every_entry_of_an_attempt_says_when_it_began(calls: Calls, log: RedisLog) -> None:
    calls.submit([request(step, b'"/t"') for step in ("ask_in_parts", "ask_and_fail", "ask_a_person")])
    found = appended(log, lambda found: all(last(kind)(found) for kind in (ResultEntry, FailureEntry, AskedEntry)))

    assert {type(entry) for entry in found} == {KeptEntry, ResultEntry, FailureEntry, AskedEntry}
    assert all(entry.started > 1_700_000_000_000 and entry.took > 0 for entry in found)


def test_without_a_trace_nothing_is_sent_and_nothing_is_told(calls: Calls, log: RedisLog, listener: Listener) -> None:
    start = StartCall(RUN, CallId("c"), "ask_in_parts", Raw(b'"/n"'), 1, 0)
    calls.submit([Request("probing", "a", start)])
    entries = appended(log, last(ResultEntry))

    assert "traceparent" not in listener.headers("/n/last")
    assert "traceparent" not in listener.headers("/n/third")
    assert not any(bytes(entry.spans) for entry in entries)


def test_a_secret_of_the_input_is_not_told(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("ask_with_a_pin", b'{"path":"/s","pin":"7351"}')])
    (result,) = appended(log, last(ResultEntry))

    assert {span.name for span in inner(result)} == {"check", "GET"}
    assert b"7351" not in bytes(result.spans)
    assert b"/s?p=[secret]" in bytes(result.spans)


class Broken:
    """Telemetry that fails wherever it can."""

    def __init__(self, *, at_once: bool) -> None:
        self._at_once = at_once

    def start(self) -> None: ...

    def around(self, *_: Any, **__: Any) -> Any:
        if self._at_once:
            raise RuntimeError("no")
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...

    def part(self, *_: Any, **__: Any) -> Any:
        return self

    def drain(self) -> bytes:
        raise RuntimeError("no")


@pytest.mark.parametrize("at_once", [True, False])
def test_telemetry_that_fails_costs_no_step(
    at_once: bool, log: RedisLog, tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.flink.calls.load_inside", lambda: Broken(at_once=at_once))
    calls = Calls(application, EmbeddedRedis(tmp_path).url, log.header)
    calls.start()
    calls.submit([request("ask_in_parts", b'"/b"')])
    *parts, result = appended(log, last(ResultEntry))
    calls.stop(seconds=10)

    assert len(parts) == 3
    assert bytes(result.output) == b"[200,200,200,200]"
    assert not any(bytes(entry.spans) for entry in (*parts, result))
