"""Keeps the view behind the journal: what is archived first, then what stands in the log, then what comes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.log.protocol import Log
    from engine.view.projector import Projector

CHUNK = 10_000
"""Records of one transaction while catching up: some tens of milliseconds."""


class Follower:
    """One thread's, as the log that it reads.

    Call `catch_up` once, then `step` again and again: a pause of 100 ms between steps makes larger batches of a flood,
    and with them a fraction of the work.
    """

    def __init__(self, log: Log, projector: Projector) -> None:
        self.log = log
        self.projector = projector

    def catch_up(self, told: Callable[[int], None] = lambda _count: None) -> int:
        """Project all that the journal holds; how many records were new. `told` hears of each batch's count."""
        cursors = self.projector.cursors()
        return sum(self._catch_up(each, cursors.get(each), told) for each in range(self.log.header.partitions))

    def step(self, wait_ms: int = 1000) -> int:
        """Project what came, waiting when nothing did; how many records were new."""
        after: dict[int, str | None] = dict.fromkeys(range(self.log.header.partitions))
        after.update(self.projector.cursors())
        found = self.log.follow("journal", after, wait_ms, CHUNK)
        return self.projector.project(found) if found else 0

    def _catch_up(self, partition: int, after: str | None, told: Callable[[int], None]) -> int:
        items = iter(self.log.scan("journal", partition, after))
        total = 0
        while batch := list(islice(items, CHUNK)):
            count = self.projector.project({partition: batch})
            told(count)
            total += count
        return total
