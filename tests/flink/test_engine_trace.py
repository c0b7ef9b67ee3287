"""A real engine: what a step asked stands on its record, in the trace of its episode, and the other side heard so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from engine.core.record import Record
from engine.core.trace import episode_trace, span_id
from observability.inner_span import InnerSpan, read_inner
from observability.projection import Projection
from observability.span import Span
from tests.flink.harness import Stage
from tests.flink.listener import Listener
from tests.flink.traced import LISTENER, Sent, application

pytestmark = [pytest.mark.flink, pytest.mark.redis]

APP = "tests.flink.traced:application"


def the_client(record: Record) -> InnerSpan:
    (span,), dropped = read_inner(bytes(record.spans))
    assert not dropped
    return span


def projected(stage: Stage, records: list[Record]) -> dict[str, Span]:
    """All spans by their ids; none twice."""
    projection = Projection(stage.log.header)
    spans = [span for record in records for span in projection.spans(record)]
    found = {span.id: span for span in spans}
    assert len(found) == len(spans)
    return found


def way(spans: dict[str, Span], id: str) -> list[str]:
    """The names from a span up to its root."""
    span = spans[id]
    return [span.name, *(way(spans, span.parent) if span.parent else [])]


def test_the_trace_goes_from_the_event_through_steps_to_whom_they_ask(tmp_path: Path) -> None:
    with Listener() as listener, Stage(tmp_path, application=application) as stage:
        stage.start(app=APP, environment={LISTENER: listener.url})
        stage.send(Sent(id="a", path="/e"))
        stage.until_status("asking", "finished", 1)
        records = stage.proven().records
        spans = projected(stage, records)

        assert "traced inside steps: httpx, httpx2" in stage.engine_log()
    kept = {record.inner: record for record in records if record.cause == "kept"}
    first, second = (record for record in records if record.cause == "result")
    run, episode = first.run, first.episode
    assert episode is not None
    trace = episode_trace(run, episode)

    assert listener.above("/e/first") == (trace, the_client(first).id)
    assert the_client(first).parent == span_id("attempt", run, first.id, 1)
    for name in ("left", "right"):
        assert listener.above(f"/e/{name}") == (trace, the_client(kept[name]).id)
        assert the_client(kept[name]).parent == span_id("kept", run, first.id, name)
    assert listener.above("/e/third") == (trace, span_id("kept", run, first.id, "third"))
    assert listener.above("/e/last") == (trace, span_id("attempt", run, first.id, 1))
    assert listener.above("/e/thread") == (trace, the_client(second).id)
    assert the_client(second).parent == span_id("attempt", run, second.id, 1)
    assert [record.episode and record.episode.seq for record in records] == [episode.seq] * len(records)
    assert records[-1].ends

    root = "process Sent"
    assert way(spans, the_client(first).id) == ["GET", "ask_in_parts", root]
    assert way(spans, the_client(kept["left"]).id) == ["GET", "ask_in_parts: left", "ask_in_parts", root]
    assert way(spans, the_client(second).id) == ["GET", "ask_from_a_thread", root]
    for inner in (the_client(first), the_client(kept["left"]), the_client(second)):
        above = spans[spans[inner.id].parent]
        assert above.start_ns <= spans[inner.id].start_ns <= spans[inner.id].end_ns <= above.end_ns


def test_a_kill_leaves_a_gap_and_no_span_without_its_parent(tmp_path: Path) -> None:
    with Listener() as listener, Stage(tmp_path, application=application) as stage:
        listener.hold("/k/third")
        stage.start(app=APP, environment={LISTENER: listener.url})
        stage.send(Sent(id="a", path="/k"))
        stage.until(lambda: sum(r.cause == "kept" for r in stage.journal.of("asking", "a")) == 2, "two parts kept")
        listener.until_asked("/k/third")
        os.kill(stage.jvm, signal.SIGKILL)
        assert stage.engine is not None
        stage.engine.kill()
        listener.let_go()
        stage.start(app=APP, environment={LISTENER: listener.url})
        stage.until_status("asking", "finished", 1)
        records = stage.proven().records
        spans = projected(stage, records)
    kept = {record.inner: record for record in records if record.cause == "kept"}

    assert not {span.parent for span in spans.values() if span.parent} - spans.keys()
    assert [len(listener.all(f"/k/{name}")) for name in ("first", "left", "right", "third")] == [2, 1, 1, 2]
    assert way(spans, the_client(kept["left"]).id)[1:3] == ["ask_in_parts: left", "ask_in_parts"]
    assert sum(span.name == "ask_in_parts" for span in spans.values()) == 1
    heard = {headers["traceparent"].split("-")[2] for headers in listener.all("/k/first")}
    assert len(heard & spans.keys()) == 1
    assert len({headers["traceparent"] for headers in listener.all("/k/third")}) == 1
