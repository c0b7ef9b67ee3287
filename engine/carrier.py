"""What of a trace travels beside an event: W3C headers, and `uber-trace-id` of Jaeger's old clients.

None of it is a reason to refuse an event. What is broken is taken over as text, so that whoever looks for a trace that
is not there finds what came instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from engine.core.trace import from_uber

JAEGER: Final = ("uber-trace-id", "ubertraceid")
"""The header's name, and how it is written where names have no hyphens, as CloudEvents' attributes."""
NAMES: Final = frozenset(("traceparent", "tracestate", "baggage", *JAEGER))
MAX_TRACEPARENT: Final = 256
MAX_TRACESTATE: Final = 512
"""W3C Trace Context, "tracestate Limits"."""
MAX_BAGGAGE: Final = 8192
"""W3C Baggage, "Limits"."""


class Carried(NamedTuple):
    """What is taken over."""

    traceparent: str = ""
    tracestate: str = ""
    baggage: str = ""


def carried(headers: Mapping[str, str]) -> Carried:
    """What headers say, whose names may be written in any case; of Jaeger's only where there is no `traceparent`."""
    found = {name.lower(): _text(value) for name, value in headers.items() if name.lower() in NAMES}
    parent = found.get("traceparent") or _of_jaeger(found)
    return Carried(
        parent[:MAX_TRACEPARENT],
        _cut(found.get("tracestate", ""), MAX_TRACESTATE),
        _cut(found.get("baggage", ""), MAX_BAGGAGE),
    )


def _of_jaeger(found: Mapping[str, str]) -> str:
    text = next((found[name] for name in JAEGER if found.get(name)), "")
    return from_uber(text) or text


def _text(value: str) -> str:
    return value.strip().encode(errors="replace").decode()


def _cut(text: str, most: int) -> str:
    """A list without those of its last members that are too many."""
    if len(text) <= most:
        return text
    return text[: most + 1].rpartition(",")[0].rstrip()
