"""All that is measured of an engine that runs, from outside: for the metrics and for `longwatch status`.

What costs little is read each time. How long runs have been where they are, and whose timers are overdue, is read a
piece at a time (`engine.view.survey`) and is some seconds old; budgets are read as seldom.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from engine.budgets import Budgets
from engine.data_folder import DataFolder, EngineFile, now
from engine.gauges import Figures, Gauges
from engine.limits import GateState, read_gates
from engine.log.errors import LogError
from engine.log.protocol import START, order_of
from engine.log.redis_keys import stream
from engine.log.redis_wire import Address, Reply, Wire, encode
from engine.view.database import ViewDamaged
from engine.view.survey import Found, Survey
from engine.view.view import Count, View
from engine.vitals import FRESH_MS, VitalSigns, read_vitals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from engine.budgets import Balance
    from engine.log.redis_log import RedisLog

SLOW_SECONDS: Final = 15.0
"""Between the beginnings of two passes over the runs, and between two looks at the budgets."""
MOST_PIECES: Final = 50
"""Of the runs that a single question waits for: a million, which takes a second or two."""
OVERDUE_SECONDS: Final = 60.0
"""A timer is overdue when it was due so long ago, by the clock on the wall."""


class ExporterSigns(Struct, frozen=True):
    """What is looked at of the trace exporter's file, `exporter.json`."""

    at: int = 0
    """When it was written, wall ms."""
    places: dict[int, str] = {}
    """The id of the last record of a partition that is done with."""
    records: dict[int, int] = {}
    """How many records of a partition are done with."""
    sent: int = 0
    refused: int = 0
    failures: dict[str, int] = {}
    lag_ms: int = 0
    """Age of the oldest record that it had read and not sent when it wrote; 0: there was none."""
    lag_records: int = 0
    endpoint: str = ""
    last_error: str = ""


@dataclass(frozen=True)
class Readings:
    """What stood at one moment; None: it could not be read, or there is none."""

    at: int
    """Wall ms."""
    log_time: int = 0
    """The same moment in log time, ms."""
    figures: Figures | None = None
    counts: tuple[Count, ...] | None = None
    found: Found | None = None
    gates: tuple[GateState, ...] | None = None
    budgets: dict[str, float] = field(default_factory=dict)
    """How much of a named budget is spent or reserved: 1 is all."""
    engine: EngineFile | None = None
    vitals: VitalSigns | None = None
    view_lag_ms: int | None = None
    exporter: ExporterSigns | None = None
    """None: it was never started beside this engine."""
    exporter_lag_ms: int | None = None

    @property
    def is_up(self) -> bool:
        """Whether an engine runs and its job works."""
        runs = self.engine is not None and self.engine.runs
        return runs and self.vitals is not None and self.vitals.is_up(self.at)

    @property
    def exporter_is_up(self) -> bool:
        """Whether it writes its file; one that is of later than now was written before the clock was set back."""
        return self.exporter is not None and abs(self.at - self.exporter.at) < FRESH_MS

    @property
    def checkpoint_age_ms(self) -> int | None:
        """Since the newest checkpoint of this start was triggered."""
        if self.vitals is None or not self.vitals.newest_checkpoint:
            return None
        return max(0, self.at - self.vitals.newest_checkpoint)


class Instruments:
    """Reads all of it, again and again, over connections of its own. One thread's."""

    def __init__(self, log: RedisLog, url: str, data: Path, *, exports: bool = False) -> None:
        """`exports`: traces are to be exported, whether or not an exporter was ever seen."""
        self._log, self._url = log, url
        self._address = Address.parse(url)
        self._wire: Wire | None = None
        self._folder = DataFolder(data)
        self._gauges = Gauges(log, url, self._folder.view)
        self._view = View(self._folder.view)
        self._survey = Survey(self._folder.view)
        self._exports = exports
        self._budgets: dict[str, float] = {}
        self._clocks: dict[str, float] = {}

    def read(self) -> Readings:
        """Read what can be read; what cannot is None."""
        header, moment = self._log.header, now()
        engine = self._folder.read_engine()
        exporter = self._exporter(engine)
        readings = Readings(moment, header.log_time(moment), engine=engine, exporter=exporter)
        parts: dict[str, Any] = {"vitals": read_vitals(self._folder.path)}
        with contextlib.suppress(SQLAlchemyError, ViewDamaged):
            parts["counts"] = tuple(self._view.counts())
            parts["found"] = self._look(header.log_time(moment - round(OVERDUE_SECONDS * 1000)))
        try:
            parts["figures"] = self._gauges.read()
            parts["gates"] = tuple(read_gates(self._url))
            parts["budgets"] = self._read_budgets()
            parts["view_lag_ms"] = self._behind(self._projected(), moment)
            if exporter is not None:
                # What it has read and cannot send may have left the log for the archive.
                unsent = exporter.lag_ms and exporter.lag_ms + max(0, moment - exporter.at)
                parts["exporter_lag_ms"] = max(self._behind(exporter.places, moment), unsent)
        except LogError:
            self._disconnect()
        return replace(readings, **parts)

    def read_whole(self) -> Readings:
        """Read all of it, the pass over the runs too: for a question that is asked once."""
        due = self._log.header.log_time(now() - round(OVERDUE_SECONDS * 1000))
        for _ in range(MOST_PIECES):
            self._survey.step(due)
            if self._survey.is_through:
                break
        self._clocks["survey"] = time.monotonic()
        return self.read()

    def close(self) -> None:
        self._disconnect()
        self._gauges.close()
        self._view.close()
        self._survey.close()

    # -- what is read seldom, or in pieces

    def _look(self, due: int) -> Found | None:
        if not self._survey.is_through or self._is_time("survey"):
            self._survey.step(due)
        return self._survey.found

    def _read_budgets(self) -> dict[str, float]:
        if self._is_time("budgets"):
            with contextlib.suppress(SQLAlchemyError, ViewDamaged, msgspec.DecodeError):
                self._budgets = used_ratios(Budgets(self._log, self._view, None))
        return self._budgets

    def _is_time(self, name: str) -> bool:
        moment = time.monotonic()
        if moment - self._clocks.get(name, -SLOW_SECONDS) < SLOW_SECONDS:
            return False
        self._clocks[name] = moment
        return True

    # -- those who follow the journal

    def _exporter(self, engine: EngineFile | None) -> ExporterSigns | None:
        try:
            raw = (self._folder.path / "exporter.json").read_bytes()
            signs = msgspec.json.decode(raw, type=ExporterSigns)
        except (OSError, msgspec.DecodeError):
            signs = ExporterSigns()
        is_of_this_start = engine is not None and signs.at >= engine.started > 0
        return signs if self._exports or is_of_this_start else None

    def _projected(self) -> Mapping[int, str]:
        """Up to where the view shows the journal; a view that is not there shows nothing."""
        try:
            return self._view.cursors()
        except (SQLAlchemyError, ViewDamaged):
            return {}

    def _behind(self, places: Mapping[int, str], moment: int) -> int:
        """Age of the oldest record behind these places; 0: there is none."""
        partitions = range(self._log.header.partitions)
        wanted = [
            encode("XRANGE", stream("journal", p), f"({places.get(p, START)}", "+", "COUNT", 1) for p in partitions
        ]
        first = [order_of(found[0][0].decode())[0] for found in self._ask_all(wanted) if found]
        return max(0, moment - min(first)) if first else 0

    def _ask_all(self, requests: list[bytes]) -> list[Reply]:
        if self._wire is None:
            self._wire = Wire(self._address)
        return self._wire.call_all(requests)

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def used_ratios(budgets: Budgets) -> dict[str, float]:
    """How much of each named budget is spent or reserved, by the bound that is nearest."""
    found = ((state.name, [_ratio(each) for each in state.balances]) for state in budgets.all())
    return {name: max(ratios) for name, ratios in found if ratios}


def _ratio(balance: Balance) -> float:
    used, bound = balance.spent.plus(balance.reserved), balance.bound
    pairs = ((used.tokens, bound.tokens), (used.cost, bound.cost))
    return max((have / most if most else float(have > 0) for have, most in pairs if most is not None), default=0.0)
