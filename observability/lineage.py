"""What an event caused, and what led to a decision: followed through runs by the names that records carry.

An event that a run publishes is called `{run}.{seq}.{n}`, so its maker is known from its name; who took it is found
under the key that it was sent to, among the runs of all workflows. A question says who asks. Only what goes by another
name has to be looked for in the whole journal.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from engine.core.record import read_record
from observability.names import of_cause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from engine.core.record import Published, Record
    from engine.journal import Header, Item, RunRow

PUBLISHED: Final = re.compile(r"([0-9a-f]{16})\.(\d{1,18})\.\d{1,18}", re.ASCII)
"""The name of an event that a run published."""
_FROM_OUTSIDE: Final = ("event", "question")


class Reads(Protocol):
    """What is asked of a journal: see `engine.journal.Journal`."""

    @property
    def header(self) -> Header: ...

    def rows(self, key: str, workflow: str = "") -> list[RunRow]: ...

    def records(self, row: RunRow) -> list[Record]: ...

    def scan(self, partition: int, after: str | None = None, until: str | None = None) -> Iterator[Item]: ...


class Happening(Struct, omit_defaults=True):
    """Something in a line of causes: an episode of a run, or an event."""

    what: str
    """`event ClaimDecided`, `timer HumanReview.expire`, `publishes ClaimDecided`."""
    workflow: str = ""
    key: str = ""
    run_id: str = ""
    seq: int = 0
    """Number of the first record."""
    at: int = 0
    id: str = ""
    """Of the event."""
    source: str = ""
    who: str = ""
    moves: tuple[str, ...] = ()
    """States that were entered."""
    note: str = ""
    below: list[Happening] = []
    """Upwards: what led to it; downwards: what came of it."""


class Run:
    """A run's records, by episode."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.episodes: dict[int, list[Record]] = {}
        for record in records:
            self.episodes.setdefault(first_of(record), []).append(record)
        self._entered = [(r.seq, first_of(r)) for r in records if r.to and (r.from_ != r.to or r.left)]

    def entered(self, before: int) -> int:
        """Where the state was entered that the run was in before a record: that episode's first record; 0: nowhere."""
        place = bisect_left(self._entered, (before, 0))
        return self._entered[place - 1][1] if place else 0


def first_of(record: Record) -> int:
    return record.episode.seq if record.episode is not None else record.seq


class Lineage:
    """Follows causes through one log. Each episode is told once: a circle is cut where it closes."""

    def __init__(
        self,
        journal: Reads,
        row_of: Callable[[str], RunRow | None],
        depth: int = 20,
        *,
        scans: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            journal: where records are read.
            row_of: finds a run by its id.
            depth: how many runs, one after the other, are followed.
            scans: look through the whole journal for what names and keys do not tell.
            progress: is told how many records were looked through.

        """
        self._journal, self._row_of, self._depth = journal, row_of, depth
        self._scans, self._progress = scans, progress
        self._runs: dict[str, Run | None] = {}
        self._askers: dict[tuple[str, str], list[Record]] | None = None

    # -- what led to it --------------------------------------------------------------------------------------------

    def up_from_run(self, records: Sequence[Record]) -> Happening:
        """What led to where the run is."""
        run = Run(records)
        self._runs[records[-1].run] = run
        told = [r for r in records if not r.ignored] or records
        return self._up(run, first_of(told[-1]), set(), self._depth)

    def up_from_event(self, id_: str, taken: Sequence[Record]) -> Happening:
        """What led to an event."""
        first = taken[0] if taken else None
        made = Happening(f"event {first.name}" if first else "event", id=id_, source=first.source if first else "")
        made.below = self._maker(id_, set(), self._depth)
        if not made.below:
            made.note = "from outside"
        return made

    def _up(self, run: Run, first: int, seen: set[tuple[str, int]], depth: int) -> Happening:
        """An episode, what caused it, and behind that how the run came to where it began, the latest first."""
        made = self._caused(run, first, seen, depth)
        before = run.entered(first)
        while before and (made.run_id, before) not in seen:
            made.below.append(self._caused(run, before, seen, depth))
            before = run.entered(before)
        return made

    def _caused(self, run: Run, first: int, seen: set[tuple[str, int]], depth: int) -> Happening:
        """An episode and what caused it in other runs."""
        made = self._episode(run, first)
        made.below = []
        place = made.run_id, first
        if place in seen:
            made.note = "told above"
            return made
        seen.add(place)
        record = run.episodes[first][0]
        cause, id_ = (record.episode.cause, record.episode.id) if record.episode else (record.cause, record.id)
        if depth <= 0:
            made.note = made.note or "not followed further (--depth)"
        elif cause == "event":
            made.below += self._maker(id_, seen, depth - 1)
            made.note = made.note or ("" if made.below else "from outside")
        elif record.asker is not None:
            made.below += self._asked_by(record, seen, depth - 1)
        return made

    def _maker(self, id_: str, seen: set[tuple[str, int]], depth: int) -> list[Happening]:
        """The episode that published an event."""
        found = PUBLISHED.fullmatch(id_)
        run = self._run(found[1]) if found else None
        if found is None or run is None:
            return []
        record = next((r for r in run.records if r.seq == int(found[2])), None)
        return [] if record is None else [self._up(run, first_of(record), seen, depth)]

    def _asked_by(self, record: Record, seen: set[tuple[str, int]], depth: int) -> list[Happening]:
        asker = record.asker
        run = self._run(asker.run) if asker is not None else None
        if asker is None or run is None:
            return []
        head = asker.call.partition(".")[0]
        made = next((r for r in run.records if head == str(r.seq)), run.records[0])
        return [self._up(run, first_of(made), seen, depth)]

    # -- what came of it -------------------------------------------------------------------------------------------

    def down_from_run(self, records: Sequence[Record]) -> Happening:
        """All that a run did, and what came of it."""
        run = Run(records)
        self._runs[records[-1].run] = run
        return self._whole(run, set(), self._depth)

    def down_from_event(self, id_: str, taken: Sequence[Record]) -> Happening:
        """What came of an event."""
        made = Happening(f"event {taken[0].name}" if taken else "event", id=id_, below=[])
        made.below = self._takers(taken, set(), self._depth)
        if not taken:
            made.note = "no run took it"
        return made

    def _whole(self, run: Run, seen: set[tuple[str, int]], depth: int) -> Happening:
        last = run.records[-1]
        made = Happening(
            f"run in {last.to or last.from_}", last.workflow, last.key, last.run, run.records[0].seq, run.records[0].at
        )
        made.below = [self._down(run, first, seen, depth) for first in run.episodes]
        return made

    def _down(self, run: Run, first: int, seen: set[tuple[str, int]], depth: int) -> Happening:
        made = self._episode(run, first)
        place = made.run_id, first
        if place in seen:
            made.note = "told above"
            return made
        seen.add(place)
        made.below = []
        for record in run.episodes[first]:
            for published in record.published:
                made.below.append(self._published(record, published, seen, depth))
            made.below += self._answers_to(record, seen, depth)
        return made

    def _published(self, record: Record, event: Published, seen: set[tuple[str, int]], depth: int) -> Happening:
        made = Happening(f"publishes {event.type}", key=event.key, at=record.at, id=event.id, below=[])
        if depth <= 0:
            made.note = "not followed further (--depth)"
            return made
        taken = self.taken(event.id, event.key)
        made.below = self._takers(taken, seen, depth - 1)
        if not taken:
            made.note = "no run took it" if self._scans else f"no run with the key {event.key!r} took it"
        return made

    def _takers(self, taken: Sequence[Record], seen: set[tuple[str, int]], depth: int) -> list[Happening]:
        """An event that began a run caused all of it; another one its episode."""
        made = []
        for record in taken:
            run = self._run(record.run)
            if run is None:
                continue
            begins = not record.from_ and bool(record.to)
            made.append(self._whole(run, seen, depth) if begins else self._down(run, first_of(record), seen, depth))
        return made

    def _answers_to(self, record: Record, seen: set[tuple[str, int]], depth: int) -> list[Happening]:
        """The runs that this record's calls ask: only a look through the journal tells which."""
        made = []
        for call in record.asking:
            node = Happening(call.step, id=call.id, at=record.at, below=[])
            if self._scans and depth > 0:
                node.below = self._takers(self._asking().get((record.run, call.id), ()), seen, depth - 1)
            else:
                node.note = "which run answers is found with --scan"
            made.append(node)
        return made

    # -- pieces ----------------------------------------------------------------------------------------------------

    def taken(self, id_: str, key: str = "") -> list[Record]:
        """The records by which an event was taken: of the runs of its key, or of all."""
        if self._scans or not key:
            return self._search(id_)
        found = [record for row in self._journal.rows(key) for record in self._journal.records(row)]
        return [r for r in found if r.cause == "event" and r.id == id_]

    def _search(self, id_: str) -> list[Record]:
        mark = json.dumps(id_, ensure_ascii=False).encode(errors="replace")
        return [r for r in self._all(mark) if r.cause == "event" and r.id == id_]

    def _asking(self) -> dict[tuple[str, str], list[Record]]:
        """Who asks, by run and call."""
        if self._askers is None:
            self._askers = {}
            for record in self._all(b'"asker":'):
                if record.asker is not None:
                    self._askers.setdefault((record.asker.run, record.asker.call), []).append(record)
        return self._askers

    def _all(self, mark: bytes) -> Iterator[Record]:
        """The records of the whole journal that have these bytes somewhere."""
        count = 0
        for partition in range(self._journal.header.partitions):
            for item in self._journal.scan(partition):
                count += 1
                if count % 50_000 == 0:
                    self._progress(count)
                if mark in item.payload:
                    yield read_record(item.payload)

    def _run(self, run_id: str) -> Run | None:
        if run_id not in self._runs:
            row = self._row_of(run_id)
            records = self._journal.records(row) if row is not None else []
            self._runs[run_id] = Run(records) if records else None
        return self._runs[run_id]

    def _episode(self, run: Run, first: int) -> Happening:
        records = run.episodes[first]
        record = records[0]
        episode = record.episode
        cause, name = (episode.cause, episode.name) if episode is not None else (record.cause, record.name)
        return Happening(
            of_cause(cause, name),
            record.workflow,
            record.key,
            record.run,
            first,
            record.at,
            id=record.id if cause == "event" else "",
            source=record.source if cause in _FROM_OUTSIDE else "",
            who=record.who,
            moves=tuple(r.to for r in records if r.to and (r.from_ != r.to or r.left)),
            note=record.ignored or next((f"halted: {r.halted.error}" for r in records if r.halted), ""),
        )
