"""A log in memory, for tests: the same answers as a durable one, no waiting, a clock that the test moves."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from engine.log.checks import check_end, check_partition
from engine.log.errors import Fenced, LogUnavailable
from engine.log.protocol import (
    START,
    Batch,
    Header,
    Item,
    Output,
    Position,
    Publication,
    Receipt,
    Topic,
    order_of,
    output_id,
)


class MemoryLog:
    """`engine.log.protocol.Log` in memory; `cursor()` and `appender()` give the other two shapes over the same entries.

    Set `available` to False to see what a user does without its log.
    """

    def __init__(self, partitions: int = 16, lapse: float = 1.0, clock: Callable[[], int] = int) -> None:
        """Make an empty log.

        Args:
            partitions: how many.
            lapse: log milliseconds of one of the clock.
            clock: wall time, ms; one that goes back is not followed. By default it stands at 0.
        """
        self.header = Header("memory", partitions, clock(), lapse)
        self.available = True
        self.epoch = 0
        self._clock = clock
        self._items: dict[tuple[Topic, int], list[Item]] = {}
        self._orders: dict[tuple[Topic, int], list[tuple[int, int]]] = {}
        self._verdicts: list[dict[Position, bytes]] = [{} for _ in range(partitions)]
        self._publications: list[Publication] = []
        self._lock = threading.Lock()

    def cursor(self, epoch: int | None = None) -> MemoryCursor:
        """A cursor that writes in an epoch, by default the newest."""
        return MemoryCursor(self, self.epoch if epoch is None else epoch)

    def appender(self) -> MemoryAppender:
        """An appender."""
        return MemoryAppender(self)

    def take_epoch(self) -> int:
        """Fence all cursors that write in earlier epochs."""
        self.epoch += 1
        return self.epoch

    def append(self, partition: int, payload: bytes) -> Receipt:
        """See `Log.append`."""
        self.check_available()
        check_partition(self.header, partition)
        with self._lock:
            orders = self._orders.setdefault(("log", partition), [])
            head, rest = orders[-1] if orders else (0, 0)
            now = self._clock()
            order = (now, 0) if now > head else (head, rest + 1)
            position = Position(f"{order[0]}-{order[1]}")
            self._items.setdefault(("log", partition), []).append(Item(position, order[0], payload))
            orders.append(order)
        return Receipt(partition, position)

    def append_many(self, entries: Sequence[tuple[int, bytes]]) -> list[Receipt]:
        """See `Log.append_many`."""
        return [self.append(partition, payload) for partition, payload in entries]

    def tail(self, partition: int) -> Position | None:
        """See `Log.tail`."""
        self.check_available()
        items = self._items.get(("log", partition))
        return Position(items[-1].id) if items else None

    def scan(self, topic: Topic, partition: int, after: str | None = None, until: str | None = None) -> Iterator[Item]:
        """See `Log.scan`."""
        self.check_available()
        orders, items = self._orders.get((topic, partition), []), self._items.get((topic, partition), [])
        start = bisect_right(orders, order_of(after or START))
        stop = len(items) if until is None else bisect_right(orders, order_of(until))
        return iter(items[start:stop])

    def get(self, topic: Topic, partition: int, item: str) -> Item | None:
        """See `Log.get`."""
        return next((found for found in self.scan(topic, partition, until=item) if found.id == item), None)

    def follow(
        self, topic: Topic, after: Mapping[int, str | None], wait_ms: int, count: int = 1000
    ) -> dict[int, list[Item]]:
        """See `Log.follow`; never waits."""
        del wait_ms
        found = {partition: list(self.scan(topic, partition, last))[:count] for partition, last in after.items()}
        return {partition: items for partition, items in found.items() if items}

    def verdicts(self, partition: int, after: Position | None) -> dict[Position, bytes]:
        """See `Log.verdicts`."""
        self.check_available()
        stored, least = self._verdicts[partition], order_of(after or START)
        return {position: stored[position] for position in sorted(stored, key=order_of) if order_of(position) > least}

    def trim(self, partition: int, through: Position) -> None:
        """See `Log.trim`; a log in memory has no archive and keeps everything."""

    def publications(self) -> list[Publication]:
        """See `Log.publications`."""
        return self._publications

    def close(self) -> None:
        """See `Log.close`."""

    def check_available(self) -> None:
        """Stand for a server that is away.

        Raises:
            LogUnavailable: a test has said so.
        """
        if not self.available:
            msg = "log in memory: `available` was set to False; set it to True and call reconnect()"
            raise LogUnavailable(msg)

    def store(self, topic: Output, partition: int, item: Item) -> None:
        """Store an output unless it or a later one is there."""
        with self._lock:
            orders = self._orders.setdefault((topic, partition), [])
            order = order_of(item.id)
            if not orders or order > orders[-1]:
                orders.append(order)
                self._items.setdefault((topic, partition), []).append(item)

    def store_verdict(self, partition: int, position: Position, payload: bytes) -> bytes:
        """Store a verdict unless one stands."""
        with self._lock:
            return self._verdicts[partition].setdefault(position, payload)

    def publish(self, positions: Mapping[int, Position]) -> None:
        """Store a publication."""
        self._publications.append(Publication(self._clock(), dict(positions)))


class MemoryCursor:
    """`engine.log.protocol.Cursor` in memory. Stricter than a server: outputs that do not rise are an error at once."""

    def __init__(self, log: MemoryLog, epoch: int) -> None:
        self.log = log
        self.epoch = epoch
        self._positions: dict[int, Position] = {}
        self._passed: dict[int, Position] | None = None
        self._queue: list[tuple[Output, int, Item]] = []
        self._last: dict[tuple[Output, int], tuple[int, int]] = {}

    @property
    def header(self) -> Header:
        """What was fixed when the log was made."""
        return self.log.header

    def assign(self, positions: Mapping[int, Position | None]) -> None:
        """See `Cursor.assign`."""
        wanted = {partition: position or START for partition, position in sorted(positions.items())}
        for partition, position in wanted.items():
            check_end(self.header, partition, position, self.log.tail(partition))
        self._positions = wanted
        self._passed = dict(wanted)

    def read(self, count: int, wait_ms: int) -> list[Batch]:
        """See `Cursor.read`; never waits."""
        self.flush()
        found = self.log.follow("log", self._positions, wait_ms, max(1, count // max(1, len(self._positions))))
        batches = [Batch(p, [(Position(i), stamp, data) for i, stamp, data in items]) for p, items in found.items()]
        for partition, entries in batches:
            self._positions[partition] = entries[-1][0]
        return batches

    def put(self, topic: Output, partition: int, position: Position, index: int, payload: bytes) -> None:
        """See `Cursor.put`.

        Raises:
            ValueError: not greater than what was put before.
        """
        item = output_id(position, index)
        order, last = order_of(item), self._last.get((topic, partition), (-1, -1))
        if order <= last:
            msg = (
                f"{topic} of partition {partition}: output {index} of entry {position} comes after a later one; "
                "put in rising order"
            )
            raise ValueError(msg)
        self._last[topic, partition] = order
        self._queue.append((topic, partition, Item(item, order[0], payload)))

    def passed(self, positions: Mapping[int, Position]) -> None:
        """See `Cursor.passed`."""
        self._passed = {**(self._passed or {}), **positions}

    def flush(self) -> None:
        """See `Cursor.flush`."""
        self._check_epoch()
        for output in self._queue:
            self.log.store(*output)
        self._queue.clear()
        if self._passed is not None:
            self.log.publish(self._passed)
            self._passed = None

    def verdict(self, partition: int, position: Position, payload: bytes) -> bytes:
        """See `Cursor.verdict`."""
        self._check_epoch()
        return self.log.store_verdict(partition, position, payload)

    def verdicts(self, partition: int, after: Position | None) -> dict[Position, bytes]:
        """See `Cursor.verdicts`."""
        return self.log.verdicts(partition, after)

    def tail(self, partition: int) -> Position | None:
        """See `Cursor.tail`."""
        return self.log.tail(partition)

    def reconnect(self) -> None:
        """See `Cursor.reconnect`."""
        self.log.check_available()
        for partition, position in self._positions.items():
            check_end(self.header, partition, position, self.log.tail(partition))

    def close(self) -> None:
        """See `Cursor.close`."""
        self._queue.clear()

    def _check_epoch(self) -> None:
        self.log.check_available()
        if self.epoch < self.log.epoch:
            newer = self.log.epoch
            msg = f"this engine was replaced: epoch {newer} writes now, and this is epoch {self.epoch}; it must stop"
            raise Fenced(msg)


class MemoryAppender:
    """`engine.log.protocol.Appender` in memory: what is appended while the log is away waits for `drain`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self._waiting: list[tuple[int, bytes]] = []

    @property
    def waiting(self) -> int:
        """See `Appender.waiting`."""
        return len(self._waiting)

    def append(self, partition: int, payload: bytes) -> None:
        """See `Appender.append`."""
        self._waiting.append((partition, payload))
        if self.log.available:
            self._send()

    def keep(self, partition: int, payload: bytes) -> Awaitable[None]:
        """See `Appender.keep`."""
        self.append(partition, payload)
        return self.drain()

    async def drain(self) -> None:
        """See `Appender.drain`; raises instead of waiting when the log is away."""
        self._send()

    async def close(self) -> None:
        """See `Appender.close`."""
        self._waiting.clear()

    def _send(self) -> None:
        while self._waiting:
            self.log.append(*self._waiting[0])
            del self._waiting[0]
