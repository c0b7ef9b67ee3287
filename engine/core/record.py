"""What a transition did: the journal's lines, from which the run view, histories, spans and metrics are made.

A record is a pure function of the log: a replay makes the same bytes. One entry makes none (a tick too early), one, or
several (timers that came due before it), numbered by `index`. `prev` names the run's record before, so that a history
is read back from its end without a scan.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from engine.core.entry import NO_SPANS, Asker, Kind, Used
from engine.core.ids import CallId, Position, RunId

NOTHING = NO_SPANS
"""No JSON at all: a field that is left out. It has to be this very object."""

Cause = Literal["event", "result", "failure", "timer", "order", "kept", "asked", "answer", "question"]
Status = Literal["running", "waiting", "halted", "finished"]
CallStatus = Literal["running", "waiting", "queued", "failed", "asking", "asked", "reserving"]
"""Under way, before another attempt, behind others of its `runs_each`, given up; for a person, a run, a budget."""


class PendingCall(Struct, frozen=True, omit_defaults=True):
    """A call in flight as `show` tells it."""

    id: CallId
    step: str
    attempt: int = 1
    due: int = 0
    """When the next attempt starts (log ms), while it waits for one."""
    status: CallStatus = "running"
    error: str = ""
    kept: int = 0
    """How many results of it are kept."""
    note: str = ""
    """How far it is, in its own words."""


class Asks(Struct, frozen=True, omit_defaults=True):
    """Something of a run waits for a person."""

    group: str
    call: CallId = CallId("")
    """The call that asks; empty: the state does, and its answers are the events that it handles."""
    name: str = ""
    question: str = ""
    since: int = 0
    until: int = 0
    """When a timer of the state leads on, log ms; 0: none does."""
    schema: Raw = NOTHING
    """JSON schema of the answer to a call."""


class Spent(Struct, frozen=True, omit_defaults=True):
    """A run's own budget: what its calls used, what is reserved for those under way, what people added."""

    tokens: int = 0
    cost: int = 0
    """Millionths of a euro."""
    reserved_tokens: int = 0
    reserved_cost: int = 0
    more_tokens: int = 0
    more_cost: int = 0
    unpriced: int = 0
    """Model calls whose price is not known."""


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


class Group(Struct, frozen=True, omit_defaults=True, gc=False):
    """A superstate that the run is in; in `Record.left` a state or superstate that it was in."""

    name: str
    visit: int
    entered: int


class Dropped(Struct, frozen=True, omit_defaults=True, gc=False):
    """A call that was given up although results of it are kept."""

    id: CallId
    step: str
    attempt: int
    since: int


class Episode(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """What one event, timer or order set off, until the run rests again: see `engine.core.episode`."""

    seq: int
    """Of its first record; with the run it is the episode's name."""
    at: int
    cause: Cause = "event"
    name: str = ""
    id: str = ""
    source: str = ""
    state: str = ""
    """Where it began; empty: it began the run."""
    visit: int = 0
    traceparent: str = ""
    """Of what caused it, as it came: it may be broken."""
    tracestate: str = ""
    baggage: str = ""
    inside: bool = False
    """Another run of this log caused it: it goes on with that one's trace."""


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
    """Event type, step, timer's handler, order, or question."""
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
    inner: str = ""
    """Of a call that keeps results: the name of the one that this is about."""
    used: Used | None = None
    again: bool = False
    """What an earlier attempt of it came to is not known. Of a result: this attempt was recorded before, as failed or
    asking, and has answered after all."""
    asker: Asker | None = None
    """Of a question: who asks."""
    asks: tuple[Asks, ...] = ()
    """What of the run waits for people."""
    taken: str = ""
    """Who has taken that upon himself."""
    spent: Spent | None = None
    """The run's own budget, where it has one."""
    timers: tuple[PendingTimer, ...] = ()
    published: tuple[Published, ...] = ()
    data: Raw = NOTHING
    """The state's fields, when this application changed them."""
    fields: dict[str, str] = {}
    """The searchable fields, whenever `data` is there."""
    traceparent: str = ""
    """Of an event or a question: where it came from. Of a result or failure that another run answered with: the place
    of the attempt itself, in the trace in which it was asked."""
    snapshot: str = ""
    """Digest of the snapshot that was left."""
    code: str = ""
    """Digest of the workflow's code that folded."""
    base: Raw = NOTHING
    """The snapshot before, where this is the run's first record under this code."""
    episode: Episode | None = None
    """What this is part of; None: it was made before episodes were kept."""
    ends: bool = False
    """The episode ends here."""
    began: int = 0
    """When the run began, where this finishes it. Of a run from before that was kept: when it entered the state that
    it finished in or from."""
    left: tuple[Group, ...] = ()
    """The state and the superstates that this left, from the inside out; all of them where it ended the run."""
    within: tuple[Group, ...] = ()
    """The superstates around those that this left, in which the run stays, from the inside out."""
    kind: Kind | Literal["", "agent"] = ""
    """Of a kept result. `agent`: of an attempt whose step has a model."""
    started: int = 0
    """When the attempt began, or the part of it that this keeps: wall ms, as `took` is wall time."""
    spans: Raw = NOTHING
    """What libraries traced inside the attempt, or inside the part of it: a JSON array."""
    tracestate: str = ""
    baggage: str = ""
    late: int = 0
    """Of a timer: how long after it was due its entry came."""
    starts: int = 0
    """How many attempts this started."""
    dropped: tuple[Dropped, ...] = ()
    """Calls that this gave up and of which results are kept."""
    asking: tuple[PendingCall, ...] = ()
    """Calls by which this asked other runs, all of them."""
    content: Raw = NOTHING
    """What came in, in a workflow that wants it recorded: never with what is marked `Secret`."""


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
    baggage: str = ""
    longwatchhops: int = 0
    longwatchcause: str = ""
    """The event, timer or call that made the publishing run move."""
    longwatchwho: str = ""
    """The person whose answer it is."""
    longwatchvisit: int = 0
    """The visit of a state that the person saw."""


_encode = msgspec.json.Encoder().encode
_record = msgspec.json.Decoder(Record).decode
_letter = msgspec.json.Decoder(DeadLetter).decode


def write_record(record: Record | DeadLetter | CloudEvent) -> bytes:
    return _encode(record)


def read_record(raw: bytes) -> Record:
    return _record(raw)


def read_letter(raw: bytes) -> DeadLetter:
    return _letter(raw)
