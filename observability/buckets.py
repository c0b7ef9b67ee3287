"""Histograms that add up: whole numbers in buckets, the same whatever the order in which they came.

Bounds are in the histogram's own unit (ms or microseconds); what is shown is in seconds, as Prometheus has it. A sum of
whole numbers does not depend on the order of its parts, so a histogram made again from the journal is the same one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

MS, MICROSECONDS = 1_000, 1_000_000
"""Units in a second."""

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


@dataclass(frozen=True)
class Buckets:
    """Upper bounds, each included, and in which unit values come."""

    seconds: tuple[float, ...]
    unit: int = MS

    @property
    def bounds(self) -> tuple[int, ...]:
        return tuple(round(bound * self.unit) for bound in self.seconds)


LONG: Final = Buckets((
    0.1, 1, 10, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 2 * _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY,
))  # fmt: skip
"""Of runs, and of what they wait for: log time."""

LATE: Final = Buckets((0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, _DAY))
"""Of timers: log time."""

STEP: Final = Buckets(
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, _MINUTE, 2 * _MINUTE, 10 * _MINUTE, _HOUR),
    MICROSECONDS,
)
"""Of attempts: wall time."""


class Exemplar:
    """One value that fell into a bucket, and where it came from."""

    __slots__ = ("at", "trace", "value")

    def __init__(self, value: int, at: int, trace: str) -> None:
        """`at`: log ms of the record that it came with."""
        self.value, self.at, self.trace = value, at, trace


class Histogram:
    """Counts by bucket, the last one without a bound, and the sum."""

    __slots__ = ("_bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0
        self.exemplars: dict[int, Exemplar] = {}

    def add(self, value: int) -> int:
        """Count a value; which bucket it fell into."""
        bucket = bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket

    @property
    def count(self) -> int:
        return sum(self.counts)
