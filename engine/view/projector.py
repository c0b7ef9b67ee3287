"""Records -> rows. Called with all that came since the last call, it writes each run once.

A batch is folded in memory to the last record of each run, then the runs that are known are read in one statement, and
what is new of them is written in three. All of it, and the cursors, in one transaction: a record is projected once,
however many processes project the same journal, and a batch that is cut off was never there.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Struct

from engine.core.record import Asks
from engine.log.protocol import order_of
from engine.view import database
from engine.view.inbox import InboxWriting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from engine.log.protocol import Item

LONGEST_VALUE = 500
"""Characters of a searchable field that are indexed; a search for a longer one compares as many."""

LATEST = (1 << 43) - 1
"""Log ms that fit into a run's number, to the year 2248; runs that start later (a lapse may bring them) stand there."""

Standing = tuple[str, str, str]
"""Workflow, state, status."""

Value = str | int


class _Halted(Struct):
    error: str = ""


class _Seen(Struct, gc=False):
    """What the view needs of a `Record`; msgspec skips the rest, which makes it twice as fast."""

    workflow: str
    key: str
    run: str
    version: int
    seq: int
    at: int
    to: str = ""
    before: str = msgspec.field(default="", name="from")
    since: int = 0
    status: str = "waiting"
    visit: int = 0
    wakes: int = 0
    taken: str = ""
    asks: tuple[Asks, ...] = ()
    ignored: str = ""
    halted: _Halted | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    fields: dict[str, str] = {}


_read = msgspec.json.Decoder(_Seen).decode
_json = msgspec.json.Encoder().encode


class _Change:
    """What a batch does to one run: its last record, and what only an earlier one says."""

    def __init__(self, partition: int, items: list[Item]) -> None:
        self.partition = partition
        self.items = items
        self.last = items[-1].id
        self.record = _read(items[-1].payload)
        self.state = self.record.to or self.record.before
        self.since = self.record.since
        self.ended = self.record.at if self.record.status == "finished" else 0
        self.data = self.last if self.record.data else ""
        self.fields = self.record.fields
        if self.record.ignored or not self.data:
            self._look_back()

    @property
    def error(self) -> str:
        return self.record.halted.error if self.record.halted else ""

    @cached_property
    def started(self) -> int:
        """Time of the first record; asked of new runs only."""
        return self.record.at if len(self.items) == 1 else _read(self.items[0].payload).at

    def _look_back(self) -> None:
        for item in reversed(self.items[:-1]):
            record = _read(item.payload)
            self.state = self.state or record.to or record.before
            self.since = self.since or record.since
            if record.status == "finished":
                self.ended = record.at
            if record.data and not self.data:
                self.data, self.fields = item.id, record.fields
            if self.data and not record.ignored:
                break


class _Known(NamedTuple):
    """What the view holds of a run before the batch."""

    id: int
    standing: int
    since: int
    ended: int
    data: str
    fields: str


class Projector:
    """Writes the view of one log.

    Any number of processes may have one on the same file: each transaction begins with the cursors as they stand.
    """

    def __init__(self, path: Path, log_id: str) -> None:
        self._database = database.open_writer(path, log_id)
        self._log_id = log_id
        self._path = path

    def cursors(self) -> dict[int, str]:
        """The id of the last projected record of each partition that has one."""
        with database.telling(self._path), self._database.connect() as connection:
            return _cursors(connection)

    def project(self, batch: Mapping[int, Sequence[Item]]) -> int:
        """Project journal items, of each partition in order; how many were new."""
        with database.telling(self._path), self._database.begin() as connection:
            fresh = _fresh(batch, _cursors(connection))
            if fresh:
                writing = _Writing(connection)
                writing.write(_coalesce(fresh))
                writing.advance(fresh)
            return sum(map(len, fresh.values()))

    def reset(self) -> None:
        """Forget everything, to be projected again from the beginning."""
        with database.telling(self._path), self._database.begin() as connection:
            database.reset(connection, self._log_id)

    def close(self) -> None:
        self._database.dispose()


def _cursors(connection: Connection) -> dict[int, str]:
    return {row[0]: row[1] for row in connection.exec_driver_sql("SELECT partition, last FROM cursor")}


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


def _coalesce(batch: Mapping[int, Sequence[Item]]) -> list[_Change]:
    """What the batch does to each run.

    The run id is cut out of a record without decoding it. Only the name of a field looks like the mark: inside of a
    string a quote stands behind a backslash. And nothing that a user could name stands before it (`Record`'s order).

    A run whose stored bytes could not be read has no id in its record: such records are told apart by all that stands
    before it, which is workflow and key.
    """
    changes: list[_Change] = []
    for partition, items in batch.items():
        runs: dict[bytes, list[Item]] = {}
        for item in items:
            payload = item.payload
            start = payload.index(b'"run":"') + 7
            run = payload[start : payload.index(b'"', start)] or payload[:start]
            if run in runs:
                runs[run].append(item)
            else:
                runs[run] = [item]
        changes += [_Change(partition, its) for its in runs.values()]
    return changes


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

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._standings = _Standings(connection)
        self._inbox = InboxWriting(connection)
        self._inserts: list[tuple[Value, ...]] = []
        self._updates: list[tuple[Value, ...]] = []
        self._dropped: list[tuple[Value, ...]] = []
        self._added: list[tuple[Value, ...]] = []

    def write(self, changes: list[_Change]) -> None:
        known = self._known(changes)
        new: list[_Change] = []
        for place, change in enumerate(changes):
            row = known.get(place)
            if row is None:
                new.append(change)
            else:
                self._update(change, row)
                self._ask(row.id, change)
        for number, change in self._numbered(new):
            self._insert(number, change)
            self._ask(number, change)
        self._many(_INSERT, self._inserts)
        self._many(_UPDATE, self._updates)
        self._many(_DROP, self._dropped)
        self._many(_ADD, self._added)
        self._many(_MOVE, self._standings.moves())
        self._inbox.write([row.id for row in known.values()])

    def _ask(self, number: int, change: _Change) -> None:
        if (seen := change.record).asks:
            self._inbox.asks(number, seen.workflow, seen.key, change.state, seen.visit, seen.taken, seen.asks)

    def advance(self, batch: Mapping[int, Sequence[Item]]) -> None:
        self._many(_ADVANCE, [(each, items[-1].id, _read(items[-1].payload).at) for each, items in batch.items()])

    def _known(self, changes: list[_Change]) -> dict[int, _Known]:
        """What the view holds of the runs, by their place in `changes`."""
        names = [(each.record.key, each.record.workflow, each.record.run or self._newest(each)) for each in changes]
        rows = self._connection.exec_driver_sql(_KNOWN, (_json(names).decode(),))
        return {row[0]: _Known(*row[1:]) for row in rows}

    def _newest(self, change: _Change) -> str:
        """A run that cannot be read is the newest of its key."""
        name = (change.record.key, change.record.workflow)
        return str(self._connection.exec_driver_sql(_NEWEST, name).scalar() or "")

    def _numbered(self, changes: list[_Change]) -> list[tuple[int, _Change]]:
        """A free number for each new run, in order: when it started, and behind that what its id makes of 20 bits."""
        numbered: dict[int, _Change] = {}
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

    def _insert(self, number: int, change: _Change) -> None:
        record = change.record
        self._added += _pairs(change.fields, number)
        self._inserts.append((
            number,
            record.key,
            record.workflow,
            record.run,
            self._standings.enter(record.workflow, change.state, record.status),
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
            _json(change.fields).decode() if change.fields else "",
        ))  # fmt: skip

    def _update(self, change: _Change, row: _Known) -> None:
        record = change.record
        self._updates.append((
            self._standings.move(row.standing, record.workflow, change.state, record.status),
            record.version,
            record.seq,
            record.at,
            change.since or row.since,
            record.wakes,
            row.ended or change.ended,
            change.error,
            change.last,
            change.data or row.data,
            self._change_fields(change, row) if change.data else row.fields,
            row.id,
        ))  # fmt: skip

    def _change_fields(self, change: _Change, row: _Known) -> str:
        fields = _json(change.fields).decode() if change.fields else ""
        if fields != row.fields:
            self._dropped += _pairs(read_fields(row.fields), row.id)
            self._added += _pairs(change.fields, row.id)
        return fields

    def _many(self, statement: str, rows: list[tuple[Value, ...]]) -> None:
        if rows:
            self._connection.exec_driver_sql(statement, rows)


def _pairs(fields: Mapping[str, str], run: int) -> list[tuple[Value, ...]]:
    return [(name, value[:LONGEST_VALUE], run) for name, value in fields.items()]


def read_fields(text: str) -> dict[str, str]:
    """The searchable fields as a row holds them."""
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


class _Standings:
    """The numbers of standings, and how many runs a batch brings to each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        rows = connection.exec_driver_sql("SELECT id, workflow, state, status FROM standing").all()
        self._ids: dict[Standing, int] = {(row[1], row[2], row[3]): row[0] for row in rows}
        self._names: dict[int, Standing] = {row[0]: (row[1], row[2], row[3]) for row in rows}
        self._moves: Counter[int] = Counter()

    def enter(self, workflow: str, state: str, status: str) -> int:
        standing = self._number((workflow, state, status))
        self._moves[standing] += 1
        return standing

    def move(self, before: int, workflow: str, state: str, status: str) -> int:
        """From one standing to another; an empty state means the one before."""
        standing = self._number((workflow, state or self._names[before][1], status))
        if standing != before:
            self._moves[before] -= 1
            self._moves[standing] += 1
        return standing

    def moves(self) -> list[tuple[Value, ...]]:
        return [(runs, standing) for standing, runs in self._moves.items() if runs]

    def _number(self, standing: Standing) -> int:
        number = self._ids.get(standing)
        if number is None:
            insert = "INSERT INTO standing (workflow, state, status, runs) VALUES (?, ?, ?, 0) RETURNING id"
            number = self._ids[standing] = int(self._connection.exec_driver_sql(insert, standing).scalar_one())
            self._names[number] = standing
        return number
