"""Names of traces and spans, hashed from what they stand for: the same in every fold, replay and export.

Nothing here draws a random number or reads a clock, so a span that is sent twice is the same span.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

if TYPE_CHECKING:
    from engine.core.record import Episode

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII | re.DOTALL)
_UBER: Final = re.compile(r"([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[0-9a-fA-F]{0,16}:([0-9a-fA-F]{1,2})", re.ASCII)
_SAMPLED: Final = 1
_ZEROES: Final = ("0" * 16, "0" * 32)


def episode_trace(run: str, episode: Episode) -> str:
    """The trace of an episode, 32 hex digits: that of the run which caused it, else one of its own."""
    if episode.inside and (caused := parse_traceparent(episode.traceparent)):
        return caused[0]
    return _hash(16, f"trace\x1f{run}\x1f{episode.seq}")


def run_trace(run: str) -> str:
    """The trace of a whole run, 32 hex digits."""
    return _hash(16, f"run\x1f{run}")


def span_id(kind: str, *parts: str | int) -> str:
    """The span of what `parts` name, 16 hex digits; see `observability.projection` for the kinds."""
    return _hash(8, "\x1f".join([kind, *map(str, parts)]))


def attempt_parent(trace: str, run: str, call: str, attempt: int) -> str:
    """`traceparent` of an attempt: what `span_id` says of it, in less time, since every call of the fold needs one."""
    text = f"attempt\x1f{run}\x1f{call}\x1f{attempt}"
    return f"00-{trace}-{_hash(8, text)}-01"


def traceparent(trace: str, span: str) -> str:
    """W3C `traceparent` of a span that is recorded."""
    return f"00-{trace}-{span}-01"


def parse_traceparent(text: str) -> tuple[str, str] | None:
    """(trace, span) of a W3C `traceparent`; None: it is broken.

    Source: W3C Trace Context, "traceparent Header Field Values" and "Versioning of traceparent": hex digits are small,
    ids are not all zero, version ff is none, and a version that is not known yet may have more fields behind.
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace, span, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or _zero(trace) or _zero(span):
        return None
    return trace, span


def from_uber(text: str) -> str:
    """The `traceparent` of Jaeger's `uber-trace-id`; empty: it is broken.

    Source: Jaeger, "Client Libraries: Propagation Format": `{trace-id}:{span-id}:{parent-span-id}:{flags}`, ids in hex
    of any length, the whole URL-encoded by some.
    """
    found = _UBER.fullmatch(unquote(text.strip()))
    if found is None:
        return ""
    trace, span, flags = found[1].lower().zfill(32), found[2].lower().zfill(16), int(found[3], 16)
    return "" if _zero(trace) or _zero(span) else f"00-{trace}-{span}-{flags & _SAMPLED:02x}"


def _hash(size: int, text: str) -> str:
    digest = blake2b(text.encode(), digest_size=size).hexdigest()
    return digest if digest not in _ZEROES else digest[:-1] + "1"


def _zero(digits: str) -> bool:
    return not digits.strip("0")
