"""What a batch of records does to each run: its last record, and what only an earlier one of the batch says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from engine.core.record import Asks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.log.protocol import Item


class _Halted(Struct):
    error: str = ""


class Seen(Struct, gc=False):
    """What the view needs of a `Record`; msgspec skips the rest, which makes it twice as fast."""

    workflow: str
    key: str
    run: str
    version: int
    seq: int
    at: int
    to: str = ""
    before: str = msgspec.field(default="", name="from")
    since: int = 0
    status: str = "waiting"
    visit: int = 0
    wakes: int = 0
    taken: str = ""
    asks: tuple[Asks, ...] = ()
    ignored: str = ""
    halted: _Halted | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    fields: dict[str, str] = {}


read = msgspec.json.Decoder(Seen).decode


class Change:
    """What a batch does to one run: its last record, and what only an earlier one says."""

    __slots__ = (
        "_started", "data", "ended", "fields", "items", "last", "mark", "partition", "record", "since", "state",
    )  # fmt: skip

    def __init__(self, partition: int, mark: bytes, items: list[Item]) -> None:
        """Of the run whose id is `mark`; empty when its stored bytes could not be read."""
        newest = items[-1]
        self.partition = partition
        self.mark = mark
        self.items = items
        self.last = newest.id
        self.record = record = read(newest.payload)
        self.state = record.to or record.before
        self.since = record.since
        self.ended = record.at if record.status == "finished" else 0
        self.data = self.last if record.data else ""
        self.fields = record.fields
        self._started = 0
        if record.ignored or not self.data:
            self._look_back()

    @property
    def error(self) -> str:
        return self.record.halted.error if self.record.halted else ""

    @property
    def started(self) -> int:
        """Time of the first record; asked of new runs only."""
        if not self._started:
            self._started = self.record.at if len(self.items) == 1 else read(self.items[0].payload).at
        return self._started

    def _look_back(self) -> None:
        for item in reversed(self.items[:-1]):
            record = read(item.payload)
            self.state = self.state or record.to or record.before
            self.since = self.since or record.since
            if record.status == "finished":
                self.ended = record.at
            if record.data and not self.data:
                self.data, self.fields = item.id, record.fields
            if self.data and not record.ignored:
                break


def coalesce(batch: Mapping[int, Sequence[Item]]) -> Iterator[list[Change]]:
    """What the batch does to each run, once in each list.

    The run id is cut out of a record without decoding it. Only the name of a field looks like the mark: inside of a
    string a quote stands behind a backslash. And nothing that a user could name stands before it (`Record`'s order).

    A run whose stored bytes could not be read has no id in its record: it is the newest of its key, which may be one
    of those before it in the batch, so it is a list of its own.
    """
    changes: list[Change] = []
    for partition, items in batch.items():
        runs: dict[bytes, list[Item]] = {}
        for item in items:
            payload = item.payload
            start = payload.index(b'"run":"') + 7
            run = payload[start : payload.index(b'"', start)]
            if run in runs:
                runs[run].append(item)
            elif run:
                runs[run] = [item]
            else:
                if changes := changes + [Change(partition, *each) for each in runs.items()]:
                    yield changes
                yield [Change(partition, run, [item])]
                changes, runs = [], {}
        changes += [Change(partition, *each) for each in runs.items()]
    if changes:
        yield changes
