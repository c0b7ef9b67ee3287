"""What a transition did: the journal's lines, from which the run view, histories, spans and metrics are made.

A record is a pure function of the log: a replay makes the same bytes. One entry makes none (a tick too early), one, or
several (timers that came due before it), numbered by `index`. `prev` names the run's record before, so that a history
is read back from its end without a scan.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from engine.core.ids import CallId, Position, RunId

NOTHING = Raw(b"")
"""No JSON at all: a field that is left out."""

Cause = Literal["event", "result", "failure", "timer", "order"]
Status = Literal["running", "waiting", "halted", "finished"]


class PendingCall(Struct, frozen=True, omit_defaults=True):
    """A call in flight as `show` tells it."""

    id: CallId
    step: str
    attempt: int = 1
    due: int = 0
    """When the next attempt starts (log ms), while it waits for one."""
    status: Literal["running", "waiting", "queued", "failed"] = "running"
    error: str = ""


class PendingTimer(Struct, frozen=True, omit_defaults=True):
    """A timer that is set, as `show` tells it."""

    handler: str
    due: int


class Published(Struct, frozen=True, omit_defaults=True):
    """An event that went out, without its data: the outbox has them."""

    id: str
    type: str
    key: str = ""


class Halted(Struct, frozen=True, omit_defaults=True):
    """Why a run stands still."""

    error: str
    where: str = ""
    cause: str = ""
    """What was being applied: `event ReviewDecided`, `timer HumanReview.expire`, ..."""
    at: int = 0


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One application of an event, a result, a failure, a timer or an order to a run. Times are log ms."""

    workflow: str
    key: str
    run: RunId
    version: int
    seq: int
    at: int
    entry: Position
    """The entry that was applied; for an entry that a halt held back this is its own place, not the order's."""
    index: int = 0
    prev: str = ""
    """Place of the run's record before this one, `position/index`."""
    cause: Cause
    name: str = ""
    """Event type, step, timer's handler, or order."""
    id: str = ""
    """Event id or call id."""
    source: str = ""
    attempt: int = 0
    took: int = 0
    from_: str = msgspec.field(default="", name="from")
    to: str = ""
    visit: int = 0
    since: int = 0
    """When the state was entered."""
    status: Status = "waiting"
    wakes: int = 0
    """The next timer, 0 if there is none."""
    ignored: str = ""
    error: str = ""
    halted: Halted | None = None
    who: str = ""
    why: str = ""
    calls: tuple[PendingCall, ...] = ()
    """At most 20; `more_calls` counts the rest."""
    more_calls: int = 0
    timers: tuple[PendingTimer, ...] = ()
    published: tuple[Published, ...] = ()
    data: Raw = NOTHING
    """The state's fields, when this application changed them."""
    fields: dict[str, str] = {}
    """The searchable fields, whenever `data` is there."""
    traceparent: str = ""
    snapshot: str = ""
    """Digest of the snapshot that was left."""
    code: str = ""
    """Digest of the workflow's code that folded."""
    base: Raw = NOTHING
    """The snapshot before, where this is the run's first record under this code."""


class DeadLetter(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An entry that nobody could read or that belongs to no run, with its bytes (base64 in JSON)."""

    reason: str
    at: int
    entry: Position
    body: bytes
    workflow: str = ""
    key: str = ""
    type: str = ""
    id: str = ""


class CloudEvent(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """CloudEvents 1.0 in JSON: what the outbox holds and `send` takes."""

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str = ""
    time: str = ""
    datacontenttype: str = "application/json"
    data: Raw = Raw(b"null")
    traceparent: str = ""
    tracestate: str = ""
    longwatchhops: int = 0
    longwatchcause: str = ""
    """The event, timer or call that made the publishing run move."""


_encode = msgspec.json.Encoder().encode
_record = msgspec.json.Decoder(Record).decode
_letter = msgspec.json.Decoder(DeadLetter).decode


def write_record(record: Record | DeadLetter | CloudEvent) -> bytes:
    return _encode(record)


def read_record(raw: bytes) -> Record:
    return _record(raw)


def read_letter(raw: bytes) -> DeadLetter:
    return _letter(raw)
