"""Batches of encoded spans, each with the place that the exporter has come to when all of it is acknowledged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_SPANS: Final = 2_000
MOST_BYTES: Final = 2 << 20
"""Half of what a gRPC server takes unless it is told otherwise (4 MB)."""


@dataclass
class Batch:
    """Spans of records that follow each other in their partitions."""

    spans: list[bytes] = field(default_factory=list)
    size: int = 0
    places: dict[int, str] = field(default_factory=dict)
    """The last record of each partition that is in here to its last span."""
    records: dict[int, int] = field(default_factory=dict)
    """How many records of the partition stand up to that place."""
    oldest: int = 0
    """Stamp of the oldest record that ends in here, wall ms."""
    ended: int = 0
    """How many records end in here."""


class Batcher:
    """Fills one batch after the other, bounded in spans and bytes. Only a span that is larger by itself is not."""

    def __init__(self, most_spans: int = MOST_SPANS, most_bytes: int = MOST_BYTES) -> None:
        self._most_spans, self._most_bytes = most_spans, most_bytes
        self._batch = Batch()

    def add(self, partition: int, place: str, number: int, stamp: int, spans: Sequence[bytes]) -> Iterator[Batch]:
        """Add a record's spans; the batches that are full by that.

        Args:
            partition: the record's.
            place: its id in the journal.
            number: how many records of the partition stand up to it.
            stamp: when its entry came, wall ms.
            spans: none, or some; those of a large record may fill several batches.

        """
        batch, size = self._batch, sum(map(len, spans))
        if len(batch.spans) + len(spans) <= self._most_spans and batch.size + size <= self._most_bytes:
            batch.spans += spans
            batch.size += size
        else:
            yield from self._add_one_by_one(spans)
            batch = self._batch
        batch.places[partition] = place
        batch.records[partition] = number
        batch.oldest = min(batch.oldest, stamp) if batch.ended else stamp
        batch.ended += 1

    def _add_one_by_one(self, spans: Sequence[bytes]) -> Iterator[Batch]:
        batch = self._batch
        for span in spans:
            if batch.spans and (len(batch.spans) >= self._most_spans or batch.size + len(span) > self._most_bytes):
                yield self.take()
                batch = self._batch
            batch.spans.append(span)
            batch.size += len(span)

    def take(self) -> Batch:
        """What is there, full or not; the next one begins."""
        batch, self._batch = self._batch, Batch()
        return batch
