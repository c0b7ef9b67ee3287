"""Folds archive and log again, without steps, and compares what comes out with what stands in the journal.

Partition by partition, entries and journal side by side: each entry is folded with the code that is loaded, and its
records must be, byte for byte, those that stand under its position. A record carries the digest of the snapshot that it
left, so equal records mean equal snapshots. Halts are taken from the journal, which holds each verdict.

What other code has folded cannot be folded again by this one. It is taken on trust, and counted; the first record that
the loaded code made of such a run carries the snapshot that it began from, and from there the run is folded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine.core.entry import OrderEntry, read_entry
from engine.core.errors import HandlerFailed
from engine.core.ids import Position
from engine.core.partition import partition_of
from engine.core.record import read_record, write_record
from engine.core.snapshot import Tombstone, read_stored
from engine.core.transition import Held, Place, Rules, Verdict, transition
from engine.log.protocol import START, order_of, place_of

if TYPE_CHECKING:
    from engine.core.application import Application
    from engine.core.definition import Workflow
    from engine.core.entry import Entry
    from engine.core.record import Record
    from engine.core.transition import Reaction
    from engine.log.protocol import Item, Log

SWEEP: Final = 50_000
"""Entries of a partition between two sweeps of the tombstones that have expired."""

Name = tuple[str, str]
Tell = Callable[[int], None]


@dataclass(frozen=True)
class Difference:
    """Where what was folded is not what stands."""

    partition: int
    position: str
    index: int
    workflow: str
    key: str
    reason: str
    stands: dict[str, Any] | None = None
    """Of the record in the journal, the fields that differ."""
    folded: dict[str, Any] | None = None
    """Of the record that was folded now."""


@dataclass
class Replay:
    """What a replay found."""

    entries: int = 0
    """Read, in all."""
    folded: int = 0
    """Folded by the loaded code."""
    on_trust: int = 0
    """Folded by other code, or of runs whose beginning was."""
    unreadable: int = 0
    """Dead letters from the first: no entries, or of no workflow that is loaded."""
    not_yet: int = 0
    """On the log, and not folded by the engine yet."""
    records: int = 0
    """Compared."""
    runs: int = 0
    seconds: float = 0.0
    differences: list[Difference] = field(default_factory=list)
    """The first, or all that were asked for."""

    @property
    def identical(self) -> bool:
        return not self.differences


@dataclass
class _Run:
    """A run as it is known at a place of the log."""

    stored: bytes | None = None
    trusted: bool = False
    """Other code folded it last, so what is stored is not known."""
    held: list[Held] = field(default_factory=list)


class _Stop(Exception):
    pass


class Replayer:
    """Folds a log again."""

    def __init__(
        self,
        application: Application,
        log: Log,
        *,
        rules: Rules | None = None,
        only: Name | None = None,
        until: int | None = None,
        most: int = 1,
    ) -> None:
        """Name what to fold.

        Args:
            application: with the code that folds.
            log: with its archive.
            rules: as the engine had them.
            only: workflow and key of a single run.
            until: log ms; entries after it are left out.
            most: end after so many differences.
        """
        self.application, self.log, self.only, self.until, self.most = application, log, only, until, most
        self.rules = rules or Rules()
        self.result = Replay()

    def run(self, tell: Tell = lambda _entries: None) -> Replay:
        """Fold; `tell` hears of entries read, some thousand at a time."""
        begun = time.monotonic()
        count = self.log.header.partitions
        partitions = range(count) if self.only is None else (partition_of(*self.only, count),)
        passed: dict[int, str] = {}
        for publication in self.log.publications():
            passed.update(publication.positions)
        try:
            for partition in partitions:
                _Partition(self, partition, passed.get(partition, START), tell).run()
        except _Stop:
            pass
        self.result.seconds = time.monotonic() - begun
        return self.result

    def differ(self, difference: Difference) -> None:
        """Note a difference.

        Raises:
            _Stop: it was the last that was asked for.
        """
        self.result.differences.append(difference)
        if len(self.result.differences) >= self.most:
            raise _Stop


class _Partition:
    """One partition's fold; what it holds in memory are the runs that live at once."""

    def __init__(self, replayer: Replayer, partition: int, passed: str, tell: Tell) -> None:
        self.replayer, self.partition, self.tell = replayer, partition, tell
        self.application, self.log, self.result = replayer.application, replayer.log, replayer.result
        self.passed = order_of(passed)
        """The engine has folded up to here, so a record that is missing before it is a difference."""
        self.runs: dict[Name, _Run] = {}
        self.journal = _Journal(self.log.scan("journal", partition))
        self.at = 0

    def run(self) -> None:
        header, number = self.log.header, 0
        for number, item in enumerate(self.log.scan("log", self.partition), 1):
            self.at = max(self.at, header.log_time(item.stamp))
            if self.replayer.until is not None and self.at > self.replayer.until:
                break
            self.result.entries += 1
            self._take(item)
            if number % 1000 == 0:
                self.tell(1000)
            if number % SWEEP == 0:
                self._sweep()
        else:
            self._orphans()
        self.tell(number % 1000)

    def _take(self, item: Item) -> None:
        self._orphans(item.id)
        stands = self.journal.of(item.id)
        try:
            entry = read_entry(item.payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.result.unreadable += 1
            return
        name = (entry.workflow, entry.key)
        workflow = self.application.workflows.get(entry.workflow)
        if workflow is None or partition_of(*name, self.log.header.partitions) != self.partition:
            self.result.unreadable += 1
            return
        if self.replayer.only in (None, name):
            self._fold(workflow, name, entry, item, stands)

    def _fold(self, workflow: Workflow[Any], name: Name, entry: Entry, item: Item, stands: list[bytes]) -> None:
        run = self.runs.get(name)
        if run is None:
            run = self.runs[name] = _Run()
            self.result.runs += 1
        if not stands and self._is_ahead(item.id):
            self.result.not_yet += 1
            return
        records = [read_record(raw) for raw in stands]
        if not self._can_fold(workflow, run, records):
            self.result.on_trust += 1
            _trust(run, entry, Held(Position(item.id), self.at, entry), records)
            return
        place = Place(self.partition, Position(item.id), self.at, self.log.header.lapse)
        held = tuple(run.held) if isinstance(entry, OrderEntry) else ()
        try:
            reaction = transition(
                workflow, run.stored, entry, place, verdict=_verdict(records), held=held, rules=self.replayer.rules
            )
        except HandlerFailed as failed:
            self._differ(item.id, failed.index, name, f"the code fails now where it did not: {failed}")
            run.trusted = True
            return
        self._compare(item.id, name, reaction, stands, records)
        run.stored = reaction.stored
        run.held = run.held[reaction.release :]
        if reaction.hold:
            run.held.append(Held(Position(item.id), self.at, entry))
        if reaction.stored is None:
            self._forget(name)

    def _can_fold(self, workflow: Workflow[Any], run: _Run, records: list[Record]) -> bool:
        """Whether the loaded code folded this; a run on trust so far begins at the snapshot of its first record."""
        if any(record.code != workflow.code for record in records):
            run.trusted = True
            return False
        if run.trusted and records and records[0].base:
            base = bytes(records[0].base)
            run.stored, run.trusted = None if base == b"null" else base, False
        return not run.trusted

    def _compare(
        self, position: str, name: Name, reaction: Reaction, stands: list[bytes], records: list[Record]
    ) -> None:
        folded = [write_record(record) for record in reaction.records]
        self.result.folded += 1
        self.result.records += len(folded)
        if folded == stands:
            return
        for index, (new, old) in enumerate(zip(folded, stands, strict=False)):
            if new != old:
                was, now = _apart(old, new)
                self._differ(position, records[index].index, name, "the record differs", was, now)
                return
        index = min(len(folded), len(stands))
        if len(stands) > len(folded):
            self._differ(
                position, index, name, "the journal has a record that the fold does not make", _json(stands[index])
            )
        else:
            self._differ(position, index, name, "the journal lacks a record", None, _json(folded[index]))

    def _is_ahead(self, position: str) -> bool:
        """Whether the engine has not come to this entry yet."""
        return order_of(position) > self.passed and self.journal.ended

    def _orphans(self, position: str | None = None) -> None:
        """Records that stand before a position (None: the end) and belong to no entry."""
        while (orphan := self.journal.before(position)) is not None:
            record = read_record(orphan.payload)
            name = (record.workflow, record.key)
            if self.replayer.only in (None, name):
                self._differ(*place_of(orphan.id), name, "the journal has a record of no entry")

    def _differ(
        self,
        position: str,
        index: int,
        name: Name,
        reason: str,
        stands: dict[str, Any] | None = None,
        folded: dict[str, Any] | None = None,
    ) -> None:
        self.replayer.differ(Difference(self.partition, position, index, *name, reason, stands, folded))

    def _sweep(self) -> None:
        for name in [name for name, run in self.runs.items() if _is_over(run.stored, self.at)]:
            self._forget(name)

    def _forget(self, name: Name) -> None:
        run = self.runs[name]
        if not run.held and not run.trusted:
            del self.runs[name]


class _Journal:
    """A partition's journal, read along with its log."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._next = next(items, None)

    @property
    def ended(self) -> bool:
        return self._next is None

    def of(self, position: str) -> list[bytes]:
        """The records under a position; asked for in order."""
        found: list[bytes] = []
        while self._next is not None and place_of(self._next.id)[0] == position:
            found.append(self._next.payload)
            self._next = next(self._items, None)
        return found

    def before(self, position: str | None) -> Item | None:
        """The next record, if it stands before a position."""
        item = self._next
        if item is None or (position is not None and order_of(place_of(item.id)[0]) >= order_of(position)):
            return None
        self._next = next(self._items, None)
        return item


def _trust(run: _Run, entry: Entry, self_held: Held, records: list[Record]) -> None:
    """Follow what is held of a run that other code folds, from its records alone."""
    run.trusted, run.stored = True, None
    if not records:
        return
    last = records[-1]
    if isinstance(entry, OrderEntry):
        done = {record.entry for record in records}
        if last.halted is not None:
            done.discard(last.entry)
        run.held = [each for each in run.held if each.position not in done]
    elif last.halted is not None:
        run.held.append(self_held)


def _verdict(records: list[Record]) -> Verdict | None:
    """The verdict that stood under the entry: the record that halted the run holds it."""
    for record in records:
        halted = record.halted
        if halted is not None and not record.ignored and halted.at == record.at:
            return Verdict(record.index, halted.error, halted.where, halted.cause)
    return None


def _is_over(stored: bytes | None, at: int) -> bool:
    if stored is None or stored[:1] != b"[":
        return False
    known = read_stored(stored)
    return isinstance(known, Tombstone) and known.expires <= at


def _json(raw: bytes) -> dict[str, Any]:
    return msgspec.json.decode(raw, type=dict[str, Any])


def _apart(old: bytes, new: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of two records that differ."""
    was, now = _json(old), _json(new)
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return {name: was.get(name) for name in names}, {name: now.get(name) for name in names}
