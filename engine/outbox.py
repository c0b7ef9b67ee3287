"""An ordinary reader of the outbox: each published event once, in the order of its partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from engine.core.record import CloudEvent
from engine.log.protocol import order_of, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.log.protocol import Item, Log

_read = msgspec.json.Decoder(CloudEvent).decode


@dataclass(frozen=True)
class Published:
    """A published event, and the triple that it carries."""

    event: CloudEvent
    partition: int
    position: str
    index: int


class OutboxReader:
    """Keeps the highest triple of each partition and drops what is not greater. Store `places` to go on later."""

    def __init__(self, log: Log, after: Mapping[int, str] | None = None) -> None:
        self.places: dict[int, str] = dict(after or {})
        """Id of the last event handed on, by partition."""
        self._log = log

    def read(self, wait_ms: int = 0) -> Iterator[Published]:
        """What came since the last call, archive first."""
        after = {each: self.places.get(each) for each in range(self._log.header.partitions)}
        for partition, items in self._log.follow("outbox", after, wait_ms).items():
            for item in items:
                if self._is_new(partition, item):
                    self.places[partition] = item.id
                    yield Published(_read(item.payload), partition, *place_of(item.id))

    def _is_new(self, partition: int, item: Item) -> bool:
        last = self.places.get(partition)
        return last is None or order_of(item.id) > order_of(last)
