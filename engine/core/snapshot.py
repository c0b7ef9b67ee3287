"""What is stored of a run between two entries: a snapshot, a tombstone, or events that came before their run.

One codec for all: JSON in the order of the fields, defaults left out, so the same value always gives the same bytes
(user data is written by pydantic in the order of its fields). `v` counts changes of this form.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from engine.core.entry import EventEntry
from engine.core.ids import CallId, RunId
from engine.core.record import Asks, CallStatus, Episode, Group, Halted, Spent

FORMAT = 1


class Pending(Struct, omit_defaults=True, frozen=True):
    """A call that has no result yet."""

    id: CallId
    step: str
    input: Raw
    since: int
    """When it was made, log ms."""
    work: str = ""
    """The `@runs` method whose result it is; empty: nobody waits for it."""
    slot: int = 0
    attempt: int = 1
    status: CallStatus = "running"
    due: int = 0
    error: str = ""
    failures: int = 0
    """Attempts that failed and count, since the call or its last kept result."""
    outages: int = 0
    """Those that failed and do not count."""
    kept: int = 0
    """How many results of it are kept, beside the snapshot."""
    note: str = ""
    asks: Asks | None = None
    """What it asks a person."""
    tokens: int = 0
    cost: int = 0
    """What it has used."""
    reserved: bool = False
    """Its step's bounds are reserved from the budgets: so much, of this account, whatever they are by now."""
    held_tokens: int = 0
    held_cost: int = 0
    account: str = ""
    asked: str = ""
    """Of a call that another run answers: where in the trace it was asked, as a `traceparent`."""


class Progress(Struct, omit_defaults=True, frozen=True):
    """A `@runs` of which some results are in."""

    work: str
    size: int
    results: tuple[tuple[int, Raw], ...] = ()


class Timer(Struct, omit_defaults=True, frozen=True):
    """A timer that is set."""

    due: int
    handler: str
    owner: str = ""
    """The superstate that set it; empty: the state itself."""


class Snapshot(Struct, omit_defaults=True, kw_only=True, tag_field="t", tag="run"):
    """A run at rest between two entries. The fold works on a copy."""

    v: int = FORMAT
    run: RunId
    version: int
    code: str = ""
    state: str
    data: Raw
    visit: int = 0
    seq: int = 0
    entered: int = 0
    ended: int = 0
    """When it reached a `Final` (or was cancelled) while calls were still in flight."""
    groups: tuple[Group, ...] = ()
    calls: tuple[Pending, ...] = ()
    works: tuple[Progress, ...] = ()
    timers: tuple[Timer, ...] = ()
    kept: tuple[EventEntry, ...] = ()
    """Events kept by `later` for the first state that handles them."""
    seen: tuple[tuple[int, str], ...] = ()
    """(log ms, hash of source and id) of the events of the last 7 days, at most 1,000."""
    hops: int = 0
    """How many published events led here without an event from outside or a timer that took time."""
    hopped: int = 0
    """When that number was set, log ms; a timer that is due then has taken none."""
    halted: Halted | None = None
    halted_timer: Timer | None = None
    """The timer whose handler halted the run; none: an entry did, the first of those held."""
    held: int = 0
    broken: bytes = b""
    """Stored bytes that this code could not read, kept as they were."""
    prev: str = ""
    taken: str = ""
    """Who has taken upon himself what waits for people here."""
    spent: Spent | None = None
    """The run's own budget."""
    episode: Episode | None = None
    """What is going on, until the run rests."""
    began: int = 0
    """When the run began, log ms; 0: it did before that was kept."""


class Tombstone(Struct, omit_defaults=True, frozen=True, array_like=True, tag="over"):
    """A run that is over, so that nothing begins it again by mistake."""

    run: RunId
    ended: int
    expires: int
    seq: int
    state: str
    prev: str


class Early(Struct, omit_defaults=True, frozen=True, tag_field="t", tag="early"):
    """Events that came before their run, kept until it starts or they expire."""

    expires: int
    events: tuple[tuple[int, str, EventEntry], ...] = ()
    """(log ms, position, event)"""


Stored = Snapshot | Tombstone | Early

_snapshot = msgspec.json.Decoder(Snapshot).decode
_tombstone = msgspec.json.Decoder(Tombstone).decode
_early = msgspec.json.Decoder(Early).decode
_encode = msgspec.json.Encoder().encode


def read_stored(raw: bytes) -> Stored:
    """Raises `msgspec.DecodeError` for bytes that are none of the three."""
    if is_grave(raw):
        return _tombstone(raw)
    return _early(raw) if raw.startswith(b'{"t":"early"') else _snapshot(raw)


def is_grave(raw: bytes) -> bool:
    """Whether stored bytes are a tombstone: it alone is an array."""
    return raw.startswith(b"[")


def grave_of(snap: Snapshot, retention: int) -> Tombstone:
    """What is left of a run that is over, for `retention` log ms."""
    return Tombstone(snap.run, snap.ended, snap.ended + retention, snap.seq, snap.state, snap.prev)


def write_stored(stored: Stored) -> bytes:
    return _encode(stored)
