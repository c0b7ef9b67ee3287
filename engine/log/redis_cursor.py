"""The partition engine's connection to a log in Redis.

What a slice puts out waits here as bytes that are already encoded, and goes out as one script call in front of the next
read: one write, one round trip. When the connection breaks the bytes stay, and are sent again as they are; ids that the
server has already are refused by it, and that is the acknowledgement.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Protocol

import hiredis
import msgspec

from engine.log.checks import check_end, check_same_log
from engine.log.errors import LogError, LogLost, LogUnavailable
from engine.log.protocol import (
    INDEX_BITS,
    MAX_INDEX,
    START,
    Batch,
    Header,
    Item,
    Output,
    Position,
    Publication,
    Topic,
    order_of,
    output_id,
)
from engine.log.redis_keys import (
    EPOCH,
    HEADER,
    PASSED,
    PUT,
    TRIMMED,
    VERDICT,
    check_epoch,
    header_of,
    pairs,
    stream,
    tail_of,
    verdicts,
    verdicts_of,
)
from engine.log.redis_wire import Address, Reply, Wire, blocking, bulk, bulks, encode, refused

PUBLISH_SECONDS = 0.25
"""Positions are published at most so often: trimming works in minutes, and each publication costs a write."""
LEAST_COUNT = 50
"""A read takes at least so many entries of each partition that has them."""
READ_BYTES = 64 << 20
"""A read takes no more than that, going by the entries that came last: events may have a megabyte."""
OUTPUTS: tuple[Output, ...] = ("journal", "outbox", "dead")
GET_EPOCH = encode("GET", EPOCH)
PUT_ARGUMENTS = 7
"""Of the script call, before the outputs: EVALSHA, hash, number of keys, two keys, epoch, publication."""


class Reads(Protocol):
    """What a cursor asks of an archive."""

    def scan(
        self, topic: Topic, partition: int, after: str | None = None, until: str | None = None
    ) -> Iterator[Item]: ...


class RedisCursor:
    """`engine.log.protocol.Cursor` over Redis Streams."""

    def __init__(self, url: str, epoch: int, archive: Reads | None = None, log_id: str | None = None) -> None:
        """Connect.

        Args:
            url: where the server is.
            epoch: of this engine; writes are refused when the log has a later one.
            archive: read for positions that the log no longer holds.
            log_id: the log that is expected; None takes any.

        Raises:
            LogUnavailable: nobody answers.
            LogLost: there is no log, or another one.
        """
        self._address = Address.parse(url)
        self._archive = archive
        self._epoch = epoch
        self._positions: dict[int, Position] = {}
        self._behind: dict[int, Iterator[Item]] = {}
        self._gone: dict[int, Position] = {}
        self._queue: list[bytes] = []
        self._passed: dict[int, Position] = {}
        self._unpublished = False
        self._published = 0.0
        self._put_head = bulks("EVALSHA", PUT.sha, 2, EPOCH, PASSED, epoch)
        self._size = 1
        self._wire: Wire | None = None
        self._header = self._connect(log_id)
        partitions = range(self._header.partitions)
        self._streams = {topic: [bulk(stream(topic, p)) for p in partitions] for topic in OUTPUTS}
        self._partition_of = {stream("log", p).encode(): p for p in partitions}

    @property
    def header(self) -> Header:
        """What was fixed when the log was made."""
        return self._header

    # -- connection

    def reconnect(self) -> None:
        """See `Cursor.reconnect`."""
        self.close()
        self._connect(self._header.log_id)
        self.assign(self._positions)

    def close(self) -> None:
        """See `Cursor.close`."""
        if self._wire:
            self._wire.close()
            self._wire = None

    def _connect(self, log_id: str | None) -> Header:
        wire = Wire(self._address)
        try:
            loads = [encode("SCRIPT", "LOAD", script.source) for script in (PUT, VERDICT)]
            fields, *_ = wire.call_all([encode("HGETALL", HEADER), *loads])
            header = header_of(fields, self._address)
            check_same_log(header, log_id, self._address)
        except LogError:
            wire.close()
            raise
        self._wire = wire
        return header

    def _ask(self, *arguments: bytes | str | int) -> Reply:
        try:
            return self._connected().call(*arguments)
        except LogUnavailable:
            self.close()
            raise

    def _connected(self) -> Wire:
        if self._wire is None:
            msg = f"log {self._address}: not connected; call reconnect()"
            raise LogUnavailable(msg)
        return self._wire

    # -- reading

    def assign(self, positions: Mapping[int, Position | None]) -> None:
        """See `Cursor.assign`."""
        wanted = {partition: position or START for partition, position in sorted(positions.items())}
        gone = pairs(self._ask("HGETALL", TRIMMED))
        for partition, position in wanted.items():
            check_end(self._header, partition, position, self.tail(partition))
        self._gone = {int(p): Position(q) for p, q in gone.items()}
        self._behind = {p: self._archived(p, q) for p, q in wanted.items() if self._lags(p, q)}
        self._positions = wanted
        self._passed = dict(wanted)
        self._unpublished, self._published = True, 0.0

    def tail(self, partition: int) -> Position | None:
        """See `Cursor.tail`."""
        wire = self._connected()
        try:
            return tail_of(wire, partition)
        except LogUnavailable:
            self.close()
            raise

    def _lags(self, partition: int, position: Position) -> bool:
        return partition in self._gone and order_of(position) < order_of(self._gone[partition])

    def _archived(self, partition: int, position: Position) -> Iterator[Item]:
        if self._archive is None:
            msg = (
                f"log {self._address}, partition {partition}: entries behind {position} are archived up to "
                f"{self._gone[partition]}, and no archive was given; start with the data folder that has it"
            )
            raise LogLost(msg)
        return self._archive.scan("log", partition, position)

    def read(self, count: int, wait_ms: int) -> list[Batch]:
        """See `Cursor.read`."""
        current = [p for p in self._positions if p not in self._behind]
        wait = 0 if self._behind else wait_ms
        request = self._request(current, count, wait) if current else b""
        # The epoch is asked for last, behind the wait: an engine that was replaced must not even begin the steps of
        # entries that the new one reads as well.
        *found, epoch = self._exchange(request + GET_EPOCH, 1 + bool(current))
        check_epoch(epoch, self._epoch)
        batches = [self._batch(name, items) for reply in found for name, items in reply or ()]
        if self._behind:
            batches += self._catch_up(count)
        largest = 1
        for partition, entries in batches:
            self._positions[partition] = entries[-1][0]
            largest = max(largest, len(entries[-1][2]))
        self._size = max(largest, self._size * 3 // 4)
        return batches

    def _request(self, partitions: list[int], count: int, wait_ms: int) -> bytes:
        share = max(min(count, LEAST_COUNT), count // len(partitions))
        share = max(1, min(share, READ_BYTES // (len(partitions) * self._size)))
        names = [stream("log", p) for p in partitions]
        return encode(
            "XREAD", "COUNT", share, *blocking(wait_ms), "STREAMS", *names, *(self._positions[p] for p in partitions)
        )

    def _batch(self, name: bytes, items: list[tuple[bytes, list[bytes]]]) -> Batch:
        entries = []
        for raw, fields in items:
            position = raw.decode()
            entries.append((Position(position), int(position[: position.index("-")]), fields[1]))
        return Batch(self._partition_of[name], entries)

    def _catch_up(self, count: int) -> list[Batch]:
        """A part of what stands in the archive alone; a partition that is through it goes on in the log."""
        batches = []
        for partition, items in list(self._behind.items()):
            part = list(islice(items, max(LEAST_COUNT, count // len(self._behind))))
            if part:
                batches.append(Batch(partition, [(Position(i), stamp, payload) for i, stamp, payload in part]))
            else:
                del self._behind[partition]
                self._positions[partition] = max(self._positions[partition], self._gone[partition], key=order_of)
        return batches

    # -- writing

    def put(self, topic: Output, partition: int, position: Position, index: int, payload: bytes) -> None:
        """See `Cursor.put`."""
        if not 0 <= index <= MAX_INDEX:
            output_id(position, index)
        head, _, rest = position.partition("-")
        item = b"%b-%d" % (head.encode(), int(rest) << INDEX_BITS | index)
        name = self._streams[topic][partition]
        self._queue.append(b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n" % (name, len(item), item, len(payload), payload))

    def passed(self, positions: Mapping[int, Position]) -> None:
        """See `Cursor.passed`."""
        self._passed.update(positions)
        self._unpublished = True

    def flush(self) -> None:
        """See `Cursor.flush`."""
        self._exchange(b"", 0)

    def verdict(self, partition: int, position: Position, payload: bytes) -> bytes:
        """See `Cursor.verdict`."""
        key = verdicts(partition)
        stood: bytes = self._ask("EVALSHA", VERDICT.sha, 2, EPOCH, key, self._epoch, position, payload)
        return stood

    def verdicts(self, partition: int, after: Position | None) -> dict[Position, bytes]:
        """See `Cursor.verdicts`."""
        return verdicts_of(self._ask("HGETALL", verdicts(partition)), after)

    def _exchange(self, requests: bytes, count: int) -> list[Reply]:
        """Send what is queued and then so many requests, wait for all; the requests' replies."""
        publication = self._publication()
        writes = self._writes(publication) if self._queue or publication else b""
        if not writes and not requests:
            return []
        wire = self._connected()
        try:
            wire.send(writes + requests)
            written = wire.raw_reply() if writes else None
            replies = [wire.raw_reply() for _ in range(count)]
            _raise_errors(written)
            self._acknowledged(bool(publication))
            _raise_errors(*replies)
        except LogUnavailable:
            self.close()
            raise
        return replies

    def _writes(self, publication: bytes) -> bytes:
        size = PUT_ARGUMENTS + 3 * len(self._queue)
        return b"".join((b"*%d\r\n" % size, self._put_head, bulk(publication), *self._queue))

    def _publication(self) -> bytes:
        """What to publish now, or nothing. Its time is this machine's: a checkpoint's is Flink's, on the same one."""
        if not self._unpublished or time.monotonic() - self._published < PUBLISH_SECONDS:
            return b""
        return msgspec.json.encode(Publication(int(time.time() * 1000), self._passed))

    def _acknowledged(self, published: bool) -> None:  # noqa: FBT001 - private
        self._queue.clear()
        if published:
            self._unpublished, self._published = False, time.monotonic()


def _raise_errors(*replies: Reply) -> None:
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise refused(reply)
