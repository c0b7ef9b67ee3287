"""Episodes: what one event, timer or order set off, until the run rests again. An episode is one trace.

It begins with an application on a run at rest, which has no episode. It ends with the first record after which nothing
of the run is going on: no call runs or is about to, nothing is left that the state takes up at once, and no attempt is
to be made again within a minute. So retries after a second stay in one trace, and two days of outage do not. A halt
ends it too: what goes on with the order that resumes the run is another one. Calls that outlive their run belong to it.

The snapshot holds the episode while it lasts and every record does, so a span needs no record but its own. A snapshot
that could not be read keeps its episode, which goes on when the run is mended; the records between have their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from engine.core.entry import EventEntry, FailureEntry, QuestionEntry, ResultEntry
from engine.core.record import Dropped, Episode, Group
from engine.core.trace import attempt_parent, episode_trace, parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.core.entry import Entry
    from engine.core.ids import CallId
    from engine.core.record import Cause
    from engine.core.snapshot import Pending, Snapshot

NEAR: Final = 60_000
"""How soon the next attempt must be due for the episode to go on, log ms."""
_BUSY: Final = frozenset(("running", "queued", "reserving"))


def begin(snap: Snapshot, at: int, cause: Cause, name: str, id_: str, source: str, entry: Entry | None) -> Episode:
    """The episode that an application on a run at rest begins; `snap` is the run before it."""
    seq, state, visit = snap.seq + 1, snap.state, snap.visit
    match entry:
        case EventEntry():
            inside = entry.hops > 0 and parse_traceparent(entry.traceparent) is not None
        case QuestionEntry():
            inside = parse_traceparent(entry.traceparent) is not None
        case ResultEntry() | FailureEntry():
            asked, inside = _asked(snap, entry, at)
            return Episode(seq, at, cause, name, id_, source, state, visit, asked, inside=inside)
        case _:
            return Episode(seq, at, cause, name, id_, source, state, visit)
    carried = entry.traceparent, entry.tracestate, entry.baggage
    return Episode(seq, at, cause, name, id_, source, state, visit, *carried, inside)


def _asked(snap: Snapshot, entry: ResultEntry | FailureEntry, at: int) -> tuple[str, bool]:
    """Of an answer by another run: where it was asked, and whether that was but now."""
    for call in snap.calls if entry.run == snap.run else ():
        if call.id == entry.call and call.asked:
            return call.asked, at - call.since <= NEAR
    return "", False


def is_going_on(snap: Snapshot, at: int) -> bool:
    """Whether calls of a run keep its episode open, after a record of log time `at`."""
    if snap.halted is not None:
        return False
    for call in snap.calls:  # noqa: SIM110 - quicker than any(), and asked at every entry
        if call.status in _BUSY or (call.status == "waiting" and call.due <= at + NEAR):
            return True
    return False


def attempt(trace: str, run: str, call: CallId, number: int) -> str:
    """Where an attempt stands in a trace, as a `traceparent`; empty in no trace."""
    return attempt_parent(trace, run, call, number) if trace else ""


def trace_of(snap: Snapshot) -> str:
    """The trace of what is going on in a run; empty: nothing is."""
    return episode_trace(snap.run, snap.episode) if snap.episode is not None else ""


def left(before: Snapshot, after: Snapshot) -> tuple[Group, ...]:
    """The state that an application left, and the superstates behind it, the innermost first.

    A run that is over has left its superstates too, and a state in which it was cancelled. A final state is not left.
    """
    over = bool(after.ended and not before.ended)
    moved = after.visit != before.visit
    if not (over or moved or before.groups):
        return ()
    found: list[Group] = []
    if before.state and (moved or over):
        found.append(Group(before.state, before.visit, before.entered))
    stayed = () if over else after.groups
    found += reversed([g for g in before.groups if g not in stayed])
    if over:
        found += reversed([g for g in after.groups if g not in before.groups])
    return tuple(found)


def within(before: Snapshot, gone: tuple[Group, ...]) -> tuple[Group, ...]:
    """The superstates around those that were left, the innermost first."""
    return tuple(reversed([g for g in before.groups if g not in gone])) if gone and before.groups else ()


def dropped(calls: Iterator[Pending]) -> Iterator[Dropped]:
    """Of calls that nobody waits for any longer, those that have kept something in an attempt that runs.

    What they kept hangs on the attempt. One that asked another run is told of where it asked.
    """
    return (Dropped(c.id, c.step, c.attempt, c.since) for c in calls if c.status == "running" and c.kept)
