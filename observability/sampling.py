"""Which traces are exported, by a rule in words: `errors, halted, over 2d, cost over 1.50, 10%`.

The rule speaks of whole runs. A share is decided by the hash of the run, so every process and every export decides the
same. All else shows only while the run goes on: at the record that shows it, what was left out of the run before is
read back by `prev`, and exported then. So what is exported depends on the journal and the rule alone, not on restarts:
all of every run that is in the share or has shown a reason.

What is remembered of runs is a cache: what is not in it is read back from the journal.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from msgspec import Struct

from engine.core.errors import LongwatchError
from engine.core.partition import partition_of
from engine.core.record import read_record
from engine.journal import output_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.core.record import Record
    from engine.journal import Header

MS_OF: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_OVER: Final = re.compile(r"over\s+(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_COST: Final = re.compile(r"cost\s+over\s+(\d+(?:\.\d+)?)(?:\s*eur)?", re.ASCII)
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%", re.ASCII)
_MILLIONS: Final = 1_000_000
_KNOWN_RUNS: Final = 50_000
WORDS: Final = "all, errors, halted, over 2d, cost over 1.50, 10%"


class WrongRule(LongwatchError):
    """A text that is no rule for traces."""

    exit_code = 2


@dataclass(frozen=True)
class Rule:
    """Which runs are exported: those in the share, and those that show one of the reasons."""

    share: int = 0
    """Millionths of all runs."""
    errors: bool = False
    halted: bool = False
    over_ms: int | None = None
    cost: int | None = None
    """Millionths of a euro."""

    @classmethod
    def read(cls, text: str) -> Self:
        """The rule that a text says.

        Raises:
            WrongRule: a part of it is none of those that there are.
        """
        rule = cls()
        said = set[str]()
        for part in (each.strip().lower() for each in text.split(",")):
            term = _term(part)
            if said & term.keys():
                raise WrongRule(f"the rule for traces {text!r} has two parts like {part!r}; leave one out")
            said |= term.keys()
            rule = replace(rule, **term)
        return rule

    @property
    def takes_all(self) -> bool:
        return self.share >= _MILLIONS

    def takes(self, run: str) -> bool:
        """Whether a run is in the share."""
        if self.takes_all:
            return True
        number = int.from_bytes(blake2b(run.encode(errors="replace"), digest_size=8).digest())
        return number * _MILLIONS < self.share << 64

    def reason(self, record: Record, cost: int) -> str:
        """Why a run is exported from this record on, one that is not in the share; `cost` is its cost up to here."""
        if self.halted and record.halted is not None:
            return "halted"
        if self.errors and (record.halted is not None or record.error or record.cause == "failure"):
            return "error"
        if self.over_ms is not None and _longest(record) > self.over_ms:
            return "duration"
        if self.cost is not None and cost > self.cost:
            return "cost"
        return ""


def _term(part: str) -> dict[str, Any]:
    """A part of a rule as a field of `Rule`."""
    if part == "all":
        return {"share": _MILLIONS}
    if part in ("errors", "halted"):
        return {part: True}
    if found := _OVER.fullmatch(part):
        return {"over_ms": int(Decimal(found[1]) * MS_OF[found[2]])}
    if found := _COST.fullmatch(part):
        return {"cost": int(Decimal(found[1]) * _MILLIONS)}
    if (found := _SHARE.fullmatch(part)) and (share := Decimal(found[1])) <= 100:  # noqa: PLR2004 (per cent)
        return {"share": int(share * (_MILLIONS // 100))}
    raise WrongRule(f"{part!r} is no part of a rule for traces; parts are, with commas between them: {WORDS}")


def _longest(record: Record) -> int:
    """How long the run, or a state that it has left or is in, has lasted by now (log ms)."""
    begun = [group.entered for group in record.left]
    if record.began:
        begun.append(record.began)
    elif record.since and record.status != "finished":
        begun.append(record.since)
    return record.at - min(begun) if begun else 0


class _Known(Struct):
    """What is known of a run up to one of its records."""

    seq: int = 0
    """Its number."""
    cost: int = 0
    wanted: bool = False


class Reads(Protocol):
    """What is asked of a journal: see `engine.journal.Journal`."""

    @property
    def header(self) -> Header: ...

    def record(self, partition: int, place: str) -> Record | None: ...


class Sampler:
    """Hands on the spans of those runs that a rule takes. Records of a run must come in order."""

    def __init__(
        self, rule: Rule, journal: Reads, spans: Callable[[Record], list[bytes]], known_runs: int = _KNOWN_RUNS
    ) -> None:
        self._rule, self._journal, self._make = rule, journal, spans
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._most = known_runs
        self.read_back = 0
        """Records that were read once more."""

    def __call__(self, payload: bytes) -> list[bytes]:
        """The spans to export now that this record (its bytes) has come."""
        return self.spans(read_record(payload))

    def spans(self, record: Record) -> list[bytes]:
        """The same of a record; those of records before it are first, if it is the one that shows a reason."""
        rule = self._rule
        if rule.takes_all or rule.takes(record.run):
            return self._make(record)
        known = self._known.get(record.run)
        earlier: list[Record] | None = None
        if known is None or known.seq + 1 != record.seq:
            earlier = self._before(record)
            known = _Known()
            for each in earlier:
                self._add(known, each)
        was_wanted = known.wanted
        self._add(known, record)
        self._remember(record.run, known)
        if not known.wanted:
            return []
        if not was_wanted:
            earlier = self._before(record) if earlier is None else earlier
            return [raw for each in (*earlier, record) for raw in self._make(each)]
        return self._make(record)

    def _before(self, record: Record) -> list[Record]:
        """The run's records before this one, in order, as far as the journal has them."""
        partition = partition_of(record.workflow, record.key, self._journal.header.partitions)
        return list(self._backwards(record, partition))[::-1]

    def _backwards(self, record: Record, partition: int) -> Iterator[Record]:
        before: Record | None = record
        while before is not None and before.prev:
            position, _, index = before.prev.partition("/")
            before = self._journal.record(partition, output_id(position, int(index)))
            if before is not None:
                self.read_back += 1
                yield before

    def _add(self, known: _Known, record: Record) -> None:
        known.seq = record.seq
        known.cost += (record.used.cost or 0) if record.used is not None else 0
        known.wanted = known.wanted or bool(self._rule.reason(record, known.cost))

    def _remember(self, run: str, known: _Known) -> None:
        self._known[run] = known
        self._known.move_to_end(run)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
