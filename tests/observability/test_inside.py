"""What stands around an attempt: whose place libraries see, and which of their spans come into which entry."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec import Raw
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from engine.core.entry import ResultEntry, read_entry, write_entry
from engine.core.ids import CallId, RunId
from engine.core.secret import WORD
from engine.core.trace import traceparent
from observability.collected import CUT, MOST_BYTES, MOST_SPANS
from observability.inner_attributes import LONGEST, MARK, MOST
from observability.inner_span import InnerSpan, read_inner
from observability.inside import Around, Inside, collector
from observability.instrumentations import instrument

TRACE = "ab" * 16
ATTEMPT = "1111111111111111"
PART = "2222222222222222"
OTHER = "3333333333333333"


@pytest.fixture
def provider() -> TracerProvider:
    """With its own tracers, so that nothing depends on what is global."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(collector)
    return provider


@pytest.fixture
def tracer(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("library")


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    assert not collector._owners


def attempt(*, tracestate: str = "", baggage: str = "", content: bool = False, secrets: tuple[str, ...] = ()) -> Around:
    place = traceparent(TRACE, ATTEMPT), tracestate, baggage
    return Inside().around(*place, content=content, secrets=lambda: secrets)


def part_of(around: Around, span: str = PART, *, model: bool = False) -> Around:
    return around.part(traceparent(TRACE, span), model=model)


def spans_of(drained: bytes) -> list[InnerSpan]:
    return list(read_inner(drained)[0])


def tree(drained: bytes) -> dict[str, str]:
    """The parent of each span, by names where they are known."""
    spans = spans_of(drained)
    names = {span.id: span.name for span in spans}
    return {span.name: names.get(span.parent, span.parent) for span in spans}


# -- the place -------------------------------------------------------------------------------------------------------


def test_an_attempt_is_what_clients_hand_on() -> None:
    sent: dict[str, str] = {}
    with attempt(tracestate="vendor=1,other=2", baggage="who=ann,why=a%20test"):
        propagate.inject(sent)

    assert sent["traceparent"] == traceparent(TRACE, ATTEMPT)
    assert sent["tracestate"] == "vendor=1,other=2"
    assert sorted(sent["baggage"].split(",")) == ["who=ann", "why=a+test"]


def test_behind_an_attempt_nothing_is_current() -> None:
    with attempt(baggage="who=ann"):
        pass

    assert trace.get_current_span() is trace.INVALID_SPAN
    assert not baggage.get_all()


def test_a_part_is_what_clients_hand_on_while_it_runs(tracer: Tracer) -> None:
    places = []
    with attempt() as around:
        with part_of(around):
            places.append(trace.get_current_span().get_span_context().span_id)
        places.append(trace.get_current_span().get_span_context().span_id)

    assert places == [int(PART, 16), int(ATTEMPT, 16)]


def test_an_attempt_without_a_trace_has_no_place_and_leaves_that_of_others(tracer: Tracer) -> None:
    with attempt(), Around("", "", "") as nowhere:
        with tracer.start_as_current_span("alone"):
            pass
        found = trace.get_current_span()
        drained = nowhere.drain()

    assert found is trace.INVALID_SPAN
    assert drained == b""


def test_parts_at_the_same_time_have_their_own_places_and_spans(tracer: Tracer) -> None:
    async def part(around: Around, name: str, span: str) -> bytes:
        with part_of(around, span) as mine:
            for number in range(3):
                with tracer.start_as_current_span(f"{name} {number}"):
                    await asyncio.sleep(0)
            return mine.drain()

    async def both() -> tuple[bytes, bytes, bytes]:
        with attempt() as around:
            first, second = await asyncio.gather(part(around, "first", PART), part(around, "second", OTHER))
            return first, second, around.drain()

    first, second, rest = asyncio.run(both())

    assert tree(first) == {"first 0": PART, "first 1": PART, "first 2": PART}
    assert tree(second) == {"second 0": OTHER, "second 1": OTHER, "second 2": OTHER}
    assert rest == b""


def test_a_thread_with_the_context_is_inside_and_one_without_is_not(tracer: Tracer) -> None:
    def work() -> None:
        with tracer.start_as_current_span(threading.current_thread().name):
            pass

    with attempt() as around:
        copied = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="copied")
        bare = threading.Thread(target=contextvars.Context().run, args=(work,), name="bare")
        for thread in (copied, bare):
            thread.start()
            thread.join()
        drained = around.drain()

    assert tree(drained) == {"copied": ATTEMPT}


# -- what is collected -----------------------------------------------------------------------------------------------


def test_a_span_is_told_as_it_was(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("outer", kind=SpanKind.CLIENT, start_time=5_000) as outer:
            outer.set_attributes({"text": "a word", "yes": True, "count": 3, "share": 0.5, "many": ["a", "b"]})
            outer.add_event("first byte")
            with tracer.start_as_current_span("inner") as inner:
                inner.set_status(Status(StatusCode.ERROR, "the line is cut"))
        drained = around.drain()
    first, second = spans_of(drained)

    assert (first.name, first.kind, first.parent, first.start, first.events) == ("outer", 2, ATTEMPT, 5_000, 1)
    assert first.attributes == {"text": "a word", "yes": True, "count": 3, "share": 0.5, "many": ["a", "b"]}
    assert first.end > first.start
    assert first.scope == "library"
    assert (second.name, second.parent, second.status, second.message) == ("inner", first.id, 2, "the line is cut")


def test_the_array_travels_in_an_entry(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("query"):
            pass
        drained = around.drain()
    entry = ResultEntry("w", "k", RunId("r"), CallId("c"), 1, Raw(b"1"), spans=Raw(drained))
    read: Any = read_entry(write_entry(entry))

    assert tree(bytes(read.spans)) == {"query": ATTEMPT}


def test_a_kept_part_tells_its_spans_and_the_attempt_the_rest(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("before"):
            pass
        with part_of(around) as part:
            with tracer.start_as_current_span("within"):
                pass
            kept = part.drain()
        with tracer.start_as_current_span("after"):
            pass
        rest = around.drain()

    assert tree(kept) == {"within": PART}
    assert tree(rest) == {"before": ATTEMPT, "after": ATTEMPT}


def test_the_spans_of_a_part_that_fails_are_told_below_the_attempt(tracer: Tracer) -> None:
    with attempt() as around:
        with suppress(ValueError), part_of(around):
            with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
                pass
            raise ValueError("no")
        drained = around.drain()

    assert tree(drained) == {"outer": ATTEMPT, "inner": "outer"}


def test_what_goes_on_behind_a_kept_part_ends_in_the_attempt(tracer: Tracer) -> None:
    with attempt() as around:
        with part_of(around) as part:
            with tracer.start_as_current_span("outer"):
                background = tracer.start_span("background")
            late_place = context.get_current()
            kept = part.drain()
        later = tracer.start_span("later", context=late_place)
        for span in (background, later):
            span.end()
        rest = around.drain()
    (outer,) = spans_of(kept)

    assert tree(rest) == {"background": outer.id, "later": PART}


def test_a_span_that_is_never_ended_is_counted_and_those_below_it_move_up(tracer: Tracer) -> None:
    with attempt() as around:
        with trace.use_span(tracer.start_span("forgotten")), tracer.start_as_current_span("below"):
            pass
        drained = around.drain()

    assert tree(drained) == {"below": ATTEMPT}
    assert read_inner(drained)[1] == 1


def test_a_span_that_ends_when_all_is_over_is_lost_and_was_counted(tracer: Tracer) -> None:
    with attempt() as around:
        span = tracer.start_span("slow")
        drained = around.drain()
    span.end()

    assert read_inner(drained) == ((), 1)


def test_a_span_that_begins_when_all_is_over_is_lost(tracer: Tracer) -> None:
    late = collector.late
    with attempt() as around:
        place = context.get_current()
        around.drain()
    tracer.start_span("stray", context=place).end()

    assert collector.late == late + 1


def test_an_attempt_that_ends_without_a_word_keeps_nothing(tracer: Tracer) -> None:
    with attempt() as around, part_of(around):
        tracer.start_span("open")
        with tracer.start_as_current_span("ended"):
            pass

    assert around.drain() == b""


def test_a_trace_that_a_library_begins_for_itself_is_not_ours(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("its own", context=Context()):
            pass
        drained = around.drain()

    assert drained == b""


def test_a_place_that_went_through_headers_is_still_the_attempts(tracer: Tracer) -> None:
    headers: dict[str, str] = {}
    with attempt() as around:
        propagate.inject(headers)
        with tracer.start_as_current_span("called back", context=propagate.extract(headers)):
            pass
        drained = around.drain()

    assert tree(drained) == {"called back": ATTEMPT}


def test_the_garbage_collector_may_end_a_span(tracer: Tracer) -> None:
    class Holder:
        def __init__(self) -> None:
            self.itself, self.span = self, tracer.start_span("held")

        def __del__(self) -> None:
            self.span.end()

    with attempt() as around:
        for _ in range(20):
            Holder()
        gc.collect()
        drained = around.drain()

    assert len(spans_of(drained)) == 20


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_of_ten_thousand_spans_the_first_hundred_are_told_and_the_others_counted(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("all"):
            for number in range(9_999):
                with tracer.start_as_current_span(f"number {number}"):
                    pass
        drained = around.drain()
    spans, dropped = read_inner(drained)

    assert [span.name for span in spans] == ["all", *(f"number {n}" for n in range(MOST_SPANS - 1))]
    assert {span.parent for span in spans[1:]} == {spans[0].id}
    assert dropped == 10_000 - MOST_SPANS


def test_failed_parts_do_not_add_up_to_more_than_an_entry_holds(tracer: Tracer) -> None:
    with attempt() as around:
        for _ in range(3):
            with suppress(ValueError), part_of(around):
                for _ in range(60):
                    tracer.start_span("one").end()
                raise ValueError("no")
        drained = around.drain()
    spans, dropped = read_inner(drained)

    assert (len(spans), dropped) == (MOST_SPANS, 180 - MOST_SPANS)


def test_a_long_value_is_cut_with_a_mark(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("n" * 1_000) as span:
            span.set_attribute("body", "x" * (1 << 20))
            span.set_attribute("words", ["y" * (1 << 20)] * 50)
            span.set_attributes({f"number {n}": n for n in range(100)})
        (told,) = spans_of(around.drain())
    body, words = told.attributes["body"], told.attributes["words"]

    assert isinstance(body, str)
    assert isinstance(words, list)
    assert len(body) == LONGEST
    assert body.endswith(MARK)
    assert {len(word) for word in words} == {LONGEST}
    assert len(told.name) < 201
    assert len(told.attributes) == MOST


def test_an_entry_has_an_end_whatever_is_said(tracer: Tracer) -> None:
    with attempt() as around:
        for number in range(MOST_SPANS):
            with tracer.start_as_current_span("\x00" * 5_000) as span:
                span.set_attributes({f"key {n}": "\x01" * 900 for n in range(20)})
                span.set_status(Status(StatusCode.ERROR, f"{number}" + "\x02" * 5_000))
        drained = around.drain()
    spans, dropped = read_inner(drained)

    assert len(drained) <= MOST_BYTES
    assert len(spans) + dropped == MOST_SPANS
    assert spans[0].attributes == {CUT: True}


def test_small_spans_keep_their_attributes_beside_a_large_one(tracer: Tracer) -> None:
    with attempt() as around:
        for size in (1, 20, 1):
            for number in range(4):
                with tracer.start_as_current_span(f"{size} {number}") as span:
                    span.set_attributes({f"key {n}": "\x01" * 900 for n in range(size)})
        drained = around.drain()
    cut = {span.name.split()[0] for span in spans_of(drained) if CUT in span.attributes}

    assert cut == {"20"}


def test_what_is_no_text_and_no_number_is_told_as_text(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("a \ud800 name") as span:
            span.set_attribute("half", "a \udfff pair")
            span.set_attribute("bytes", b"\xff\xfe")
            span.set_attribute("huge", 1 << 70)
            span.set_attribute("nan", float("nan"))
        (told,) = spans_of(around.drain())

    assert told.name == "a \\ud800 name"
    assert told.attributes["half"] == "a \\udfff pair"
    assert told.attributes["huge"] == str(1 << 70)
    assert told.attributes["nan"] == "nan"


def test_a_secret_in_an_address_is_not_told(tracer: Tracer) -> None:
    with attempt() as around:
        with tracer.start_as_current_span("GET") as span:
            span.set_attribute("url.full", "https://ann:geheim@example.com/x?api_key=sk-12345678&page=2")
            span.set_status(Status(StatusCode.ERROR, "Authorization: Bearer abcdefghijk was refused"))
        (told,) = spans_of(around.drain())

    assert "geheim" not in str(told)
    assert "sk-1234" not in str(told)
    assert "abcdefghijk" not in str(told)
    assert "page=2" in str(told.attributes["url.full"])


def test_what_a_step_was_given_as_secret_is_not_told_in_any_form(tracer: Tracer) -> None:
    secret = 'the "PIN" is 4711'
    with attempt(secrets=(secret,), content=True) as around, part_of(around) as part:
        with tracer.start_as_current_span(f"for {secret}") as span:
            span.set_attribute("url.full", "https://example.com/?q=the%20%22PIN%22%20is%204711")
            span.set_attribute("gen_ai.prompt", json.dumps({"text": secret}))
            span.set_attribute("edge", "x" * (LONGEST - len(MARK) - 5) + secret)
            span.set_attribute("list", [secret, "plain"])
            span.set_attribute("bytes", secret.encode())
        drained = part.drain().decode()

    assert "4711" not in drained
    assert "PIN" not in drained
    assert drained.count(WORD) >= 4


# -- models ----------------------------------------------------------------------------------------------------------


def test_a_part_that_is_a_turn_of_a_model_tells_no_second_chat(tracer: Tracer) -> None:
    with attempt() as around, part_of(around, model=True) as part:
        with (
            tracer.start_as_current_span("chat gpt-5", attributes={"gen_ai.operation.name": "chat"}),
            tracer.start_as_current_span("POST"),
        ):
            pass
        drained = part.drain()

    assert tree(drained) == {"POST": PART}
    assert read_inner(drained)[1] == 0


@pytest.mark.parametrize("content", [False, True])
def test_what_is_said_to_a_model_is_told_only_where_the_workflow_says_so(tracer: Tracer, content: bool) -> None:
    said = {
        "gen_ai.input.messages": "the claim",
        "gen_ai.prompt.0.content": "the claim",
        "gen_ai.request.model": "gpt-5",
    }
    with attempt(content=content) as around:
        with tracer.start_as_current_span("chat", attributes=said):
            pass
        (told,) = spans_of(around.drain())

    assert told.attributes == (said if content else {"gen_ai.request.model": "gpt-5"})


@pytest.mark.parametrize("content", [False, True])
def test_an_agent_of_pydantic_ai_is_traced_without_what_is_said(content: bool) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.test import TestModel  # noqa: PLC0415 - an extra

    Inside().start()
    agent = pydantic_ai.Agent(TestModel(custom_output_text="the answer"), instructions="the instructions")
    with attempt(content=content) as around:
        asyncio.run(agent.run("the question"))
        told = around.drain().decode()

    assert {span.attributes["gen_ai.operation.name"] for span in spans_of(told.encode())} == {"invoke_agent", "chat"}
    assert ("the question" in told, "the answer" in told, "the instructions" in told) == (content, content, content)


# -- the process -----------------------------------------------------------------------------------------------------


def test_a_library_is_not_hit_by_what_goes_wrong_in_here(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with attempt() as around:
        with monkeypatch.context() as broken:
            broken.setattr("observability.inside._inner", lambda *_, **__: 1 / 0)
            with tracer.start_as_current_span("fine"):
                pass
        drained = around.drain()

    assert read_inner(drained) == ((), 1)
    assert "a span inside a step is lost" in caplog.text


class Broken:
    """An instrumentation that fails."""

    name, dist, value = "broken", None, "nowhere:Broken"

    def load(self) -> Any:
        raise RuntimeError("not with this Python")


class Here(Broken):
    """One that works."""

    name = "here"
    is_instrumented_by_opentelemetry = False
    asked = 0

    def load(self) -> Any:
        return lambda: self

    def instrument(self, **_: Any) -> None:
        self.asked += 1


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Here:
    here = Here()
    monkeypatch.setattr("observability.instrumentations.entry_points", lambda group: [Broken(), here])
    return here


def test_an_instrumentation_that_fails_is_named_and_the_others_work(
    installed: Here, caplog: pytest.LogCaptureFixture
) -> None:
    assert instrument(lambda: False) == ["here"]
    assert installed.asked == 1
    assert "instrumentation broken fails and is left out" in caplog.text


@pytest.mark.parametrize("disabled", ["*", "other, here ,broken"])
def test_instrumentations_can_be_left_out(installed: Here, disabled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", disabled)

    assert instrument(lambda: False) == []
    assert installed.asked == 0


OWN_EXPORTER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from observability.inside import Around, Inside
from observability.inner_span import read_inner

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
Inside().start()
Inside().start()
with Around("00-" + "ab" * 16 + "-" + "11" * 8 + "-01", "", "") as around:
    with trace.get_tracer("mine").start_as_current_span("mine"):
        pass
    (told,), _ = read_inner(around.drain())
(sent,) = exporter.get_finished_spans()
assert trace.get_tracer_provider() is provider
print(told.name, sent.name, told.id == f"{sent.context.span_id:016x}", f"{sent.parent.span_id:x}")
"""

DISABLED = """
import os
os.environ["OTEL_SDK_DISABLED"] = "true"
from opentelemetry import propagate, trace
from observability.inside import Around, Inside
Inside().start()
Inside().start()
sent = {}
with Around("00-" + "ab" * 16 + "-" + "11" * 8 + "-01", "", "") as around:
    propagate.inject(sent)
    with trace.get_tracer("mine").start_as_current_span("mine"):
        pass
    print(type(trace.get_tracer_provider()).__name__, around.drain(), sent["traceparent"][36:52])
"""


def printed(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_exporter_that_the_user_has_set_up_goes_on() -> None:
    assert printed(OWN_EXPORTER) == f"mine mine True {ATTEMPT}"


def test_with_the_sdk_disabled_only_the_place_is_handed_on() -> None:
    assert printed(DISABLED) == f"ProxyTracerProvider b'' {ATTEMPT}"


def test_a_second_exporter_of_the_provider_gets_what_libraries_say(provider: TracerProvider, tracer: Tracer) -> None:
    """Nothing is cut or left out for it."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with attempt() as around:
        with tracer.start_as_current_span("x", attributes={"gen_ai.prompt": "said", "long": "y" * 5_000}):
            pass
        around.drain()
    (sent,) = exporter.get_finished_spans()

    assert sent.attributes is not None
    assert dict(sent.attributes) == {"gen_ai.prompt": "said", "long": "y" * 5_000}


def test_what_cannot_be_loaded_costs_no_step(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from engine.flink import inside  # noqa: PLC0415 - what is tested

    monkeypatch.setattr(inside, "entry_points", lambda group: [Broken()])
    with caplog.at_level(logging.ERROR):
        found = inside.load_inside()

    assert found is inside.NOTHING
    assert "steps are not traced inside: broken" in caplog.text
