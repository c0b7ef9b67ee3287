"""Spans in OTLP's own bytes, written by hand: an exporter's time is spent here.

The SDK's span objects and protobuf classes cost more than ten times as much. What the spans of one record have in
common is encoded once and put behind each of them (fields that repeat may stand anywhere in a message, and messages
that stand behind each other are one), names are encoded once for good, and lengths come from a table.

Source: protobuf.dev, "Encoding"; opentelemetry-proto v1, trace.proto, common.proto and trace_service.proto, whose field
numbers are beside the bytes below. Tests read all of it back with the real classes.
"""

from __future__ import annotations

import json
import math
import os
from struct import Struct as Packed
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from observability import names
from observability.limits import (
    LONGEST_NAME,
    LONGEST_VALUE,
    MOST_ATTRIBUTES,
    MOST_LINKS,
    clean,
    ending,
    fit,
    joined,
    moment,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.core.record import Record
    from observability.projection import Projection
    from observability.span import Attributes, Common, Draft, Link, Span, Value

LIMIT: Final = 1 << 20
"""Bytes of one request."""
_KNOWN_NAMES: Final = 4096
"""Encoded names that are kept; a program has far fewer."""
_KNOWN_PAIRS: Final = 1 << 15
_SMALL: Final = 1 << 14
_FEW: Final = 4096

_TIMES: Final = Packed("<BQBQ").pack
_DOUBLE: Final = Packed("<Bd").pack


def _long_varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:  # noqa: PLR2004 (seven bits a byte)
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_VARINTS: Final = tuple(_long_varint(number) for number in range(_SMALL))


def _varint(number: int) -> bytes:
    return _VARINTS[number] if 0 <= number < _SMALL else _long_varint(number)


def _field(tag: bytes, raw: bytes) -> bytes:
    return tag + _varint(len(raw)) + raw


def _text(text: str, longest: int) -> bytes:
    """A text as servers take it."""
    if len(text) > longest or "\0" in text:
        text = clean(text, longest)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return clean(text, longest).encode()
    return raw if len(raw) <= longest else clean(text, longest).encode()


class _Names:
    """Names that come again and again, with the bytes before them and their length."""

    def __init__(self, tag: bytes) -> None:
        self._tag, self._known = tag, dict[str, bytes]()

    def __getitem__(self, name: str) -> bytes:
        found = self._known.get(name)
        if found is None:
            found = _field(self._tag, _text(name, LONGEST_NAME))
            if len(self._known) < _KNOWN_NAMES:
                self._known[name] = found
        return found


_KEYS: Final = _Names(b"\x0a")  # KeyValue.key = 1
_SPAN_NAMES: Final = _Names(b"\x2a")  # Span.name = 5
_SHORT: Final = 120
"""A text so short that all lengths around it are one byte."""


def _any(value: Value) -> bytes:
    """`AnyValue`: string = 1, bool = 2, int = 3, double = 4, array = 5 (values = 1)."""
    if isinstance(value, str):
        return _field(b"\x0a", _text(value, LONGEST_VALUE))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, float):
        return _DOUBLE(0x21, value)
    if isinstance(value, int):
        return b"\x18" + _varint(value)
    return _field(b"\x2a", b"".join([_field(b"\x0a", _any(each)) for each in value]))


def _pair(key: str, value: Value) -> bytes:
    """`Span.attributes` = 9 of `KeyValue`: key = 1, value = 2."""
    pair = _KEYS[key] + _field(b"\x12", _any(fit(value)))
    return b"\x4a" + _varint(len(pair)) + pair


_PAIR_SIZES: Final = tuple(b"\x4a" + _varint(size) for size in range(2 * LONGEST_NAME))
_TEXT_HEADS: Final = tuple(b"\x12" + _varint(size + 2) + b"\x0a" + _varint(size) for size in range(_SHORT))
_NUMBERS: Final = tuple(b"\x12" + _varint(len(raw) + 1) + b"\x18" + raw for raw in _VARINTS[:_FEW])
_STEADY: dict[tuple[str, Value], bytes] = {}
"""Texts that come again and again, encoded with their names."""


def _attributes(pairs: Iterable[tuple[str, Value]]) -> bytes:
    parts: list[bytes] = []
    for pair in pairs:
        key, value = pair
        if type(value) is str:
            found = _STEADY.get(pair)
            if found is not None:
                parts.append(found)
                continue
            size = len(value)
            if key in names.STEADY and len(_STEADY) < _KNOWN_PAIRS and size < _SHORT:
                _STEADY[pair] = found = _pair(key, value)
                parts.append(found)
            elif size < _SHORT and value.isascii() and "\0" not in value:
                name = _KEYS[key]
                parts += (_PAIR_SIZES[len(name) + size + 4], name, _TEXT_HEADS[size], value.encode())
            else:
                parts.append(_pair(key, value))
        elif type(value) is int and 0 <= value < _FEW:
            name, number = _KEYS[key], _NUMBERS[value]
            parts += (_PAIR_SIZES[len(name) + len(number)], name, number)
        else:
            parts.append(_pair(key, value))
    return b"".join(parts)


def _common(common: Common) -> bytes:
    """What is in common, encoded the first time it is wanted."""
    raw = common.raw
    if not raw:
        before = b"" if common.base is None else _common(common.base)
        raw = common.raw = before + _attributes(common.more)
    return raw


def _links(links: tuple[Link, ...]) -> bytes:
    """`Span.links` = 13 of `Link`: trace_id = 1, span_id = 2, attributes = 4."""
    parts = []
    for link in links[:MOST_LINKS]:
        reason = _KEYS[names.REASON] + _field(b"\x12", _any(link.reason))
        raw = b"\x0a\x10%b\x12\x08%b%b" % (
            bytes.fromhex(link.trace),
            bytes.fromhex(link.id),
            _field(b"\x22", reason),
        )
        parts.append(_field(b"\x6a", raw))
    return b"".join(parts)


def write_draft(draft: Draft) -> bytes:
    """One element of `ScopeSpans.spans` = 2.

    Of `Span`: trace_id = 1, span_id = 2, parent_span_id = 4, name = 5, kind = 6, start = 7, end = 8, attributes = 9,
    dropped_attributes_count = 10, links = 13, status = 15 (message = 2, code = 3).
    """
    own, dropped = draft.attributes, draft.dropped
    if len(own) + draft.common.count <= MOST_ATTRIBUTES:
        common = _common(draft.common)
    else:
        own, more = joined(draft.common.pairs, own)
        common, dropped = b"", dropped + more
    parts = [
        b"\x0a\x10",
        bytes.fromhex(draft.trace),
        b"\x12\x08",
        bytes.fromhex(draft.id),
        b"\x22\x08" + bytes.fromhex(draft.parent) if draft.parent else b"",
        _SPAN_NAMES[draft.name],
        b"\x30",
        _varint(draft.kind),
        _TIMES(0x39, moment(draft.start_ns), 0x41, ending(draft)),
        common,
        _attributes(own),
    ]
    if dropped:
        parts += (b"\x50", _varint(dropped))
    if draft.links:
        parts.append(_links(draft.links))
    if draft.status:
        message = _field(b"\x12", _text(draft.message, LONGEST_VALUE)) if draft.message else b""
        parts.append(_field(b"\x7a", message + b"\x18" + _varint(draft.status)))
    raw = b"".join(parts)
    return b"\x12" + _varint(len(raw)) + raw


class Encoder:
    """Records to requests, for one log."""

    def __init__(self, projection: Projection, resource: Attributes) -> None:
        self._projection = projection
        # Fields 1 throughout: attributes of the resource, the resource itself, the scope and its name.
        pairs = [_KEYS[key] + _field(b"\x12", _any(fit(value))) for key, value in resource]
        self._resource = _field(b"\x0a", b"".join([_field(b"\x0a", pair) for pair in pairs]))
        self._scope = _field(b"\x0a", _field(b"\x0a", names.SCOPE.encode()))
        self._schema = _field(b"\x1a", names.SCHEMA.encode())

    def spans(self, record: Record) -> list[bytes]:
        """The spans of a record, each as an element of a request."""
        return [write_draft(draft) for draft in self._projection.drafts(record)]

    def request(self, spans: Iterable[bytes]) -> bytes:
        """An `ExportTraceServiceRequest` of spans that `spans` gave."""
        scoped = b"".join((self._scope, *spans, self._schema))
        return _field(b"\x0a", self._resource + _field(b"\x12", scoped))

    def batches(self, records: Iterable[Record], limit: int = LIMIT) -> Iterator[tuple[bytes, int]]:
        """Requests of at most `limit` bytes, unless one span alone has more, and how many spans are in each."""
        waiting: list[bytes] = []
        size = room = len(self.request(()))
        for record in records:
            for span in self.spans(record):
                if waiting and size + len(span) > limit:
                    yield self.request(waiting), len(waiting)
                    waiting, size = [], room
                waiting.append(span)
                size += len(span)
        if waiting:
            yield self.request(waiting), len(waiting)


def resource_of(log_id: str, environ: Mapping[str, str] = os.environ) -> Attributes:
    """What all spans of a log say of where they come from: nothing that differs from one export to the next.

    Source: OpenTelemetry, "Environment Variable Specification": OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
    (`key=value` by commas, percent-encoded).
    """
    told = {names.SERVICE_NAME: names.SERVICE, names.LOG_ID: log_id, names.CLOCK: log_id}
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, sign, value = pair.partition("=")
        if sign and key.strip():
            told[unquote(key.strip())] = unquote(value.strip())
    if name := environ.get("OTEL_SERVICE_NAME", ""):
        told[names.SERVICE_NAME] = name
    return tuple(told.items())


_ENDLESS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""What protobuf's JSON calls numbers that JSON has no words for."""


# -- as JSON -----------------------------------------------------------------------------------------------------------


def to_json(spans: Iterable[Span], resource: Attributes) -> bytes:
    """An `ExportTraceServiceRequest` in OTLP's JSON: ids in hex, 64 bits as texts."""
    scoped = {"scope": {"name": names.SCOPE}, "spans": [_json_span(span) for span in spans], "schemaUrl": names.SCHEMA}
    whole = {"resource": {"attributes": _json_pairs(resource)}, "scopeSpans": [scoped]}
    return json.dumps({"resourceSpans": [whole]}, ensure_ascii=False).encode()


def _json_span(span: Span) -> dict[str, Any]:
    told: dict[str, Any] = {
        "traceId": span.trace,
        "spanId": span.id,
        "parentSpanId": span.parent,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _json_pairs(span.attributes),
        "droppedAttributesCount": span.dropped,
        "links": [
            {"traceId": link.trace, "spanId": link.id, "attributes": _json_pairs(((names.REASON, link.reason),))}
            for link in span.links
        ],
    }
    if span.status:
        told["status"] = {"message": span.message, "code": span.status}
    return told


def _json_pairs(pairs: Attributes) -> list[dict[str, Any]]:
    return [{"key": key, "value": _json_value(fit(value))} for key, value in pairs]


def _json_value(value: Value) -> dict[str, Any]:
    match value:
        case str():
            return {"stringValue": value}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value if math.isfinite(value) else _ENDLESS[str(value)]}
        case _:
            return {"arrayValue": {"values": [_json_value(each) for each in value]}}
