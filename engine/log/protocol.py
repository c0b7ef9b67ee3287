"""What the engine asks of a durable log, whatever stands behind it.

A log has a fixed number of partitions. Entries are appended to a partition and read from it in order; an entry has
a *position* (opaque, ordered by `order_of`) and a *stamp* (the log's own wall clock in milliseconds). What the engine
makes of an entry goes out to three *topics* under the triple (partition, position, index), so that the same output made
again after a crash is the same item and is dropped. Verdicts stand beside the log, one a position at most.

Three kinds of users, three shapes:

- `Cursor`: the partition engine. Synchronous, owned by one thread, one round trip a read.
- `Appender`: the steps. On an asyncio loop, never waits, sends again by itself.
- `Log`: everybody else (command line, view, janitor, replay).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NewType, Protocol

from engine.core.ids import Position

__all__ = [
    "FORMAT",
    "INDEX_BITS",
    "MAX_INDEX",
    "START",
    "Appender",
    "Batch",
    "Cursor",
    "Header",
    "Item",
    "Log",
    "OutputId",
    "Position",
    "Publication",
    "Receipt",
    "Topic",
    "last_output",
    "order_of",
    "output_id",
    "place_of",
]

FORMAT = 1
"""Version of everything stored under a header."""

INDEX_BITS = 20
MAX_INDEX = (1 << INDEX_BITS) - 1
"""One entry makes at most so many outputs of a topic, less one."""

OutputId = NewType("OutputId", str)
"""A position and an index as one id; ordered by `order_of` like a position."""

Topic = Literal["log", "journal", "outbox", "dead"]
Output = Literal["journal", "outbox", "dead"]

START = Position("0-0")
"""Before the first entry of every partition."""


def order_of(position: str) -> tuple[int, int]:
    """The order of positions of one partition, and of output ids of one topic and partition."""
    head, _, rest = position.partition("-")
    return int(head), int(rest or 0)


def output_id(position: str, index: int) -> OutputId:
    """The id of the output number `index` of the entry at `position`.

    Raises:
        ValueError: `index` is negative or above `MAX_INDEX`.
    """
    if not 0 <= index <= MAX_INDEX:
        msg = f"output {index} of entry {position}: an entry has outputs 0 to {MAX_INDEX}; let its handler put out less"
        raise ValueError(msg)
    head, rest = order_of(position)
    return OutputId(f"{head}-{rest << INDEX_BITS | index}")


def last_output(position: str) -> OutputId:
    """The greatest id that an output of the entry at `position` can have."""
    return output_id(position, MAX_INDEX)


def place_of(output: str) -> tuple[Position, int]:
    """The entry's position and the index that make up an output's id."""
    head, rest = order_of(output)
    return Position(f"{head}-{rest >> INDEX_BITS}"), rest & MAX_INDEX


@dataclass(frozen=True)
class Header:
    """What was fixed when the log was made."""

    log_id: str
    partitions: int
    origin: int
    """Wall time of the making, ms: here wall and log time are equal."""
    lapse: float = 1.0
    """Milliseconds of log time in one of the wall."""
    format: int = FORMAT
    _ratio: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.lapse >= 1 or self.lapse == float("inf"):
            msg = f"lapse {self.lapse}: a wall second is one log second or more; give a number from 1"
            raise ValueError(msg)
        object.__setattr__(self, "_ratio", self.lapse.as_integer_ratio())

    def log_time(self, stamp: int) -> int:
        """Log time of a stamp: `origin + (stamp - origin) * lapse`, rounded down, in whole numbers throughout."""
        numerator, denominator = self._ratio
        return self.origin + (stamp - self.origin) * numerator // denominator

    def wall_time(self, log_ms: int) -> int:
        """The first wall millisecond whose log time is `log_ms` or later."""
        numerator, denominator = self._ratio
        return self.origin - (self.origin - log_ms) * denominator // numerator


class Batch(NamedTuple):
    """Entries of one partition in order: (position, stamp, payload)."""

    partition: int
    entries: list[tuple[Position, int, bytes]]


class Item(NamedTuple):
    """One stored thing: `id` is a position on the log itself, an `OutputId` on the other topics."""

    id: str
    stamp: int
    payload: bytes


class Receipt(NamedTuple):
    """Where an entry stands. Given only when the log has acknowledged it."""

    partition: int
    position: Position


class Publication(NamedTuple):
    """Positions that a cursor has passed, and when: a checkpoint that was triggered later holds them or later ones."""

    at: int
    """Wall time of the engine's machine, ms."""
    positions: dict[int, Position]


class Cursor(Protocol):
    """Reads partitions and puts out what was made of their entries. One thread; not a coroutine in sight."""

    @property
    def header(self) -> Header: ...

    def assign(self, positions: Mapping[int, Position | None]) -> None:
        """Read these partitions from now on, each after its position (None: from the beginning).

        A position that is older than what the log still holds is read from the archive first.

        Raises:
            LogLost: a position is ahead of the log's end.
        """

    def read(self, count: int, wait_ms: int) -> list[Batch]:
        """Send what is queued, read about `count` entries of all partitions, wait at most `wait_ms` when there is none.

        When it returns, everything that was queued before is acknowledged.

        Raises:
            LogUnavailable: what was queued is kept, and nothing was read.
            Fenced, LogLost: stop.
        """

    def put(self, topic: Output, partition: int, position: Position, index: int, payload: bytes) -> None:
        """Queue an output. Those of a topic and partition must come in rising (position, index)."""

    def passed(self, positions: Mapping[int, Position]) -> None:
        """Queue the publication of positions that the next checkpoint will hold."""

    def flush(self) -> None:
        """Return when all that is queued is acknowledged; raises as `read` does."""

    def verdict(self, partition: int, position: Position, payload: bytes) -> bytes:
        """Store a verdict at once, unless one stands at that position; what stands then."""

    def verdicts(self, partition: int, after: Position | None) -> dict[Position, bytes]:
        """The verdicts behind a position."""

    def tail(self, partition: int) -> Position | None:
        """The position of the last entry ever appended to a partition; None when there was none."""

    def reconnect(self) -> None:
        """Connect again after `LogUnavailable` and check that this is still the same log.

        Raises:
            LogUnavailable: not yet.
            LogLost: another log, or one that ends before a position that was read.
        """

    def close(self) -> None:
        """Drop the connection; what is queued is lost, so `flush` before."""


class Appender(Protocol):
    """Appends from an asyncio loop without ever waiting.

    At least once: after a broken connection an entry may stand twice.
    """

    @property
    def waiting(self) -> int:
        """How many appends are not acknowledged yet."""

    def append(self, partition: int, payload: bytes) -> None:
        """Append; those to one partition stay in order.

        Raises:
            LogLost: the server that came back is not the log that was opened.
        """

    def keep(self, partition: int, payload: bytes) -> Awaitable[None]:
        """Append; what is given back is done when the log has acknowledged exactly this."""

    async def drain(self) -> None:
        """Return when all is acknowledged."""

    async def close(self) -> None:
        """Drop the connection."""


class Log(Protocol):
    """The log for everybody but the partition engine. Synchronous; one thread at a time."""

    @property
    def header(self) -> Header: ...

    def append(self, partition: int, payload: bytes) -> Receipt: ...

    def append_many(self, entries: Sequence[tuple[int, bytes]]) -> list[Receipt]:
        """Append in one round trip; all are acknowledged, or it raises."""

    def tail(self, partition: int) -> Position | None: ...

    def scan(self, topic: Topic, partition: int, after: str | None = None, until: str | None = None) -> Iterator[Item]:
        """All of a topic and partition behind `after` up to and with `until`: archive, then log, no gap, no double."""

    def get(self, topic: Topic, partition: int, item: str) -> Item | None:
        """One item by its id, from log or archive."""

    def follow(
        self, topic: Topic, after: Mapping[int, str | None], wait_ms: int, count: int = 1000
    ) -> dict[int, list[Item]]:
        """What came behind these ids in all these partitions, by one read; waits when there is nothing."""

    def verdicts(self, partition: int, after: Position | None) -> dict[Position, bytes]: ...

    def trim(self, partition: int, through: Position) -> None:
        """Drop from the log what is archived: entries, outputs and verdicts up to and with a position."""

    def publications(self) -> Sequence[Publication]:
        """What cursors have `passed`, in the order in which the log got it."""

    def close(self) -> None: ...
