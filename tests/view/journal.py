"""Journals for tests: records as the fold writes them, without a fold."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from engine.core.ids import Position, RunId
from engine.core.record import Halted, Record, write_record
from engine.log.protocol import Item, output_id

HALT = Halted("ValueError: no", "states.py:3 in decided", "event Decided in Review", 5)


class Journal:
    """Makes journal items in order, one entry a record, of any number of partitions."""

    def __init__(self) -> None:
        self.items: dict[int, list[Item]] = {}
        self.seqs: dict[str, int] = {}
        self.lasts: dict[str, str] = {}
        self.time = 1_000

    def add(self, key: str, to: str, *, partition: int = 0, run: str = "", **more: Any) -> Item:
        """Add a record that leaves the run `key` in the state `to`; `data` is JSON text."""
        run_id = run or f"{abs(hash(key)) % (1 << 64):016x}"
        self.time += 10
        position = Position(f"{self.time}-0")
        data = more.pop("data", "" if more.get("ignored") else "{}")
        record = Record(
            workflow=more.pop("workflow", "claims"),
            key=key,
            run=RunId("" if run == "none" else run_id),
            version=1,
            seq=self.seqs.get(run_id, 0) + 1,
            at=self.time,
            entry=position,
            prev=self.lasts.get(run_id, ""),
            cause=more.pop("cause", "event"),
            to=to,
            since=more.pop("since", self.time),
            **(more | {"data": Raw(data.encode())} if data else more),
        )
        self.seqs[run_id] = record.seq
        self.lasts[run_id] = f"{position}/0"
        item = Item(output_id(position, 0), self.time, write_record(record))
        self.items.setdefault(partition, []).append(item)
        return item
