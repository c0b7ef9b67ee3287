"""Who waits at a gate of this worker: a heap of small entries, not of tasks, since a hundred thousand may wait."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

from engine.limits.passes import Pass

R = TypeVar("R")

Order = tuple[int, bool, int]
"""Priority, whether it is new (what has begun goes first), number of arrival: the lowest goes first."""


@dataclass(slots=True, eq=False)
class Waiter(Generic[R]):
    """One that waits."""

    gate: str
    owner: Hashable
    order: Order
    tokens: int
    request: R
    callback: Callable[[R, Pass], object]
    gone: bool = False
    """Nobody wants it any longer."""


class Waiters:
    """A queue in strict order. One that goes away is marked, and left out when it comes to the top."""

    def __init__(self) -> None:
        self._heap: list[tuple[Order, Waiter[Any]]] = []
        self._gone = 0

    def __len__(self) -> int:
        return len(self._heap) - self._gone

    def put(self, waiter: Waiter[Any]) -> None:
        """Add one, or put one back in its place."""
        heappush(self._heap, (waiter.order, waiter))

    def take(self, count: int) -> list[Waiter[Any]]:
        """Take out the first ones."""
        taken: list[Waiter[Any]] = []
        while self._heap and len(taken) < count:
            waiter = heappop(self._heap)[1]
            if waiter.gone:
                self._gone -= 1
            else:
                taken.append(waiter)
        return taken

    def drop(self, waiter: Waiter[Any]) -> None:
        """Forget one that is in the queue."""
        waiter.gone = True
        self._gone += 1
        if self._gone > 64 + len(self._heap) // 2:
            self._heap = [item for item in self._heap if not item[1].gone]
            heapify(self._heap)
            self._gone = 0
