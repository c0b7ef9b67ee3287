"""Entries held back for halted runs: in keyed state up to a bound, beyond it in a file for each run, always in order.

What stands in keyed state of a file is a name and two offsets. Flink restores these exactly, and a file is only ever
written behind the offset that is known: what a crash left there is written over by the same bytes, because the same
entries are folded again. A file that is done with is renamed and kept for a day: a checkpoint that is gone back to may
still point into it.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import msgspec

from engine.core.ids import Position
from engine.flink.internals import Cell, Queue

MOST_ENTRIES = 10_000
MOST_BYTES = 16 << 20
"""Of one run in keyed state."""
DONE_SECONDS = 86_400.0
_SIZE = struct.Struct(">I")


class Store(Protocol):
    """What is asked of `engine.flink.internals.KeyedStore`."""

    def cell(self, name: str) -> Cell: ...

    def queue(self, name: str) -> Queue: ...

    def selected(self) -> str: ...


class Spill(msgspec.Struct, frozen=True, array_like=True):
    """The part of a run's held entries that stands in a file, all of it behind those in keyed state."""

    name: str
    start: int = 0
    end: int = 0


_spill = msgspec.msgpack.Decoder(Spill).decode


class HeldEntries:
    """The held entries of the run whose key is selected. `cells` and `queues` are to be named to the store."""

    cells = ("spilled",)
    queues = ("held",)

    def __init__(self, store: Store, folder: Path) -> None:
        """Use the folder, and remove what was done with long ago."""
        self._store, self._folder = store, folder
        self._queue, self._cell = store.queue("held"), store.cell("spilled")
        self._unsynced: set[Path] = set()
        for path in folder.glob("*.done"):
            if time.time() - path.stat().st_mtime > DONE_SECONDS:
                path.unlink(missing_ok=True)

    def append(self, partition: int, position: Position, entry: bytes) -> None:
        """Hold one more."""
        raw = self._cell.read()
        if raw is None:
            count, size = self._queue.size()
            if count < MOST_ENTRIES and size + len(entry) <= MOST_BYTES:
                self._queue.append(entry)
                return
            mark = blake2b(self._store.selected().encode(), digest_size=8).hexdigest()
            spill = Spill(f"{partition:02d}-{position.replace('-', '.')}-{mark}")
        else:
            spill = _spill(raw)
        end = self._write(self._path(spill), spill.end, entry)
        self._cell.write(msgspec.msgpack.encode(Spill(spill.name, spill.start, end)))

    def __iter__(self) -> Iterator[bytes]:
        """All of them in order; they stay."""
        yield from self._queue
        raw = self._cell.read()
        if raw is None:
            return
        spill = _spill(raw)
        with self._path(spill).open("rb") as file:
            file.seek(spill.start)
            at = spill.start
            while at < spill.end:
                (size,) = _SIZE.unpack(file.read(_SIZE.size))
                yield file.read(size)
                at += _SIZE.size + size

    def release(self, count: int) -> None:
        """Let the first ones go."""
        while count and self._queue.popleft() is not None:
            count -= 1
        raw = self._cell.read() if count else None
        if raw is None:
            return
        spill = _spill(raw)
        path, start = self._path(spill), spill.start
        with path.open("rb") as file:
            for _ in range(count):
                file.seek(start)
                (size,) = _SIZE.unpack(file.read(_SIZE.size))
                start += _SIZE.size + size
        if start < spill.end:
            self._cell.write(msgspec.msgpack.encode(Spill(spill.name, start, spill.end)))
        else:
            self._cell.clear()
            done = self._folder / f"{spill.name}.done"
            path.rename(done)
            self._unsynced.discard(path)

    def sync(self) -> None:
        """Have on disk what was written: before a checkpoint points to it."""
        for path in self._unsynced:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._unsynced.clear()

    def _path(self, spill: Spill) -> Path:
        done = self._folder / f"{spill.name}.done"
        return done if done.exists() else self._folder / f"{spill.name}.held"

    def _write(self, path: Path, end: int, entry: bytes) -> int:
        """Write behind what is known; gives the new end."""
        data = _SIZE.pack(len(entry)) + entry
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            left = memoryview(data)
            while left:
                left = left[os.pwrite(descriptor, left, end + len(data) - len(left)) :]
        finally:
            os.close(descriptor)
        self._unsynced.add(path)
        return end + len(data)
