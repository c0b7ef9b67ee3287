"""A step in a simulation knows its place in the trace, as in an engine."""

from __future__ import annotations

from engine import Event, Final, Retry, State, StepContext, StepFailed, Workflow, runs, step
from engine.core.context import milliseconds
from engine.core.trace import episode_trace, span_id, traceparent
from engine.testing import Simulation

SEEN: dict[str, str] = {}


class Filed(Event, key="id"):
    id: str


@step(retry=Retry(attempts=2))
async def look(id: str, context: StepContext) -> str:
    async def part() -> str:
        SEEN[f"part {context.attempt}"] = context.traceparent
        return id

    SEEN[f"attempt {context.attempt}"] = context.traceparent
    assert context.headers() == {"traceparent": context.traceparent}
    found = await context.once("part", part)
    if context.attempt == 1:
        raise ValueError("again")
    return found


class Looking(State):
    id: str

    @runs(look)
    def work(self) -> str:
        return self.id

    @work.done
    def seen(self, found: str) -> Seen:
        return Seen()

    @work.failed
    def lost(self, failure: StepFailed) -> Seen:
        return Seen()


class Seen(Final):
    pass


def begin(event: Filed) -> Looking:
    return Looking(id=event.id)


looking = Workflow("looking", start=begin, states=[Looking, Seen])


def test_a_step_knows_the_spans_of_its_attempts_and_parts() -> None:
    SEEN.clear()
    run = Simulation(looking)
    run.real(look)
    run.send(Filed(id="a"))
    began = milliseconds(run.now)
    run.advance(minutes=1)
    records = run.records
    kept, failure, result = (next(r for r in records if r.cause == cause) for cause in ("kept", "failure", "result"))
    assert result.episode is not None
    trace = episode_trace(result.run, result.episode)

    assert {
        "attempt 1": traceparent(trace, span_id("attempt", result.run, result.id, 1)),
        "part 1": traceparent(trace, span_id("kept", result.run, result.id, "part")),
        "attempt 2": traceparent(trace, span_id("attempt", result.run, result.id, 2)),
    } == SEEN
    assert [record.started for record in (kept, failure)] == [began, began]
    assert result.started > began
