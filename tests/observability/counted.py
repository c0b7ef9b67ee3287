"""Journals in memory, and what a tally says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.core.record import DeadLetter, Record, read_record, write_record
from engine.log.protocol import Header, Item, order_of, output_id
from observability.tally import Tally

HEADER = Header("test-log", 2, 1_700_000_000_000)

Numbers = dict[str, dict[tuple[str, ...], Any]]


def record(key: str = "a", **more: Any) -> Record:
    """One record; what is not said is plain."""
    said: dict[str, Any] = {
        "workflow": "claims",
        "key": key,
        "run": "ab" * 8,
        "version": 1,
        "seq": 2,
        "at": 1_700_000_000_000,
        "entry": "1700000000000-0",
        "cause": "event",
    }
    return Record(**(said | more))


def tally_of(records: Iterable[Record]) -> Tally:
    tally = Tally("test-log")
    for each in records:
        tally.take(each)
    return tally


def numbers(tally: Tally) -> Numbers:
    """All that was counted, in a form that can be compared; exemplars are examples, and left out."""
    counters = {metric.name: {k: v for k, v in values.items() if v} for metric, values in tally.counters.items()}
    histograms = {
        metric.name: {labels: (tuple(one.counts), one.sum) for labels, one in found.items()}
        for metric, found in tally.histograms.items()
    }
    return {name: values for name, values in (counters | histograms).items() if values}


class MemoryJournal:
    """`observability.metrics_server.Reads` over records that a test makes."""

    def __init__(self, header: Header = HEADER) -> None:
        self.header = header
        self.items: dict[int, list[Item]] = {partition: [] for partition in range(header.partitions)}
        self.dead: dict[int, list[Item]] = {partition: [] for partition in range(header.partitions)}
        self._count = 0

    def add(self, partition: int, *records: Record) -> None:
        for each in records:
            self._count += 1
            self.items[partition].append(Item(output_id(f"{self._count}-0", 0), self._count, write_record(each)))

    def add_dead(self, partition: int, letter: DeadLetter) -> None:
        self._count += 1
        self.dead[partition].append(Item(output_id(f"{self._count}-0", 0), self._count, write_record(letter)))

    def lose(self, partition: int, count: int) -> None:
        """The log has lost its end."""
        del self.items[partition][-count:]

    def follow(self, after: Mapping[int, str | None], wait_ms: int, count: int = 1000) -> dict[int, list[Item]]:
        found = {p: _behind(self.items[p], last)[:count] for p, last in after.items()}
        return {partition: items for partition, items in found.items() if items}

    def dead_letters(self, partition: int, after: str | None = None) -> Iterator[Item]:
        return iter(_behind(self.dead[partition], after))

    def record(self, partition: int, place: str) -> Record | None:
        return next((read_record(item.payload) for item in self.items[partition] if item.id == place), None)

    def records(self) -> list[Record]:
        return [read_record(item.payload) for items in self.items.values() for item in items]


def _behind(items: list[Item], last: str | None) -> list[Item]:
    return [item for item in items if last is None or order_of(item.id) > order_of(last)]
