"""Questions to the view: which runs there are, how many, and where one stands."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, literal_column, select, union_all
from sqlalchemy.exc import DatabaseError

from engine.view import inbox, schema
from engine.view.database import open_empty, open_reader, telling
from engine.view.inbox import EVERYTHING
from engine.view.projector import LONGEST_VALUE, read_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import ColumnElement, Connection, Row, Select

    from engine.view.inbox import InboxCount, InboxFilter, InboxRow, Place

PAGE = 100
"""Standings asked for in one statement; SQLite takes 500 parts of a UNION."""


After = tuple[str, str, str]
"""Workflow, key and run id of a run; without a run id the newest of the key is meant."""


@dataclass(frozen=True)
class RunRow:
    """What the view knows of a run. Times are log ms, 0 for none."""

    workflow: str
    key: str
    run_id: str
    version: int
    state: str
    status: str
    since: int
    wakes_at: int
    started: int
    updated: int
    ended: int
    error: str
    seq: int
    partition: int
    last: str
    """Id in the journal of the run's last record."""
    data: str
    """Id in the journal of the last record that holds the state's data."""
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Count:
    """How many runs of a workflow are in a state with a status."""

    workflow: str
    state: str
    status: str
    runs: int


@dataclass(frozen=True)
class Filter:
    """Which runs are meant; what is empty is not asked for. `where` holds searchable fields and their values."""

    workflow: str = ""
    state: str = ""
    status: str = ""
    where: Mapping[str, str] = field(default_factory=dict)


ALL = Filter()


class View:
    """Reads a view while others write it; each question sees one moment of it."""

    def __init__(self, path: Path | None) -> None:
        """Open the view at `path`; without one, a view of nothing."""
        self._database = open_empty() if path is None else open_reader(path)
        self._path = path

    @contextmanager
    def _ask(self) -> Iterator[Connection]:
        with telling(self._path), self._database.connect() as connection:
            yield connection

    def runs(self, wanted: Filter = ALL, *, limit: int = 100, after: After | None = None) -> list[RunRow]:
        """The newest runs first, those behind the last run of an earlier page.

        Raises:
            LookupError: there is no such run as `after`.
        """
        with self._ask() as connection:
            edge = None if after is None else _edge(connection, *after)
            standings = _standings(connection, wanted)
            if wanted.where:
                rows = _by_fields(connection, wanted, standings, limit, edge)
            else:
                rows = _by_standing(connection, standings, limit, edge)
        return [_row(row, standings) for row in rows]

    def every(self, wanted: Filter = ALL, *, page: int = 1000) -> Iterator[RunRow]:
        """All of them, a page at a time."""
        after: After | None = None
        while rows := self.runs(wanted, limit=page, after=after):
            yield from rows
            after = rows[-1].workflow, rows[-1].key, rows[-1].run_id

    def of_key(self, key: str, workflow: str = "") -> list[RunRow]:
        """The newest run of this key in each workflow that has one."""
        newest: dict[str, RunRow] = {}
        for row in self.all_of_key(key, workflow):
            newest.setdefault(row.workflow, row)
        return list(newest.values())

    def all_of_key(self, key: str, workflow: str = "") -> list[RunRow]:
        """Every run that this key has had, the newest first: after a run's retention a key may begin again."""
        query = select(schema.run).where(schema.run.c.key == key).order_by(schema.run.c.id.desc())
        if workflow:
            query = query.where(schema.run.c.workflow == workflow)
        with self._ask() as connection:
            standings = _standings(connection, ALL)
            return [_row(row, standings) for row in connection.execute(query)]

    def of_run(self, run_id: str) -> RunRow | None:
        """The run of an id. There is no index of these: a view of a million runs is read in half a second."""
        query = select(schema.run).where(schema.run.c.run_id == run_id).limit(1)
        with self._ask() as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else _row(row, _standings(connection, ALL))

    def counts(self, wanted: Filter = ALL) -> list[Count]:
        """How many runs stand where, by workflow, state and status; `where` is not looked at."""
        with self._ask() as connection:
            found = _standings(connection, wanted).values()
            return sorted(
                (each for each in found if each.runs), key=lambda each: (each.workflow, each.state, each.status)
            )

    def inbox(
        self,
        wanted: InboxFilter = EVERYTHING,
        *,
        limit: int = 100,
        after: Place | None = None,
        newest: bool = False,
    ) -> list[InboxRow]:
        """What waits for people, the longest first (or the newest), behind the last place of an earlier page."""
        with self._ask() as connection:
            return inbox.waiting(connection, wanted, limit=limit, after=after, newest=newest)

    def inbox_counts(self, wanted: InboxFilter = EVERYTHING) -> list[InboxCount]:
        """How much waits for each group."""
        with self._ask() as connection:
            return inbox.counted(connection, wanted)

    def as_of(self) -> int:
        """Log time of the newest record that was projected; 0 when there is none."""
        with self._ask() as connection:
            return int(connection.execute(select(func.coalesce(func.max(schema.cursor.c.at), 0))).scalar_one())

    def cursors(self) -> dict[int, str]:
        """The id of the last projected record of each partition that has one."""
        with self._ask() as connection:
            rows = connection.execute(select(schema.cursor.c.partition, schema.cursor.c.last))
            return {row[0]: row[1] for row in rows}

    def log_id(self) -> str:
        """Which log this is a view of; empty when nothing was ever projected, or by another version of these tables."""
        try:
            with self._database.connect() as connection:
                row = connection.execute(select(schema.origin)).one_or_none()
        except DatabaseError:
            return ""
        return row.log_id if row is not None and row.version == schema.VERSION else ""

    def close(self) -> None:
        self._database.dispose()


def _standings(connection: Connection, wanted: Filter) -> dict[int, Count]:
    query = select(schema.standing)
    for column, value in (
        (schema.standing.c.workflow, wanted.workflow),
        (schema.standing.c.state, wanted.state),
        (schema.standing.c.status, wanted.status),
    ):
        if value:
            query = query.where(column == value)
    return {row.id: Count(row.workflow, row.state, row.status, row.runs) for row in connection.execute(query)}


def _edge(connection: Connection, workflow: str, key: str, run_id: str) -> int:
    query = select(func.max(schema.run.c.id)).where(schema.run.c.key == key, schema.run.c.workflow == workflow)
    if run_id:
        query = query.where(schema.run.c.run_id == run_id)
    edge = connection.execute(query).scalar_one()
    if edge is None:
        msg = f"no run {workflow}/{key} to go on after"
        raise LookupError(msg)
    return int(edge)


def _by_standing(
    connection: Connection, standings: Mapping[int, Count], limit: int, edge: int | None
) -> Sequence[Row[Any]]:
    """The newest of each standing, each read from its own stretch of the index, and the newest of these."""
    rows: list[Row[Any]] = []
    numbers = [number for number, each in standings.items() if each.runs]
    for start in range(0, len(numbers), PAGE):
        parts = [
            _newest(schema.run.c.standing == number, limit, edge).subquery() for number in numbers[start : start + PAGE]
        ]
        rows += connection.execute(union_all(*(select(part) for part in parts)))
    return sorted(rows, key=lambda row: row.id, reverse=True)[:limit]


def _newest(condition: ColumnElement[bool], limit: int, edge: int | None) -> Select[Any]:
    query = select(schema.run).where(condition)
    if edge is not None:
        query = query.where(schema.run.c.id < edge)
    return query.order_by(schema.run.c.id.desc()).limit(limit)


FEW = 20_000
"""With fewer runs of the wanted standings than this, they are read and their fields compared; else the field leads."""


def _by_fields(
    connection: Connection, wanted: Filter, standings: Mapping[int, Count], limit: int, edge: int | None
) -> Sequence[Row[Any]]:
    numbers = [number for number, each in standings.items() if each.runs]
    chosen = schema.run.c.standing.in_(numbers)
    pairs = [(name, value[:LONGEST_VALUE]) for name, value in wanted.where.items()]
    if sum(each.runs for each in standings.values()) < FEW:
        return connection.execute(
            _newest(and_(chosen, *(_has(*pair, schema.run.c.id) for pair in pairs)), limit, edge)
        ).all()
    first = schema.field
    name, value = pairs[0]
    # `+` keeps SQLite from taking the index of standings: the field's own index gives the ids in order.
    standing = literal_column("+run.standing").in_(numbers)
    query = (
        select(schema.run)
        .join_from(first, schema.run, schema.run.c.id == first.c.run)
        .where(
            first.c.name == name, first.c.value == value, standing, *(_has(*pair, first.c.run) for pair in pairs[1:])
        )
        .order_by(first.c.run.desc())
        .limit(limit)
    )
    return connection.execute(query if edge is None else query.where(first.c.run < edge)).all()


def _has(name: str, value: str, run: ColumnElement[int]) -> ColumnElement[bool]:
    other = schema.field.alias()
    return (
        select(1)
        .where(other.c.name == name, other.c.value == value, other.c.run == run)
        .correlate_except(other)
        .exists()
    )


def _row(row: Row[Any], standings: Mapping[int, Count]) -> RunRow:
    standing = standings[row.standing]
    return RunRow(
        workflow=row.workflow,
        key=row.key,
        run_id=row.run_id,
        version=row.version,
        state=standing.state,
        status=standing.status,
        since=row.since,
        wakes_at=row.wakes,
        started=row.started,
        updated=row.updated,
        ended=row.ended,
        error=row.error,
        seq=row.seq,
        partition=row.partition,
        last=row.last,
        data=row.data,
        fields=read_fields(row.fields),
    )
