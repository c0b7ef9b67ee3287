"""A span as people and servers see it, with nothing of OpenTelemetry's SDK: it is data, made from a record."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

Value = str | bool | int | float | tuple[str | bool | int | float, ...]
Attributes = tuple[tuple[str, Value], ...]

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
PRODUCER: Final = 4
CONSUMER: Final = 5
"""OTLP's numbers of `SpanKind`."""

UNSET: Final = 0
OK: Final = 1
ERROR: Final = 2
"""OTLP's numbers of `StatusCode`."""


class Link(Struct, frozen=True, gc=False):
    """Another span that this one has to do with."""

    trace: str
    id: str
    reason: str


class Span(Struct, frozen=True, kw_only=True):
    """One span. Ids are hex digits, times nanoseconds since the epoch in log time."""

    trace: str
    id: str
    parent: str = ""
    name: str
    kind: int = INTERNAL
    start_ns: int
    end_ns: int
    status: int = UNSET
    message: str = ""
    """Of an error."""
    attributes: Attributes = ()
    links: tuple[Link, ...] = ()
    dropped: int = 0
    """How many attributes were left out."""

    @property
    def named(self) -> dict[str, Value]:
        """The attributes by name."""
        return dict(self.attributes)


class Common:
    """Attributes that spans of one record share; with what they come to in bytes, once somebody has made that."""

    __slots__ = ("base", "count", "more", "raw")

    def __init__(self, more: Attributes, base: Common | None = None) -> None:
        self.base, self.more = base, more
        self.count: int = len(more) if base is None else len(more) + base.count
        self.raw = b""

    @property
    def pairs(self) -> Attributes:
        """All of them."""
        return self.more if self.base is None else (*self.base.pairs, *self.more)


class Draft(Struct, gc=False):
    """A span on its way: what the record's spans have in common stands beside it once, and no bound is applied yet."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    common: Common
    attributes: Attributes = ()
    status: int = UNSET
    message: str = ""
    links: tuple[Link, ...] = ()
    dropped: int = 0
