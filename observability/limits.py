"""What a server can hold: longer values are cut with a mark, and no text breaks an encoding.

Bounds: OpenTelemetry's SDKs keep 128 attributes of a span. Values have no bound there; Jaeger with Elasticsearch
refuses a field of more than 32,766 bytes, and a page of a trace is sent to the browser whole, so 4 KB is enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from observability.span import Span

if TYPE_CHECKING:
    from observability.span import Attributes, Draft, Value

LONGEST_VALUE: Final = 4096
"""Bytes of a text in UTF-8."""
LONGEST_NAME: Final = 256
MOST_ATTRIBUTES: Final = 128
MOST_LINKS: Final = 128
MOST_VALUES: Final = 64
"""Of a list."""
MAX_INT: Final = (1 << 63) - 1
MAX_NS: Final = (1 << 64) - 1
_UNKNOWN: Final = "\ufffd"


def clean(text: str, longest: int = LONGEST_VALUE) -> str:
    """The text without what no server takes, cut where it is too long."""
    if text.isascii() and len(text) <= longest and "\0" not in text:
        return text
    text = text.replace("\0", _UNKNOWN)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raw = text.encode()
    if len(raw) <= longest:
        return text
    mark = f"... [cut, {len(raw)} bytes]"
    return raw[: longest - len(mark)].decode(errors="ignore") + mark


def fit(value: Value) -> Value:
    """A value that OTLP can carry: a whole number beyond 64 bits becomes a text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, tuple):
        return tuple(one for each in value[:MOST_VALUES] if not isinstance(one := fit(each), tuple))
    if isinstance(value, int) and not -MAX_INT - 1 <= value <= MAX_INT:
        return str(value)[:LONGEST_NAME]
    return value


def moment(ns: int) -> int:
    """A time that fits its 64 bits."""
    return min(max(ns, 0), MAX_NS)


def ending(draft: Draft) -> int:
    """When it ends, a nanosecond after its beginning at least: Jaeger takes a span of no length for a wrong one."""
    return moment(max(draft.end_ns, draft.start_ns + 1))


def joined(common: Attributes, own: Attributes) -> tuple[Attributes, int]:
    """All attributes of a span, each name once, and how many are left out."""
    named = dict(common)
    named.update((key, value) for key, value in own if key not in named)
    kept = tuple((clean(key, LONGEST_NAME), fit(value)) for key, value in named.items())
    return kept[:MOST_ATTRIBUTES], max(0, len(kept) - MOST_ATTRIBUTES)


def whole(draft: Draft) -> Span:
    """The span as a server gets it."""
    attributes, dropped = joined(draft.common.pairs, draft.attributes)
    return Span(
        trace=draft.trace,
        id=draft.id,
        parent=draft.parent,
        name=clean(draft.name, LONGEST_NAME),
        kind=draft.kind,
        start_ns=moment(draft.start_ns),
        end_ns=ending(draft),
        status=draft.status,
        message=clean(draft.message),
        attributes=attributes,
        links=draft.links[:MOST_LINKS],
        dropped=dropped + draft.dropped,
    )
