"""A span that a library made inside a step, as it travels in the entry of its attempt or part, and on the record.

The array `spans` of a record is in the order in which the spans began. Parents are real ids: of the attempt, of the
kept part, or of another inner span that is recorded too; so nothing has to be joined to draw it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

Value = str | bool | int | float | list[Any]

OK: Final = 1
FAILED: Final = 2


class InnerSpan(Struct, frozen=True, array_like=True, omit_defaults=True):
    """One span. Times are WALL nanoseconds since the epoch."""

    id: str
    """16 hex digits; empty: no span, but the word on what is missing (`dropped`), always the last of its array."""
    parent: str = ""
    """16 hex digits."""
    name: str = ""
    kind: int = 0
    """As OpenTelemetry's API counts: 0 internal, 1 server, 2 client, 3 producer, 4 consumer. OTLP counts from 1."""
    start: int = 0
    end: int = 0
    status: int = 0
    """0 unset, 1 ok, 2 error."""
    message: str = ""
    """Of an error."""
    attributes: dict[str, Value] = {}
    events: int = 0
    """How many events it had; they are not kept."""
    scope: str = ""
    """Who made it, such as `opentelemetry.instrumentation.httpx`."""
    dropped: int = 0
    """Spans that are missing: beyond the bound, or not ended when the attempt was."""


_decode = msgspec.json.Decoder(tuple[InnerSpan, ...]).decode
_encode = msgspec.json.Encoder().encode


def read_inner(raw: bytes) -> tuple[tuple[InnerSpan, ...], int]:
    """The spans in `spans` of an entry or a record, and how many are missing; nothing of what cannot be read."""
    if not raw:
        return (), 0
    try:
        found = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return (), 0
    return tuple(span for span in found if span.id), sum(span.dropped for span in found)


def write_inner(spans: list[InnerSpan], dropped: int = 0) -> bytes:
    """The JSON array of an entry; no bytes at all where there is nothing to say."""
    if dropped:
        spans = [*spans, InnerSpan("", dropped=dropped)]
    return _encode(spans) if spans else b""
