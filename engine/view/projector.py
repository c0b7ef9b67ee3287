"""Records -> rows. Called with all that came since the last call, it writes each run once.

A batch is folded in memory to the last record of each run, then the runs that are not remembered from a batch before
are looked up in one statement, and what is new of all is written in three. All of it, and the cursors, in one
transaction: a record is projected once, however many processes project the same journal, and a batch that is cut off
was never there.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from engine.log.protocol import order_of
from engine.view import database
from engine.view.change import coalesce, read
from engine.view.inbox import InboxWriting
from engine.view.memory import Known, Memory, cursors_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from engine.log.protocol import Item
    from engine.view.change import Change
    from engine.view.memory import Standing

LONGEST_VALUE = 500
"""Characters of a searchable field that are indexed; a search for a longer one compares as many."""

LATEST = (1 << 43) - 1
"""Log ms that fit into a run's number, to the year 2248; runs that start later (a lapse may bring them) stand there."""

Value = str | int


_json = msgspec.json.Encoder().encode


class Projector:
    """Writes the view of one log.

    Any number of processes may have one on the same file: each transaction begins with the cursors as they stand.
    """

    def __init__(self, path: Path, log_id: str) -> None:
        self._database = database.open_writer(path, log_id)
        self._log_id = log_id
        self._path = path
        self._connection = self._database.connect()
        self._memory: Memory | None = None

    def cursors(self) -> dict[int, str]:
        """The id of the last projected record of each partition that has one."""
        with database.telling(self._path):
            if self._memory and self._memory.version == database.version(self._connection):
                return dict(self._memory.cursors)
            with self._connection.begin():
                return cursors_of(self._connection)

    def project(self, batch: Mapping[int, Sequence[Item]]) -> int:
        """Project journal items, of each partition in order; how many were new."""
        with database.telling(self._path):
            with self._connection.begin():
                memory = self._take_memory()
                fresh = _fresh(batch, memory.cursors)
                for changes in coalesce(fresh):
                    _Writing(self._connection, memory).write(changes)
                if fresh:
                    self._advance(fresh, memory)
            self._memory = memory
            return sum(map(len, fresh.values()))

    def reset(self) -> None:
        """Forget everything, to be projected again from the beginning."""
        self._memory = None
        with database.telling(self._path), self._connection.begin():
            database.reset(self._connection, self._log_id)

    def close(self) -> None:
        self._connection.close()
        self._database.dispose()

    def _take_memory(self) -> Memory:
        """The memory, ours again after the commit: what a failed transaction leaves in it never was."""
        version = database.version(self._connection)
        memory, self._memory = self._memory, None
        return memory if memory and memory.version == version else Memory(self._connection, version)

    def _advance(self, batch: Mapping[int, Sequence[Item]], memory: Memory) -> None:
        rows = [(each, items[-1].id, read(items[-1].payload).at) for each, items in batch.items()]
        self._connection.exec_driver_sql(_ADVANCE, rows)
        memory.cursors.update((row[0], row[1]) for row in rows)


def _fresh(batch: Mapping[int, Sequence[Item]], cursors: Mapping[int, str]) -> dict[int, Sequence[Item]]:
    """The items behind the cursors."""
    fresh: dict[int, Sequence[Item]] = {}
    for partition, items in batch.items():
        left = items
        last = cursors.get(partition)
        if items and last is not None:
            edge = order_of(last)
            if order_of(items[0].id) <= edge:
                left = [item for item in items if order_of(item.id) > edge]
        if left:
            fresh[partition] = left
    return fresh


_KNOWN = """
SELECT j.key, run.id, run.standing, run.since, run.ended, run.data, run.fields
FROM json_each(?) AS j JOIN run
ON run.key = j.value ->> 0 AND run.workflow = j.value ->> 1 AND run.run_id = j.value ->> 2
"""
_NEWEST = "SELECT run_id FROM run WHERE key = ? AND workflow = ? ORDER BY id DESC LIMIT 1"
_TAKEN = "SELECT id FROM run WHERE id IN (SELECT value FROM json_each(?))"
_INSERT = "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE = """
UPDATE run SET standing = ?, version = ?, seq = ?, updated = ?, since = ?, wakes = ?, ended = ?, error = ?, last = ?,
data = ?, fields = ? WHERE id = ?
"""
_DROP = "DELETE FROM field WHERE name = ? AND value = ? AND run = ?"
_ADD = "INSERT OR IGNORE INTO field VALUES (?, ?, ?)"
_MOVE = "UPDATE standing SET runs = runs + ? WHERE id = ?"
_ADVANCE = "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)"


class _Writing:
    """The rows of one batch, gathered and then written with one statement a kind."""

    def __init__(self, connection: Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory
        self._standings = _Standings(connection, memory)
        self._inbox = InboxWriting(connection)
        self._inserts: list[tuple[Value, ...]] = []
        self._updates: list[tuple[Value, ...]] = []
        self._dropped: list[tuple[Value, ...]] = []
        self._added: list[tuple[Value, ...]] = []
        self._moved: list[int] = []
        """Known runs that may have asked people something."""

    def write(self, changes: list[Change]) -> None:
        unknown: list[Change] = []
        for change in changes:
            row = self._memory.known(change)
            if row is None:
                unknown.append(change)
            else:
                self._update(change, row)
        if unknown:
            self._look_up(unknown)
        self._many(_INSERT, self._inserts)
        self._many(_UPDATE, self._updates)
        self._many(_DROP, self._dropped)
        self._many(_ADD, self._added)
        self._many(_MOVE, self._standings.moves())
        self._inbox.write(self._moved)

    def _look_up(self, changes: list[Change]) -> None:
        """Ask the view which of these it knows."""
        known = self._known(changes)
        new: list[Change] = []
        for place, change in enumerate(changes):
            row = known.get(place)
            if row is None:
                new.append(change)
            else:
                self._update(change, row)
                self._moved.append(row.id)
        for number, change in self._numbered(new):
            self._insert(number, change)

    def _known(self, changes: list[Change]) -> dict[int, Known]:
        """What the view holds of the runs, by their place in `changes`."""
        names = [(each.record.key, each.record.workflow, each.record.run or self._newest(each)) for each in changes]
        rows = self._connection.exec_driver_sql(_KNOWN, (_json(names).decode(),))
        return {row[0]: Known(*row[1:]) for row in rows}

    def _newest(self, change: Change) -> str:
        """A run that cannot be read is the newest of its key."""
        name = (change.record.key, change.record.workflow)
        run = str(self._connection.exec_driver_sql(_NEWEST, name).scalar() or "")
        self._memory.running.pop(run.encode(), None)
        return run

    def _numbered(self, changes: list[Change]) -> list[tuple[int, Change]]:
        """A free number for each new run, in order: when it started, and behind that what its id makes of 20 bits."""
        numbered: dict[int, Change] = {}
        left = [(min(each.started, LATEST) << 20 | crc32(each.record.run.encode()) & 0xFFFFF, each) for each in changes]
        while left:
            asked = _json([number for number, _ in left]).decode()
            taken = {row[0] for row in self._connection.exec_driver_sql(_TAKEN, (asked,))}
            clashes = []
            for number, change in left:
                if number in taken or number in numbered:
                    clashes.append((number + 1, change))
                else:
                    numbered[number] = change
            left = clashes
        return sorted(numbered.items())

    def _insert(self, number: int, change: Change) -> None:
        record = change.record
        standing = self._standings.enter(record.workflow, change.state, record.status)
        fields = _text(change.fields)
        self._added += _pairs(change.fields, number)
        self._inserts.append((
            number,
            record.key,
            record.workflow,
            record.run,
            standing,
            record.version,
            record.seq,
            change.started,
            record.at,
            change.since,
            record.wakes,
            change.ended,
            change.error,
            change.partition,
            change.last,
            change.data,
            fields,
        ))  # fmt: skip
        self._remember(change, Known(number, standing, 0, change.ended, "", fields))

    def _update(self, change: Change, row: Known) -> None:
        record = change.record
        standing = self._standings.move(row.standing, record.workflow, change.state, record.status)
        fields = self._change_fields(change, row) if change.data and (change.fields or row.fields) else row.fields
        ended = row.ended or change.ended
        self._updates.append((
            standing,
            record.version,
            record.seq,
            record.at,
            change.since or row.since,
            record.wakes,
            ended,
            change.error,
            change.last,
            change.data or row.data,
            fields,
            row.id,
        ))  # fmt: skip
        self._remember(change, Known(row.id, standing, 0, ended, "", fields))

    def _remember(self, change: Change, row: Known) -> None:
        self._memory.keep(change, row)
        if (seen := change.record).asks:
            self._inbox.asks(row.id, seen.workflow, seen.key, change.state, seen.visit, seen.taken, seen.asks)

    def _change_fields(self, change: Change, row: Known) -> str:
        fields = _text(change.fields)
        if fields != row.fields:
            self._dropped += _pairs(read_fields(row.fields), row.id)
            self._added += _pairs(change.fields, row.id)
        return fields

    def _many(self, statement: str, rows: list[tuple[Value, ...]]) -> None:
        if rows:
            self._connection.exec_driver_sql(statement, rows)


def _pairs(fields: Mapping[str, str], run: int) -> list[tuple[Value, ...]]:
    return [(name, value[:LONGEST_VALUE], run) for name, value in fields.items()]


def _text(fields: Mapping[str, str]) -> str:
    return _json(fields).decode() if fields else ""


def read_fields(text: str) -> dict[str, str]:
    """The searchable fields as a row holds them."""
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


class _Standings:
    """The numbers of standings, and how many runs a batch brings to each."""

    def __init__(self, connection: Connection, memory: Memory) -> None:
        self._connection = connection
        self._ids = memory.standings
        self._names = memory.names
        self._moves: defaultdict[int, int] = defaultdict(int)

    def enter(self, workflow: str, state: str, status: str) -> int:
        name = workflow, state, status
        standing = self._ids.get(name) or self._number(name)
        self._moves[standing] += 1
        return standing

    def move(self, before: int, workflow: str, state: str, status: str) -> int:
        """From one standing to another; an empty state means the one before."""
        name = workflow, state or self._names[before][1], status
        standing = self._ids.get(name) or self._number(name)
        if standing != before:
            self._moves[before] -= 1
            self._moves[standing] += 1
        return standing

    def moves(self) -> list[tuple[Value, ...]]:
        return [(runs, standing) for standing, runs in self._moves.items() if runs]

    def _number(self, standing: Standing) -> int:
        """A number for a standing that has none."""
        insert = "INSERT INTO standing (workflow, state, status, runs) VALUES (?, ?, ?, 0) RETURNING id"
        number = self._ids[standing] = int(self._connection.exec_driver_sql(insert, standing).scalar_one())
        self._names[number] = standing
        return number
