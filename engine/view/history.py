"""A run's records without a scan: each names the one before it, so they are read from the last one back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.record import read_record
from engine.log.protocol import output_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.core.record import Record
    from engine.log.protocol import Log
    from engine.view.view import RunRow


def backwards(log: Log, row: RunRow) -> Iterator[Record]:
    """The run's records, the newest first, from log and archive.

    They end early where the journal no longer has one (`prev` of the last says which).
    """
    at, resumed = row.last, False
    while at and (record := record_at(log, row.partition, at)) is not None:
        yield record
        at = _before(record)
        if not at and not record.run and not resumed:
            # Made while the stored bytes could not be read, so it does not know what was before it.
            at, resumed = row.data, True


def history(log: Log, row: RunRow) -> list[Record]:
    """The run's records in order."""
    return list(backwards(log, row))[::-1]


def record_at(log: Log, partition: int, place: str) -> Record | None:
    """The record of a journal id."""
    item = log.get("journal", partition, place)
    return None if item is None else read_record(item.payload)


def _before(record: Record) -> str:
    position, _, index = record.prev.partition("/")
    return output_id(position, int(index)) if position else ""
