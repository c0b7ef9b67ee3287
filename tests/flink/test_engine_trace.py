"""A real engine: what a step asked stands on its record, in the trace of its episode, and the other side heard so."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.core.record import Record
from engine.core.trace import episode_trace, span_id
from observability.inner_span import InnerSpan, read_inner
from tests.flink.harness import Stage
from tests.flink.listener import Listener
from tests.flink.traced import LISTENER, Sent, application

pytestmark = [pytest.mark.flink, pytest.mark.redis]


def the_client(record: Record) -> InnerSpan:
    (span,), dropped = read_inner(bytes(record.spans))
    assert not dropped
    return span


def test_the_trace_goes_from_the_event_through_steps_to_whom_they_ask(tmp_path: Path) -> None:
    with Listener() as listener, Stage(tmp_path, application=application) as stage:
        stage.start(app="tests.flink.traced:application", environment={LISTENER: listener.url})
        stage.send(Sent(id="a", path="/e"))
        stage.until_status("asking", "finished", 1)
        records = stage.proven().records

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
