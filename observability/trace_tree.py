"""A run's records as a tree for people: visits, under them episodes, calls, attempts, and what these kept.

Spans are made from single records; here a run's records are all there, so that attempts without an end are seen too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from engine.core.record import Episode
from engine.core.trace import episode_trace, run_trace, span_id
from observability.inner_span import read_inner
from observability.names import of_cause
from observability.waits import until_of, waits_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.core.entry import Used
    from engine.core.record import Record

_OF_ATTEMPTS: Final = ("result", "failure", "asked")
_OF_CALLS: Final = (*_OF_ATTEMPTS, "kept", "answer")
_RESERVATION: Final = ".budget"


class Sums(Struct):
    """What models took."""

    calls: int = 0
    tokens: int = 0
    cost: int = 0
    """Millionths of a euro."""
    unpriced: int = 0
    """Calls whose price is not known."""

    def add(self, used: Used) -> None:
        self.calls += 1
        self.tokens += used.tokens
        self.cost += used.cost or 0
        self.unpriced += used.cost is None


class Inner(Struct, omit_defaults=True):
    """A span that a library made inside a step."""

    id: str
    name: str
    took_ms: float
    error: str = ""
    inner: list[Inner] = []


class Part(Struct, omit_defaults=True):
    """A result that a call has kept: a turn of a model, a tool's answer, a part of one's own."""

    name: str
    kind: str
    took_ms: float
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int | None = None
    again: bool = False
    late: str = ""
    inner: list[Inner] = []


class AttemptNode(Struct, omit_defaults=True):
    """One attempt of a call."""

    number: int
    result: str = "under way"
    """`ok`, `failed`, `asked people`, `asked another run`, `answered`, `given up`, `under way`."""
    took_ms: float = 0.0
    error: str = ""
    asks: str = ""
    """What it asks people."""
    parts: list[Part] = []
    inner: list[Inner] = []


class CallNode(Struct, omit_defaults=True):
    """A call within an episode."""

    id: str
    step: str
    attempts: list[AttemptNode] = []
    waits: str = ""
    """What it waits for now."""

    def attempt(self, number: int) -> AttemptNode:
        found = next((each for each in self.attempts if each.number == number), None)
        if found is None:
            found = AttemptNode(number)
            self.attempts.append(found)
        return found


class EpisodeNode(Struct, omit_defaults=True):
    """What one event, timer or order set off."""

    seq: int
    """Number of its first record."""
    cause: str
    """`event ReviewDecided`, `timer HumanReview.expire`."""
    trace: str
    span: str
    at: int
    last: int
    """Log ms of its last record so far."""
    ended: bool = False
    goes_on: str = ""
    """`traceparent` of the run whose trace it goes on with."""
    who: str = ""
    why: str = ""
    source: str = ""
    ignored: str = ""
    halted: str = ""
    late_ms: int = 0
    moves: list[str] = []
    """States that were entered."""
    calls: list[CallNode] = []
    notes: list[str] = []
    """Further entries that came meanwhile, and what became of them."""
    published: list[tuple[str, str, str]] = []
    """Id, type and key."""
    sums: Sums = msgspec.field(default_factory=Sums)

    def call(self, id_: str, step: str) -> CallNode:
        found = next((each for each in self.calls if each.id == id_), None)
        if found is None:
            found = CallNode(id_, step)
            self.calls.append(found)
        found.step = found.step or step
        return found


class VisitNode(Struct, omit_defaults=True):
    """A stay in a state."""

    state: str
    visit: int
    entered: int
    left: int = 0
    """0: the run is still there."""
    left_by: str = ""
    episodes: list[EpisodeNode] = []


class RunNode(Struct, omit_defaults=True):
    """A run. Times are log ms."""

    workflow: str
    key: str
    run_id: str
    version: int
    trace: str
    state: str
    status: str
    began: int
    last: int
    records: int
    missing: int = 0
    """Records at its beginning that the journal does not have any more."""
    finished: int = 0
    start: list[EpisodeNode] = []
    """The episodes that began before the run was in a state."""
    visits: list[VisitNode] = []
    waits_for: tuple[str, ...] = ()
    waits_until: str = ""
    wakes: int = 0
    sums: Sums = msgspec.field(default_factory=Sums)

    @property
    def episodes(self) -> list[EpisodeNode]:
        """All of them, in the order in which they began."""
        found = [*self.start, *(each for visit in self.visits for each in visit.episodes)]
        return sorted(found, key=lambda each: each.seq)


def tree_of(records: Sequence[Record]) -> RunNode:
    """The tree of a run's records, in their order.

    Raises:
        ValueError: there are none.
    """
    if not records:
        msg = "a run without records has no trace"
        raise ValueError(msg)
    return _Tree(records).run


class _Tree:
    """A tree that grows record by record."""

    def __init__(self, records: Sequence[Record]) -> None:
        last = records[-1]
        self.run = RunNode(
            workflow=last.workflow,
            key=last.key,
            run_id=last.run,
            version=last.version,
            trace=run_trace(last.run),
            state=last.to or last.from_,
            status=last.status,
            began=records[0].at,
            last=last.at,
            records=len(records),
            missing=records[0].seq - 1,
            start=[],
            visits=[],
            sums=Sums(),
        )
        self._episodes: dict[int, EpisodeNode] = {}
        self._visits: dict[int, VisitNode] = {}
        for record in records:
            self._add(record)
        self._end(last)

    def _add(self, record: Record) -> None:
        episode = self._episode(record)
        self._place(record)
        self._entry(record, episode)
        if record.from_ != record.to and record.to:
            episode.moves.append(record.to)
        episode.published += [(each.id, each.type, each.key) for each in record.published]
        for call in record.dropped:
            episode.call(call.id, call.step).attempt(call.attempt).result = "given up"
        for asked in record.asking:
            episode.call(asked.id, asked.step).attempt(asked.attempt).result = "asked another run"
        if record.halted is not None:
            episode.halted = record.halted.error
        if record.began:
            self.run.finished, self.run.began = record.at, record.began
        episode.last, episode.ended = record.at, record.ends or record.episode is None

    def _episode(self, record: Record) -> EpisodeNode:
        began = record.visit - (record.from_ != record.to)  # so many visits there were before it
        told = record.episode or Episode(
            record.seq, record.at, record.cause, record.name, record.id, record.source, record.from_, began
        )
        found = self._episodes.get(told.seq)
        if found is None:
            found = self._episodes[told.seq] = EpisodeNode(
                seq=told.seq,
                cause=of_cause(told.cause, told.name),
                trace=episode_trace(record.run, told),
                span=span_id("episode", record.run, told.seq),
                at=told.at,
                last=record.at,
                goes_on=told.traceparent if told.inside else "",
                source=told.source,
                moves=[],
                calls=[],
                notes=[],
                published=[],
                sums=Sums(),
            )
            self._siblings(told).append(found)
        return found

    def _siblings(self, episode: Episode) -> list[EpisodeNode]:
        if not episode.state:
            return self.run.start
        return self._visit(episode.state, episode.visit, 0).episodes

    def _visit(self, state: str, visit: int, entered: int) -> VisitNode:
        found = self._visits.get(visit)
        if found is None:
            found = self._visits[visit] = VisitNode(state, visit, entered, episodes=[])
            self.run.visits.append(found)
        return found

    def _place(self, record: Record) -> None:
        """Where the run is now."""
        for group in record.left:
            visit = self._visits.get(group.visit)
            if visit is not None and visit.state == group.name:
                visit.entered, visit.left, visit.left_by = group.entered, record.at, of_cause(record.cause, record.name)
        visits = self.run.visits
        if record.to and record.visit and (not visits or visits[-1].visit < record.visit):
            if visits and not visits[-1].left:
                visits[-1].left, visits[-1].left_by = record.at, of_cause(record.cause, record.name)
            self._visit(record.to, record.visit, record.since or record.at)

    def _entry(self, record: Record, episode: EpisodeNode) -> None:
        if record.used is not None:
            self.run.sums.add(record.used)
            episode.sums.add(record.used)
        first = record.seq == episode.seq
        if first:
            episode.who, episode.why, episode.late_ms = record.who, record.why, record.late
            episode.ignored = record.ignored if record.cause not in _OF_CALLS else ""
        if record.ignored:
            if not first or record.cause in _OF_CALLS:
                episode.notes.append(f"{of_cause(record.cause, record.name)}: {record.ignored}")
        elif record.cause == "answer":
            episode.notes.append(f"{record.inner}: answered by {record.who}")
        elif record.cause in _OF_CALLS and not record.id.endswith(_RESERVATION):
            self._of_call(record, episode.call(record.id, record.name))
        elif record.id.endswith(_RESERVATION):
            episode.notes.append(f"{record.name}: its budget has answered")
        elif not first:
            episode.notes.append(of_cause(record.cause, record.name) + (f" by {record.who}" if record.who else ""))

    def _of_call(self, record: Record, call: CallNode) -> None:
        attempt = call.attempt(record.attempt or 1)
        if record.cause == "kept":
            if record.kind != "progress":
                attempt.parts.append(_part(record))
            return
        attempt.took_ms = record.took / 1000
        attempt.inner = _inner(record)
        if record.cause == "failure":
            attempt.result, attempt.error = "failed", record.error
        elif record.cause == "asked":
            attempt.result, attempt.asks = "asked people", record.why
        else:
            attempt.result = "answered" if record.traceparent else "ok"

    def _end(self, last: Record) -> None:
        """What the run waits for now."""
        run = self.run
        if last.status == "finished":
            return
        run.waits_for, run.waits_until, run.wakes = waits_of(last), until_of(last), last.wakes
        episodes = run.episodes
        for call in last.calls:
            node = next((each for e in reversed(episodes) for each in e.calls if each.id == call.id), None)
            node = node or self._episodes[max(self._episodes)].call(call.id, call.step)
            node.waits = call.status
            if call.status == "running":
                node.attempt(call.attempt)
            if call.error and node.attempts and not node.attempts[-1].error:
                node.attempts[-1].error = call.error


def _part(record: Record) -> Part:
    used = record.used
    part = Part(record.inner, record.kind or "once", record.took / 1000, again=record.again, inner=_inner(record))
    if used is not None:
        part.model = used.answered or used.model
        part.input_tokens, part.output_tokens, part.cost = used.input, used.output, used.cost
    return part


def _inner(record: Record) -> list[Inner]:
    """What libraries made inside, as a tree."""
    spans, _ = read_inner(bytes(record.spans))
    made = {s.id: Inner(s.id, s.name, (s.end - s.start) / 1e6, s.message, []) for s in spans}
    top: list[Inner] = []
    for span in spans:
        above = made.get(span.parent) if span.parent != span.id else None
        (top if above is None else above.inner).append(made[span.id])
    return top


def episode_in(run: RunNode, wanted: str) -> EpisodeNode | None:
    """The episode of a record's number, or of a trace; None: the run has no such record or trace."""
    episodes = run.episodes
    if wanted.isdecimal() and len(wanted) < len(run.trace):
        number = int(wanted)
        if number > run.missing + run.records:
            return None
        return next((each for each in reversed(episodes) if each.seq <= number), None)
    return next((each for each in episodes if each.trace == wanted), None)


def runs_of_trace(trace: str, runs: Iterable[tuple[str, int]]) -> tuple[str, int] | None:
    """Whose trace this is: (run, first record of the episode; 0: the trace is the whole run's).

    `runs` are ids and how many records each has. Only traces that the run itself began are found: the name of one that
    came with an event is not made from the run's.
    """
    for run, seq in runs:
        if run_trace(run) == trace:
            return run, 0
        for number in range(1, seq + 1):
            if episode_trace(run, Episode(number, 0)) == trace:
                return run, number
    return None
