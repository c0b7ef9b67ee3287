"""What waits for people: one row for each thing that a run asks, kept from the run's last record.

A record says all that its run asks after it, so the rows of a run are thrown away and made again whenever it moves.
They are read in the order in which they began to wait, each page behind the last row of the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select, tuple_

from engine.view.schema import inbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row, Select

    from engine.core.record import Asks

Value = str | int
Place = tuple[int, int, int]
"""Since when, the run's number, and which of the things that it asks."""


@dataclass(frozen=True)
class InboxFilter:
    """What is meant; what is empty is not asked for."""

    group: str = ""
    workflow: str = ""
    taken: str = ""


EVERYTHING = InboxFilter()


@dataclass(frozen=True)
class InboxRow:
    """One thing that waits for a person. Times are log ms, 0 for none."""

    place: Place
    workflow: str
    key: str
    state: str
    visit: int
    """Of the state, when it was asked: an answer to it counts in no other."""
    group: str
    call: str
    """The call that asks; empty: the state does."""
    name: str
    question: str
    since: int
    until: int
    taken: str
    """Who has taken it upon himself."""
    schema: str
    """JSON schema of the answer to a call; empty: of a state, whose events the application knows."""


@dataclass(frozen=True)
class InboxCount:
    """How much waits for a group."""

    group: str
    waiting: int
    taken: int
    oldest: int


class InboxWriting:
    """The rows of one batch: what its runs asked before is dropped, and what they ask now is added."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[tuple[Value, ...]] = []

    def asks(self, run: int, workflow: str, key: str, state: str, visit: int, taken: str, asks: Sequence[Asks]) -> None:
        self._rows += [
            (run, place, each.since, workflow, key, state, visit, each.group, each.call, each.name, each.question,
             each.until, taken, bytes(each.schema).decode())
            for place, each in enumerate(asks)
        ]  # fmt: skip

    def write(self, moved: list[int]) -> None:
        """`moved`: the runs of the batch that the view knew before."""
        connection = self._connection
        if connection.exec_driver_sql(_ANY).scalar():
            connection.exec_driver_sql(_DROP, (msgspec.json.encode(moved).decode(),))
        if self._rows:
            connection.exec_driver_sql(_ADD, self._rows)


_ANY = "SELECT EXISTS(SELECT 1 FROM inbox)"
_DROP = "DELETE FROM inbox WHERE run IN (SELECT value FROM json_each(?))"
_ADD = "INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def waiting(
    connection: Connection, wanted: InboxFilter, *, limit: int, after: Place | None, newest: bool
) -> list[InboxRow]:
    """The rows that match, the one that waits longest first (or last)."""
    place = (inbox.c.since, inbox.c.run, inbox.c.place)
    query = _chosen(select(inbox), wanted)
    if after is not None:
        behind = tuple_(*place) < after if newest else tuple_(*place) > after
        query = query.where(behind)
    order = [column.desc() if newest else column for column in place]
    return [_row(row) for row in connection.execute(query.order_by(*order).limit(limit))]


def counted(connection: Connection, wanted: InboxFilter) -> list[InboxCount]:
    """How much waits for each group."""
    query = _chosen(
        select(
            inbox.c.group, func.count(), func.count(func.nullif(inbox.c.taken, "")), func.min(inbox.c.since)
        ).group_by(inbox.c.group),
        wanted,
    ).order_by(inbox.c.group)  # fmt: skip
    return [InboxCount(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]


def _chosen(query: Select[Any], wanted: InboxFilter) -> Select[Any]:
    for column, value in (
        (inbox.c.group, wanted.group),
        (inbox.c.workflow, wanted.workflow),
        (inbox.c.taken, wanted.taken),
    ):
        if value:
            query = query.where(column == value)
    return query


def _row(row: Row[Any]) -> InboxRow:
    return InboxRow(
        place=(row.since, row.run, row.place),
        workflow=row.workflow,
        key=row.key,
        state=row.state,
        visit=row.visit,
        group=row.group,
        call=row.call,
        name=row.name,
        question=row.question,
        since=row.since,
        until=row.until,
        taken=row.taken,
        schema=row.schema,
    )
