"""A log in Redis for everybody but the partition engine: command line, client, view, janitor, replay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Self
from uuid import uuid4

import msgspec

from engine.log.archive import Archive
from engine.log.checks import check_partition, check_same_log, check_settings
from engine.log.errors import LogBusy, LogError, LogUnavailable
from engine.log.lease import LEASE_SECONDS, Lease, Owner
from engine.log.protocol import (
    FORMAT,
    START,
    Header,
    Item,
    Position,
    Publication,
    Receipt,
    Topic,
    last_output,
    order_of,
)
from engine.log.redis_keys import (
    CREATE,
    EPOCH,
    FIELD,
    HEADER,
    LEASE,
    PASSED,
    RELEASE,
    RENEW,
    TAKE,
    TRIM,
    TRIMMED,
    Script,
    header_of,
    stream,
    tail_of,
    verdicts,
    verdicts_of,
)
from engine.log.redis_wire import Address, Reply, Wire, blocking, encode

CHUNK = 500
"""Items of one answer while scanning."""
TRIMMED_TOPICS: tuple[Topic, ...] = ("log", "journal", "outbox", "dead")


class RedisLog:
    """`engine.log.protocol.Log` over Redis Streams. It connects again by itself; what was under way then raises."""

    def __init__(self, url: str, header: Header, archive: Archive | None = None) -> None:
        """Use `create` or `open`."""
        self._address = Address.parse(url)
        self._archive = archive
        self._header = header
        self._wire: Wire | None = None
        self._lease: Lease | None = None
        self._trimmed: dict[int, Position] = {}
        self._readers: dict[tuple[Topic, int], _ArchiveReader] = {}
        self._publications: list[bytes] = []

    @classmethod
    def create(cls, url: str, partitions: int = 16, lapse: float = 1.0, archive: Archive | None = None) -> Self:
        """Make the log, or open the one that is there.

        Raises:
            LogMismatch: the one that is there was made otherwise.
        """
        if partitions < 1 or partitions & (partitions - 1):
            msg = f"log {url}: {partitions} partitions were asked for; a log has a power of two of them, 16 serve well"
            raise LogError(msg)
        wanted = Header(uuid4().hex, partitions, 0, lapse)
        address = Address.parse(url)
        wire = Wire(address)
        try:
            fields = ("log_id", wanted.log_id, "partitions", partitions, "lapse", float(lapse), "format", FORMAT)
            wire.call("EVAL", CREATE.source, 2, HEADER, EPOCH, *fields)
        finally:
            wire.close()
        return cls.open(url, archive, partitions=partitions, lapse=lapse)

    @classmethod
    def open(
        cls,
        url: str,
        archive: Archive | None = None,
        *,
        partitions: int | None = None,
        lapse: float | None = None,
        log_id: str | None = None,
    ) -> Self:
        """Open the log that is there; what is given is compared with its header.

        Raises:
            LogUnavailable: nobody answers.
            LogLost: there is none, or not the one with this id.
            LogMismatch: it was made otherwise.
        """
        address = Address.parse(url)
        wire = Wire(address)
        try:
            header = header_of(wire.call("HGETALL", HEADER), address)
        finally:
            wire.close()
        check_same_log(header, log_id, address)
        check_settings(header, partitions, lapse, address)
        return cls(url, header, archive)

    @property
    def header(self) -> Header:
        """What was fixed when the log was made."""
        return self._header

    def close(self) -> None:
        """See `Log.close`."""
        if self._wire:
            self._wire.close()
            self._wire = None

    # -- appending and reading

    def append(self, partition: int, payload: bytes) -> Receipt:
        """See `Log.append`."""
        return self.append_many([(partition, payload)])[0]

    def append_many(self, entries: Sequence[tuple[int, bytes]]) -> list[Receipt]:
        """See `Log.append_many`."""
        for partition, _ in entries:
            check_partition(self._header, partition)
        ids = self._ask_all([encode("XADD", stream("log", p), "*", FIELD, payload) for p, payload in entries])
        return [Receipt(partition, Position(raw.decode())) for (partition, _), raw in zip(entries, ids, strict=True)]

    def tail(self, partition: int) -> Position | None:
        """See `Log.tail`."""
        try:
            return tail_of(self._connected(), partition)
        except LogUnavailable:
            self.close()
            raise

    def scan(self, topic: Topic, partition: int, after: str | None = None, until: str | None = None) -> Iterator[Item]:
        """See `Log.scan`."""
        check_partition(self._header, partition)
        last = after or START
        while True:
            items, trimmed = self._chunk(topic, partition, last, until or "+")
            if order_of(trimmed) > order_of(last):
                # What lies between is archived, and was before the chunk was read: begin again behind it.
                for item in self._archived(topic, partition, last, until):
                    last = item.id
                    yield item
                last = max(last, trimmed, key=order_of)
                if until and order_of(last) >= order_of(until):
                    return
                continue
            yield from items
            if len(items) < CHUNK:
                return
            last = items[-1].id

    def scan_held(self, topic: Topic, partition: int, after: str | None, until: str) -> Iterator[Item]:
        """Like `scan`, of what the server holds only: for who fills the archive."""
        last = after or START
        while items := self._chunk(topic, partition, last, until)[0]:
            yield from items
            last = items[-1].id

    def get(self, topic: Topic, partition: int, item: str) -> Item | None:
        """See `Log.get`."""
        check_partition(self._header, partition)
        found = _items(self._ask("XRANGE", stream(topic, partition), item, item))
        if found:
            return found[0]
        return self._archive.get(topic, partition, item) if self._archive else None

    def follow(
        self, topic: Topic, after: Mapping[int, str | None], wait_ms: int, count: int = 1000
    ) -> dict[int, list[Item]]:
        """See `Log.follow`."""
        found = self._catch_up(topic, after, count)
        if found:
            return found
        names = [stream(topic, p) for p in after]
        positions = (last or START for last in after.values())
        request = encode("XREAD", "COUNT", count, *blocking(wait_ms), "STREAMS", *names, *positions)
        reply, trimmed = self._ask_all([request, encode("HGETALL", TRIMMED)])
        self._trimmed = _trimmed(trimmed)
        read = {name.decode(): items for name, items in reply or ()}
        answer = {p: _items(read[name]) for p, name in zip(after, names, strict=True) if name in read}
        # Trimmed past a reader between two reads: what it got now has a gap before it, so the archive comes first.
        behind = {p: last for p, last in after.items() if self._lags(topic, p, last)}
        return {p: items for p, items in answer.items() if p not in behind} | self._catch_up(topic, behind, count)

    def _chunk(self, topic: Topic, partition: int, after: str, until: str) -> tuple[list[Item], str]:
        """Held items, and how far the topic was trimmed when they were read."""
        request = encode("XRANGE", stream(topic, partition), f"({after}", until, "COUNT", CHUNK)
        items, trimmed = self._ask_all([request, encode("HGET", TRIMMED, partition)])
        return _items(items), end_of_trim(topic, trimmed.decode() if trimmed else START)

    # -- what was trimmed

    def _archived(self, topic: Topic, partition: int, after: str, until: str | None) -> Iterator[Item]:
        if self._archive is None:
            msg = (
                f"log {self._address}: {topic} of partition {partition} behind {after} stands in the archive, "
                "and none was given; use the data folder that has it"
            )
            raise LogError(msg)
        return self._archive.scan(topic, partition, after, until)

    def _lags(self, topic: Topic, partition: int, after: str | None) -> bool:
        """Whether something behind `after` may stand in the archive alone."""
        end = end_of_trim(topic, self._trimmed.get(partition, START))
        if order_of(end) <= order_of(after or START):
            return False
        reader = self._readers.get((topic, partition))
        return reader is None or not reader.is_through(after, end)

    def _catch_up(self, topic: Topic, after: Mapping[int, str | None], count: int) -> dict[int, list[Item]]:
        """The next items of those partitions whose reader is behind the trim; empty when none is."""
        found = {}
        for partition, last in after.items():
            if self._lags(topic, partition, last):
                end = end_of_trim(topic, self._trimmed[partition])
                reader = self._readers.get((topic, partition))
                if reader is None or not reader.stands_at(last, end):
                    reader = _ArchiveReader(self._archived(topic, partition, last or START, None), last, end)
                    self._readers[topic, partition] = reader
                if items := reader.next(count):
                    found[partition] = items
        return found

    def trim(self, partition: int, through: Position) -> None:
        """See `Log.trim`."""
        check_partition(self._header, partition)
        stood = self._ask("HGET", TRIMMED, partition)
        if stood and order_of(stood.decode()) >= order_of(through):
            return
        old = [p for p in self.verdicts(partition, None) if order_of(p) <= order_of(through)]
        keys = (EPOCH, TRIMMED, verdicts(partition), *(stream(topic, partition) for topic in TRIMMED_TOPICS))
        ends = (_next(end_of_trim(topic, through)) for topic in TRIMMED_TOPICS)
        epoch = self._lease.epoch if self._lease else ""
        self._run(TRIM, keys, epoch, partition, through, *ends, *old)

    def verdicts(self, partition: int, after: Position | None) -> dict[Position, bytes]:
        """See `Log.verdicts`."""
        return verdicts_of(self._ask("HGETALL", verdicts(partition)), after)

    def publications(self) -> list[Publication]:
        """See `Log.publications`."""
        found = self._ask("XRANGE", PASSED, "-", "+")
        self._publications = [raw for raw, _ in found]
        return [_decode_publication(fields[1]) for _, fields in found]

    def forget_publications(self, count: int) -> None:
        """Drop the first of the last answer of `publications`."""
        if 0 < count < len(self._publications):
            self._ask("XTRIM", PASSED, "MINID", self._publications[count])

    def held(self, topic: Topic, partition: int) -> tuple[int, int | None]:
        """How many items the server holds, and the stamp of the oldest."""
        name = stream(topic, partition)
        size, first = self._ask_all([encode("XLEN", name), encode("XRANGE", name, "-", "+", "COUNT", 1)])
        return size, _items(first)[0].stamp if first else None

    # -- the lease

    def lease(self) -> Lease | None:
        """Who has the log now, or had it last and did not give it back."""
        raw = self._ask("GET", LEASE)
        return msgspec.json.decode(raw, type=Lease) if raw else None

    def take_lease(self, owner: Owner | None = None, seconds: float = LEASE_SECONDS) -> Lease:
        """Take the log for an engine, with a new epoch: older ones cannot write from now on.

        A dead owner on this machine is replaced at once, one elsewhere when its lease has expired.

        Raises:
            LogBusy: the owner lives, or may.
        """
        owner = owner or Owner.this_process()
        raw, epoch, now = self._ask_all([encode("GET", LEASE), encode("GET", EPOCH), encode("TIME")])
        if raw:
            self._check_free(msgspec.json.decode(raw, type=Lease), owner, _ms(now))
        lease = Lease(int(epoch or 0) + 1, owner, _ms(now) + int(seconds * 1000))
        self._run(TAKE, (EPOCH, LEASE), raw or "", epoch or "0", lease.epoch, msgspec.json.encode(lease))
        self._lease = lease
        return lease

    def renew_lease(self, lease: Lease, seconds: float = LEASE_SECONDS) -> Lease:
        """Move the end of the lease.

        Raises:
            Fenced: another engine has taken the log.
        """
        renewed = Lease(lease.epoch, lease.owner, _ms(self._ask("TIME")) + int(seconds * 1000))
        self._run(RENEW, (EPOCH, LEASE), lease.epoch, msgspec.json.encode(renewed))
        self._lease = renewed
        return renewed

    def release_lease(self, lease: Lease) -> None:
        """Give the log back; harmless when another engine has taken it."""
        self._run(RELEASE, (EPOCH, LEASE), lease.epoch)
        self._lease = None

    def _check_free(self, lease: Lease, taker: Owner, now: int) -> None:
        if lease.is_free(now, taker):
            return
        owner = lease.owner
        wait = "" if owner.is_local() else f", or wait {max(0, lease.expires - now) / 1000:.0f} s if it is dead"
        msg = f"log {self._address}: {owner} runs on it; a log has one engine: stop that one{wait}"
        raise LogBusy(msg, host=owner.host, pid=owner.pid)

    # -- connection

    def _run(self, script: Script, keys: Sequence[str], *arguments: bytes | str | int) -> Reply:
        return self._ask("EVAL", script.source, len(keys), *keys, *arguments)

    def _ask(self, *arguments: bytes | str | float) -> Reply:
        return self._ask_all([encode(*arguments)])[0]

    def _ask_all(self, requests: list[bytes]) -> list[Reply]:
        try:
            return self._connected().call_all(requests)
        except LogUnavailable:
            self.close()
            raise

    def _connected(self) -> Wire:
        if self._wire is None:
            wire = Wire(self._address)
            try:
                check_same_log(
                    header_of(wire.call("HGETALL", HEADER), self._address), self._header.log_id, self._address
                )
            except LogError:
                wire.close()
                raise
            self._wire = wire
        return self._wire


class _ArchiveReader:
    """Where a follower is in the archive, so that the next part needs no new search."""

    def __init__(self, items: Iterator[Item], after: str | None, end: str) -> None:
        self._items = items
        self._after = after
        self._end = end
        self._through = False

    def stands_at(self, after: str | None, end: str) -> bool:
        return not self._through and (after, end) == (self._after, self._end)

    def is_through(self, after: str | None, end: str) -> bool:
        """Whether the archive was read up to a trim and had nothing more behind `after`."""
        return self._through and (after, end) == (self._after, self._end)

    def next(self, count: int) -> list[Item]:
        items = list(islice(self._items, count))
        if items:
            self._after = items[-1].id
        else:
            self._through = True
        return items


_decode_publication = msgspec.json.Decoder(Publication).decode


def _items(found: list[tuple[bytes, list[bytes]]]) -> list[Item]:
    items = []
    for raw, fields in found:
        item = raw.decode()
        items.append(Item(item, int(item[: item.index("-")]), fields[1]))
    return items


def _trimmed(flat: list[bytes]) -> dict[int, Position]:
    return {int(p): Position(through.decode()) for p, through in zip(flat[::2], flat[1::2], strict=True)}


def end_of_trim(topic: Topic, through: str) -> str:
    """The last id of a topic that a trim through a position of the log reaches."""
    return through if topic == "log" or through == START else last_output(through)


def _next(item: str) -> str:
    head, rest = order_of(item)
    return f"{head}-{rest + 1}"


def _ms(now: list[bytes]) -> int:
    seconds, microseconds = now
    return int(seconds) * 1000 + int(microseconds) // 1000
