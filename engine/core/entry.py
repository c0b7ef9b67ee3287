"""What stands on the log: everything that can change a run, and nothing else can.

Nine kinds, told apart by the field `t`. User data travels inside as JSON that the core does not open before the fold.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec
from msgspec import Raw, Struct

from engine.core.ids import CallId, RunId

NULL = Raw(b"null")
NO_SPANS = Raw(b"")
"""A field of inner spans that is left out."""


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
    who: str = ""
    """The person whose answer it is."""
    visit: int = 0
    """The visit of a state that the person saw: the answer counts in it alone. 0: in any."""
    baggage: str = ""
    """W3C baggage: handed on, and never read."""


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
    spans: Raw = NO_SPANS
    """What libraries traced inside it: a JSON array that the core does not open."""


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
    outage: bool = False
    """The other side is down: the attempt does not count."""
    halts: bool = False
    """An operator's matter: the run halts."""
    inner: str = ""
    """What of the call failed, where it keeps results: the name given to `once`."""
    spans: Raw = NO_SPANS


class Used(Struct, frozen=True, omit_defaults=True):
    """What a model call took. Tokens as the provider counts them."""

    model: str
    """The model asked for, as the application names it."""
    answered: str = ""
    """The model that answered, as its provider names it."""
    provider: str = ""
    input: int = 0
    output: int = 0
    cached: int = 0
    """Of the input, read from the provider's cache."""
    thought: int = 0
    """Of the output, spent on reasoning."""
    cost: int | None = None
    """Millionths of a euro; None: the price is not known, which is not zero."""
    finish: str = ""
    request: str = ""
    """The provider's id of the request."""

    @property
    def tokens(self) -> int:
        """All that counts against a budget."""
        return self.input + self.output


Kind = Literal["once", "model", "tool", "progress"]


class KeptEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="kept"):
    """A part of a call is done, and its result is kept: what `StepContext.once` ran. Or the call says how far it is."""

    cause: ClassVar[str] = "kept"
    workflow: str
    key: str
    run: RunId
    call: CallId
    attempt: int
    index: int
    """How many results of this call are kept before it."""
    name: str
    output: Raw = NULL
    kind: Kind = "once"
    note: str = ""
    """Of a progress: its words."""
    used: Used | None = None
    again: bool = False
    """An earlier attempt may have begun it too, and whether that came to anything is not known."""
    started: int = 0
    took: int = 0
    spans: Raw = NO_SPANS


class AskedEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="asked"):
    """A call waits for a person's word."""

    cause: ClassVar[str] = "asked"
    workflow: str
    key: str
    run: RunId
    call: CallId
    attempt: int
    name: str
    group: str
    question: str
    schema: Raw = NULL
    """JSON schema of the answer."""
    started: int = 0
    took: int = 0
    spans: Raw = NO_SPANS


class AnswerEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="answer"):
    """A person's word to a call that waits for it, or to a run whose budget is spent."""

    cause: ClassVar[str] = "answer"
    workflow: str
    key: str
    call: CallId
    name: str
    who: str
    answer: Raw


class Asker(Struct, frozen=True, omit_defaults=True):
    """The call of a run that a question comes from; without a call nobody waits for the answer."""

    workflow: str
    key: str
    run: RunId
    call: CallId = CallId("")


class QuestionEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="question"):
    """A run asks another one."""

    cause: ClassVar[str] = "question"
    workflow: str
    key: str
    type: str
    data: Raw
    asker: Asker
    traceparent: str = ""
    id: str = ""
    """Its own among all that are asked: after a crash it may come twice. Empty: who is asked sees to that."""
    tracestate: str = ""
    baggage: str = ""


class TickEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="tick"):
    """A timer of an idle run came due: it brings time, and changes nothing by itself."""

    cause: ClassVar[str] = "tick"
    workflow: str
    key: str
    due: int


Order = Literal["resume", "skip", "retry", "cancel", "take", "release"]


class OrderEntry(Struct, frozen=True, omit_defaults=True, tag_field="t", tag="order"):
    """An operator's word."""

    cause: ClassVar[str] = "order"
    workflow: str
    key: str
    order: Order
    who: str
    why: str = ""


Entry = (
    EventEntry
    | ResultEntry
    | FailureEntry
    | TickEntry
    | OrderEntry
    | KeptEntry
    | AskedEntry
    | AnswerEntry
    | QuestionEntry
)

_decode = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.Encoder().encode


def read_entry(raw: bytes) -> Entry:
    """Raises `msgspec.DecodeError` (its words name the field) for bytes that are no entry."""
    entry: Entry = _decode(raw)
    return entry


def write_entry(entry: Entry) -> bytes:
    return _encode(entry)
