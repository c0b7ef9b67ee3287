"""Which calls wait for a partition to catch up after a start.

A checkpoint is older than the end of the log. A call that was in flight then, or that an entry behind the checkpoint
started, may have its result on the log already. So it is not begun before its partition has been folded up to where the
log ended at the start: then the run itself says which of its calls have no result yet. Nothing of this costs anything
once all partitions have caught up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.log.protocol import Position, order_of

MOST = 20_000
"""When so many runs of a partition wait, calls that have kept nothing are let go early: a backlog is long."""
QUIET = 2
"""A partition that had nothing in so many reads has no more: should the log have lost its last entry to a trim."""


@dataclass
class _Behind:
    end: tuple[int, int]
    quiet: int = 0
    runs: dict[str, None] = field(default_factory=dict)
    stubborn: dict[str, None] = field(default_factory=dict)
    """Those that were looked at early, and wait on."""


class Recovery:
    """The runs with calls to begin, by partition, until it has caught up. Runs are Flink's keys."""

    def __init__(self) -> None:
        self._found: dict[int, list[str]] = {}
        self._behind: dict[int, _Behind] = {}
        self._seen: set[int] = set()

    def found(self, partition: int, key: str) -> None:
        """A run of the checkpoint has calls in flight."""
        self._found.setdefault(partition, []).append(key)

    def begin(self, partition: int, position: Position, tail: Position | None) -> list[str]:
        """A partition is read from now on; the runs to look at right away, if it has caught up already."""
        if partition in self._seen:
            return []
        self._seen.add(partition)
        runs = self._found.pop(partition, [])
        if tail is None or order_of(position) >= order_of(tail):
            return runs
        self._behind[partition] = _Behind(order_of(tail), runs=dict.fromkeys(runs))
        return []

    def __bool__(self) -> bool:
        """Whether any partition has not caught up."""
        return bool(self._behind)

    def waits(self, partition: int) -> bool:
        """Whether calls of this partition are not begun yet."""
        return partition in self._behind

    def hold(self, partition: int, key: str) -> None:
        """An entry of the run started a call."""
        behind = self._behind[partition]
        if key not in behind.stubborn:
            behind.runs[key] = None

    def crowd(self, partition: int) -> list[str]:
        """The runs whose plain calls may be begun early, each told once; `keep` those that have others."""
        behind = self._behind.get(partition)
        if behind is None or len(behind.runs) <= MOST:
            return []
        runs, behind.runs = list(behind.runs), {}
        return runs

    def keep(self, partition: int, key: str) -> None:
        """A run that was told early has calls that wait on."""
        self._behind[partition].stubborn[key] = None

    def caught_up(self, read: Mapping[int, Position], partitions: Iterable[int]) -> list[str]:
        """After a read: how far each partition with entries has been folded. The runs to look at now."""
        ready: list[str] = []
        for partition in [p for p in partitions if p in self._behind]:
            behind = self._behind[partition]
            behind.quiet = 0 if partition in read else behind.quiet + 1
            if behind.quiet >= QUIET or (partition in read and order_of(read[partition]) >= behind.end):
                del self._behind[partition]
                ready += {**behind.runs, **behind.stubborn}
        return ready
