"""What the log no longer holds: segments of compressed JSON lines in day files.

A segment is `TOPIC/PARTITION/TOPIC-PARTITION-FIRST-LAST.jsonl.gz` (positions with a dot for their dash). It is written
aside, synced and renamed, so it is there whole or not at all; the directory listing is the only index of segments.

Inside it is a row of gzip members of about a thousand lines. Each member's header has an extra field (RFC 1952,
2.3.1.1; as BGZF does) with its size and its first and last position: a reader hops from header to header and unpacks
only what it wants, and `zcat` reads the file all the same. A line:

    {"position":"1764000000000-0","stamp":1764000000000,"body":{...}}

Outputs carry `index` beside it. A payload that is not JSON on one line stands base64 in `bytes` in place of `body`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple
from uuid import uuid4

import msgspec
from isal import isal_zlib
from isal.igzip_lib import IsalError
from msgspec import Raw, Struct

from engine.log.errors import LogError
from engine.log.protocol import INDEX_BITS, MAX_INDEX, Item, Topic, order_of, output_id, place_of

SUFFIX = ".jsonl.gz"
ASIDE = ".part"
MEMBER_LINES = 1000
MEMBER_BYTES = 1 << 20
SEGMENT_BYTES = 64 << 20
"""Of the compressed file."""
DAY_MS = 86_400_000
SETTLED_NS = 1_000_000_000
LEVEL = 1
"""Of isal: on entries and records of a flood a fifth of the time of zlib's level 3, and a tenth smaller."""

_HEAD = struct.Struct("<4sIBBH")
"""Of a member: magic, time, flags of the packer, system, length of the extra field."""
_EXTRA = struct.Struct("<2sHI")
"""Mark and length of our part of the extra field, then the member's size; first and last position follow as text."""
_SIZE = struct.Struct("<I")
_FOOT = struct.Struct("<II")
_MAGIC = b"\x1f\x8b\x08\x04"  # gzip, deflate, with an extra field
_UNKNOWN_SYSTEM = 255
_MARK = b"LW"
_START, _END = (-1, 0), (float("inf"), 0)


class _Line(Struct):
    position: str
    stamp: int
    index: int = -1
    body: Raw | msgspec.UnsetType = msgspec.UNSET
    bytes: str = ""


_decode = msgspec.json.Decoder(_Line).decode
_values = msgspec.json.Decoder(list[Raw]).decode


class _Member(NamedTuple):
    """One gzip member, told from its header."""

    offset: int
    size: int
    first: tuple[int, int]
    last: tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """One file of the archive."""

    path: Path
    topic: Topic
    partition: int
    first: str
    last: str
    begin: tuple[int, int]
    """The order of `first`."""
    end: tuple[int, int]
    """The order of `last`."""


class Archive:
    """The archive of a log, in a folder. One writer, any number of readers, of other processes too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[Path, tuple[int, list[Segment]]] = {}

    def segments(self, topic: Topic, partition: int) -> list[Segment]:
        """The segments of a topic and partition in order."""
        folder = self._folder(topic, partition)
        try:
            changed = folder.stat().st_mtime_ns
            stamp, found = self._listings.get(folder, (-1, []))
            if stamp != changed:
                found = _list(folder, topic, partition)
        except FileNotFoundError:
            return []
        # A folder's time is no finer than the kernel's tick: only one that has settled tells of every change.
        if time.time_ns() - changed > SETTLED_NS:
            self._listings[folder] = changed, found
        return found

    def end(self, topic: Topic, partition: int) -> str | None:
        """The last id that is archived, or None."""
        last = max(self.segments(topic, partition), key=lambda segment: segment.end, default=None)
        return last.last if last else None

    def scan(self, topic: Topic, partition: int, after: str | None = None, until: str | None = None) -> Iterator[Item]:
        """Items behind `after` up to and with `until`; each once, also where segments overlap."""
        last = order_of(after) if after else _START
        stop = _END if until is None else order_of(until)
        for segment in self.segments(topic, partition):
            if segment.begin > stop:
                return
            if segment.end <= last:
                continue
            for item in _items(segment, last, stop):
                order = order_of(item.id)
                if last < order <= stop:
                    last = order
                    yield item

    def get(self, topic: Topic, partition: int, item: str) -> Item | None:
        """One item by its id."""
        wanted = order_of(item)
        position = item if topic == "log" else place_of(item)[0]
        for segment in self.segments(topic, partition):
            if segment.begin <= wanted <= segment.end:
                found = _items(segment, wanted, wanted, b'{"position":"%b"' % position.encode())
                return next((each for each in found if each.id == item), None)
        return None

    def write(self, topic: Topic, partition: int, items: Iterable[Item]) -> Iterator[Segment]:
        """Write items, which come in order, as segments of at most a day and 64 MB; each when it is safe on disk."""
        folder = self._folder(topic, partition)
        rest = _parts(items)
        part = next(rest, None)
        if part is not None:
            _make(folder)
        while part is not None:
            with contextlib.closing(_SegmentWriter(folder, topic, partition, part[0])) as writer:
                while part is not None and writer.takes(part):
                    writer.add(part)
                    part = next(rest, None)
                segment = writer.finish()
            yield segment

    def clean(self) -> int:
        """Remove what a crash left half written; for the one writer, before it begins. How many files."""
        leftovers = list(self.folder.glob(f"*/*/*{ASIDE}"))
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def forget(self, topic: Topic, before: int) -> int:
        """Remove the segments of a topic whose last item has a stamp before this wall time, ms; how many."""
        gone = [path for path in self.folder.glob(f"{topic}/*/*{SUFFIX}") if order_of(_ends(path.name)[1])[0] < before]
        for path in gone:
            path.unlink(missing_ok=True)
        return len(gone)

    def _folder(self, topic: Topic, partition: int) -> Path:
        return self.folder / topic / f"{partition:02d}"


def _list(folder: Path, topic: Topic, partition: int) -> list[Segment]:
    names = os.listdir(folder)  # noqa: PTH208 - thousands of names, no need of a Path for each
    found = [_segment(folder, name, topic, partition) for name in names if name.endswith(SUFFIX)]
    return sorted(found, key=lambda segment: segment.begin)


def _segment(folder: Path, name: str, topic: Topic, partition: int) -> Segment:
    first, last = _ends(name)
    return Segment(folder / name, topic, partition, first, last, order_of(first), order_of(last))


def _ends(name: str) -> tuple[str, str]:
    *_, first, last = name.removesuffix(SUFFIX).split("-")
    return first.replace(".", "-"), last.replace(".", "-")


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """What becomes a member each: at most a thousand items or a megabyte, of one day."""
    part: list[Item] = []
    size, midnight = 0, -1
    for item in items:
        if part and (len(part) >= MEMBER_LINES or size >= MEMBER_BYTES or item.stamp >= midnight):
            yield part
            part, size = [], 0
        if not part:
            midnight = (item.stamp // DAY_MS + 1) * DAY_MS
        part.append(item)
        size += len(item.payload)
    if part:
        yield part


class _SegmentWriter:
    """One segment on its way: aside until `finish`, gone when that does not come."""

    def __init__(self, folder: Path, topic: Topic, partition: int, first: Item) -> None:
        self._folder, self._topic, self._partition = folder, topic, partition
        self._day = first.stamp // DAY_MS
        self._first = self._last = first.id
        self._aside = folder / f"{uuid4().hex}{ASIDE}"
        self._file = self._aside.open("xb")
        self._size = 0

    def takes(self, part: list[Item]) -> bool:
        """Whether a part still belongs into this segment."""
        return self._size < SEGMENT_BYTES and part[0].stamp // DAY_MS == self._day

    def add(self, part: list[Item]) -> None:
        """Add a part as a member."""
        self._last = part[-1].id
        member = _pack(part[0].id, self._last, _lines(self._topic, part))
        self._file.write(member)
        self._size += len(member)

    def finish(self) -> Segment:
        """Sync, rename, sync the folder: from here on the segment is there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        ends = "-".join(end.replace("-", ".") for end in (self._first, self._last))
        name = f"{self._topic}-{self._partition:02d}-{ends}{SUFFIX}"
        self._aside.rename(self._folder / name)
        _sync(self._folder)
        return _segment(self._folder, name, self._topic, self._partition)

    def close(self) -> None:
        self._file.close()
        self._aside.unlink(missing_ok=True)


def _lines(topic: Topic, part: list[Item]) -> bytes:
    """The items as lines, a payload in base64 when it would not come back from JSON as it was."""
    head = _entry if topic == "log" else _output
    if _are_plain([item.payload for item in part]):
        return b"".join([b'{%b,"body":%b}\n' % (head(item), item.payload) for item in part])
    return b"".join(
        b'{%b,"body":%b}\n' % (head(item), item.payload)
        if _are_plain([item.payload])
        else b'{%b,"bytes":"%b"}\n' % (head(item), b64encode(item.payload))
        for item in part
    )


def _entry(item: Item) -> bytes:
    return b'"position":"%b","stamp":%d' % (item.id.encode(), item.stamp)


def _output(item: Item) -> bytes:
    head, _, rest = item.id.partition("-")
    number = int(rest)
    place = f'"position":"{head}-{number >> INDEX_BITS}","stamp":{item.stamp},"index":{number & MAX_INDEX}'
    return place.encode()


def _are_plain(payloads: list[bytes]) -> bool:
    """Whether each is JSON on one line and nothing around it.

    They are looked at as one array, which costs less than looking at each: what comes out of it as it went in is a
    value by itself.
    """
    array = b"[%b]" % b",".join(payloads)
    if b"\n" in array or b"\r" in array:
        return False
    try:
        array.decode()
        return [bytes(value) for value in _values(array)] == payloads
    except (UnicodeDecodeError, msgspec.DecodeError):
        return False


def _pack(first: str, last: str, lines: bytes) -> bytes:
    """A gzip member (RFC 1952) whose extra field says how long it is and which positions it holds."""
    packer = isal_zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(lines) + packer.flush()
    ends = f"{first} {last}".encode()
    size = _HEAD.size + _EXTRA.size + len(ends) + len(packed) + _FOOT.size
    head = _HEAD.pack(_MAGIC, 0, 0, _UNKNOWN_SYSTEM, _EXTRA.size + len(ends))
    extra = _EXTRA.pack(_MARK, _SIZE.size + len(ends), size) + ends
    return head + extra + packed + _FOOT.pack(isal_zlib.crc32(lines), len(lines) & 0xFFFFFFFF)


def _make(folder: Path) -> None:
    """Make a folder so that it is still there after a power cut."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _items(segment: Segment, first: tuple[int, int], last: tuple[float, int], beginning: bytes = b"") -> Iterator[Item]:
    """The items of those members that reach into first..last: some before and some behind as well.

    With a `beginning` only the lines that begin so are read, which is far quicker where one is wanted.
    """
    try:
        with segment.path.open("rb") as file:
            for member in _members(file):
                if member.first > last:
                    return
                if member.last >= first:
                    yield from _unpack(file, member, segment.topic, beginning)
    except FileNotFoundError as error:
        if segment.topic == "dead":
            return  # its retention ended after the listing
        msg = f"archive segment {segment.path}: it is gone; bring it back from a copy of the archive"
        raise LogError(msg) from error
    except (IsalError, struct.error, ValueError, msgspec.DecodeError) as error:  # type: ignore[misc]  # stubs: a value
        msg = f"archive segment {segment.path}: it is damaged ({error}); bring it back from a copy of the archive"
        raise LogError(msg) from error


def _members(file: IO[bytes]) -> Iterator[_Member]:
    offset = 0
    while head := _at(file, offset, _HEAD.size):
        magic, _, _, _, extra = _HEAD.unpack(head)
        if magic != _MAGIC:
            msg = f"no member begins at byte {offset}"
            raise ValueError(msg)
        field = _at(file, offset + _HEAD.size, extra)
        _, _, size = _EXTRA.unpack_from(field)
        first, last = field[_EXTRA.size :].decode("ascii").split()
        yield _Member(offset, size, order_of(first), order_of(last))
        offset += size


def _at(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _unpack(file: IO[bytes], member: _Member, topic: Topic, beginning: bytes) -> Iterator[Item]:
    lines = isal_zlib.decompress(_at(file, member.offset, member.size), zlib.MAX_WBITS | 16)
    for raw in _beginning(lines, beginning) if beginning else lines.splitlines():
        line = _decode(raw)
        payload = b64decode(line.bytes) if line.body is msgspec.UNSET else bytes(line.body)
        yield Item(line.position if topic == "log" else output_id(line.position, line.index), line.stamp, payload)


def _beginning(lines: bytes, text: bytes) -> Iterator[bytes]:
    """The lines that begin with a text."""
    at = 0 if lines.startswith(text) else lines.find(b"\n" + text) + 1
    while lines.startswith(text, at):
        end = lines.index(b"\n", at)
        yield lines[at:end]
        at = lines.find(b"\n" + text, end) + 1 or len(lines)
