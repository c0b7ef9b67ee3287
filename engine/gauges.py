"""The engine's figures: what the live line of `run` shows, and `status` tells in full."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from engine.log.errors import LogUnavailable
from engine.log.protocol import Position, Publication, order_of, place_of
from engine.log.redis_keys import PASSED, stream
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Reply, Wire
from engine.view.database import ViewDamaged
from engine.view.view import View

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_FIRST: Final = 2_000
"""Publications read at first: those of the last minutes; a partition that is in none of them has been quiet since."""

_publication = msgspec.json.Decoder(Publication).decode


@dataclass(frozen=True)
class PartitionLag:
    """How far the engine is behind in one partition."""

    partition: int
    tail: str
    """Position of the last entry; empty: none was ever appended."""
    passed: str
    """Position up to which the engine has folded, as it last published it; empty: unknown."""
    behind_ms: int
    """Age of the oldest entry that was not folded; 0: none."""


@dataclass(frozen=True)
class Figures:
    """What stands at one moment."""

    runs: dict[str, int] = field(default_factory=dict)
    """Number of runs by status."""
    lag_ms: int = 0
    dead_letters: int = 0
    """Still on the log; older ones are in the archive."""
    as_of: int = 0
    """Log time up to which the view is projected, ms."""
    partitions: tuple[PartitionLag, ...] = ()

    @property
    def halted(self) -> int:
        return self.runs.get("halted", 0)


class Gauges:
    """Reads figures from a log and its view, again and again, over a connection of its own. One thread's."""

    def __init__(self, log: RedisLog, url: str, view: Path) -> None:
        self._log = log
        self._address = Address.parse(url)
        self._wire: Wire | None = None
        self._view = View(view)
        self._passed: dict[int, Position] = {}
        self._read_to = ""

    def read(self) -> Figures:
        """Read all figures.

        Raises:
            LogUnavailable: the server is away; the next call connects again.

        """
        try:
            return self._read()
        except LogUnavailable:
            self._disconnect()
            raise

    def _read(self) -> Figures:
        self._read_passed()
        lags = tuple(self._lag(partition) for partition in range(self._log.header.partitions))
        dead = sum(self._log.held("dead", partition)[0] for partition in range(self._log.header.partitions))
        runs: dict[str, int] = {}
        as_of = 0
        with contextlib.suppress(SQLAlchemyError, ViewDamaged):  # not there yet, or being made anew
            for count in self._view.counts():
                runs[count.status] = runs.get(count.status, 0) + count.runs
            as_of = self._view.as_of()
        return Figures(runs, max((lag.behind_ms for lag in lags), default=0), dead, as_of, lags)

    def close(self) -> None:
        self._disconnect()
        self._view.close()

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _ask(self, *words: str | int) -> Reply:
        if self._wire is None:
            self._wire = Wire(self._address)
        return self._wire.call(*words)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_passed(self) -> None:
        if self._read_to:
            found = self._ask("XRANGE", PASSED, f"({self._read_to}", "+", "COUNT", 10_000)
        else:
            found = self._ask("XREVRANGE", PASSED, "+", "-", "COUNT", _FIRST)[::-1]
        for raw, fields in found:
            self._read_to = raw.decode()
            self._passed.update(_publication(fields[1]).positions)

    def _lag(self, partition: int) -> PartitionLag:
        tail = self._log.tail(partition)
        passed = self._passed.get(partition)
        if tail is None or (passed is not None and order_of(passed) >= order_of(tail)):
            return PartitionLag(partition, tail or "", passed or "", 0)
        return PartitionLag(partition, tail, passed or "", self._waiting(partition, passed))

    def _waiting(self, partition: int, passed: Position | None) -> int:
        """Age of the first entry behind a position; by the view, where no position was published lately."""
        if passed is None:
            with contextlib.suppress(SQLAlchemyError, ViewDamaged):
                last = self._view.cursors().get(partition)
                passed = place_of(last)[0] if last else None
        found = self._ask("XRANGE", stream("log", partition), f"({passed}" if passed else "-", "+", "COUNT", 1)
        if not found:
            return 0
        return max(0, time.time_ns() // 1_000_000 - order_of(found[0][0].decode())[0])
