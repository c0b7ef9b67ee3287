"""What stands on the log: everything that can change a run, and nothing else can.

Five kinds, told apart by the field `t`. User data travels inside as JSON that the core does not open before the fold.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec
from msgspec import Raw, Struct

from engine.core.ids import CallId, RunId

NULL = Raw(b"null")


class EventEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="event"):
    """An event from outside, or one that a run published, for one run of one workflow."""

    cause: ClassVar[str] = "event"
    workflow: str
    key: str
    id: str
    source: str
    type: str
    data: Raw
    time: str = ""
    """The event's own time as its sender wrote it (RFC 3339); never used by the fold."""
    traceparent: str = ""
    tracestate: str = ""
    hops: int = 0
    """How many published events led here without an event from outside or a timer between."""


class ResultEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="result"):
    """An attempt that answered."""

    cause: ClassVar[str] = "result"
    workflow: str
    key: str
    run: RunId
    call: CallId
    attempt: int
    output: Raw
    started: int = 0
    """Wall time of the attempt's start, ms."""
    took: int = 0
    """Wall duration of the attempt, microseconds."""


class FailureEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="failure"):
    """An attempt that did not answer, or not what its type allows."""

    cause: ClassVar[str] = "failure"
    workflow: str
    key: str
    run: RunId
    call: CallId
    attempt: int
    error: str
    """The exception's class name; `Timeout`, `InvalidResult` and `Cancelled` are the runner's own."""
    message: str = ""
    where: str = ""
    """File and line of the step's code, where there is one."""
    final: bool = False
    """Not to be tried again, whatever is left of the retry."""
    wait: int = 0
    """What the other side asked for before the next attempt, wall ms (`Retry-After`); 0: nothing."""
    started: int = 0
    took: int = 0


class TickEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="tick"):
    """A timer of an idle run came due: it brings time, and changes nothing by itself."""

    cause: ClassVar[str] = "tick"
    workflow: str
    key: str
    due: int


Order = Literal["resume", "skip", "retry", "cancel"]


class OrderEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="order"):
    """An operator's word."""

    cause: ClassVar[str] = "order"
    workflow: str
    key: str
    order: Order
    who: str
    why: str = ""


Entry = EventEntry | ResultEntry | FailureEntry | TickEntry | OrderEntry

_decode = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.Encoder().encode


def read_entry(raw: bytes) -> Entry:
    """Raises `msgspec.DecodeError` (its words name the field) for bytes that are no entry."""
    entry: Entry = _decode(raw)
    return entry


def write_entry(entry: Entry) -> bytes:
    return _encode(entry)
