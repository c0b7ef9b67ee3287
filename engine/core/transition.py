"""The fold: a run's stored bytes and one entry in, new bytes, commands and records out.

    transition(workflow, stored, entry, place) -> Reaction(stored, commands, records)

How an entry is applied. First every timer of the run that is due at or before the entry's time fires, in order of due
time, *at* its due time; then the entry itself; then whatever the new state takes up at once (events kept by `later`, a
`runs_each` over nothing). Each of these is one *application*: it makes one record, numbered by `index`.

The user's code runs only inside an application. When it raises, `HandlerFailed` leaves this function and nothing has
happened. The caller stores a `Verdict` under the entry's position and folds the entry again with it: then the same
application halts the run instead, in every later fold too. A halted run's time stands still; what comes is to be held
by the caller (`Reaction.hold`) and is handed back with the order that resumes it (`held`).

Pure: the time is the entry's, randomness is seeded, nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine.core.definition import Workflow
from engine.core.entry import Entry, EventEntry, ResultEntry
from engine.core.episode import trace_of
from engine.core.errors import HandlerTimeout
from engine.core.fold import Fold, failed_by, next_wake
from engine.core.quick import quick_result, quick_start
from engine.core.reaction import (
    CancelCall,
    Command,
    Held,
    Place,
    PublishEvent,
    Reaction,
    Rules,
    StartCall,
    Verdict,
    event_hash,
    run_id,
)
from engine.core.snapshot import FORMAT, Early, Snapshot, Stored, Tombstone, read_stored
from engine.core.working import start_of

__all__ = [
    "CancelCall",
    "Command",
    "Held",
    "Place",
    "PublishEvent",
    "Reaction",
    "Rules",
    "StartCall",
    "Verdict",
    "event_hash",
    "run_id",
    "running_calls",
    "transition",
    "wakes_at",
]

_RULES = Rules()


def transition(
    workflow: Workflow[Any],
    stored: bytes | None,
    entry: Entry,
    place: Place,
    *,
    verdict: Verdict | None = None,
    held: Sequence[Held] = (),
    rules: Rules = _RULES,
) -> Reaction:
    """Fold one entry.

    Args:
        workflow: the definition that the entry names.
        stored: what the last fold of this run left; None: nothing is known of the run.
        entry: decoded; bytes that cannot be decoded never come here.
        place: where the entry stands and when.
        verdict: what stands under this position, if anything.
        held: with an order, the entries held back for this run, in order.
        rules: settings of the log.

    Raises:
        HandlerFailed: the user's code failed and there is no verdict yet; nothing has happened.
    """
    known: Stored | None = None
    if stored is not None:
        try:
            known = read_stored(stored)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Fold(workflow, entry, place, verdict, rules).broken(stored, f"{type(error).__name__}: {error}")
    if verdict is None and (quick := _quick(workflow, known, entry, place, rules)) is not None:
        return quick
    fold = Fold(workflow, entry, place, verdict, rules)
    if type(known) is Tombstone:
        if place.at < known.expires:
            return fold.over(known, stored)
        known = None
    if type(known) is Early:
        known = fold.expire(known)
    if known is None or type(known) is Early:
        return fold.begin(known)
    assert type(known) is Snapshot  # noqa: S101 - the only kind left
    if known.v > FORMAT:
        return fold.broken(stored or b"", f"written in form {known.v}, this code reads up to {FORMAT}", known)
    fold.snap, fold.came = known, stored
    return fold.run(held)


def _quick(workflow: Workflow[Any], known: Stored | None, entry: Entry, place: Place, rules: Rules) -> Reaction | None:
    """The short way, where there is one."""
    try:
        if type(entry) is ResultEntry and type(known) is Snapshot and known.v == FORMAT:
            return quick_result(workflow, known, entry, place, rules)
        if type(entry) is EventEntry and known is None:
            return quick_start(workflow, entry, place, rules)
    except HandlerTimeout as error:
        raise failed_by(
            0, error, f"{entry.cause} in {known.state if isinstance(known, Snapshot) else 'start'}"
        ) from error
    return None


def running_calls(stored: bytes) -> list[StartCall]:
    """The attempts that a snapshot says are in flight."""
    known = read_stored(stored)
    if type(known) is not Snapshot or known.halted is not None:
        return []
    trace = trace_of(known)
    return [start_of(known, c, trace) for c in known.calls if c.status == "running"]


def wakes_at(stored: bytes) -> int:
    """When what is stored wants a tick, log ms; 0: never. A tombstone wants one when it expires."""
    known = read_stored(stored)
    return next_wake(known) if isinstance(known, Snapshot) else known.expires
