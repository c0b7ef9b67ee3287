"""What one process remembers of the view that it wrote, so that it need not be asked before each record.

Whoever else writes the view makes the memory void, and so does a transaction that fails: then it is read anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from engine.view.change import Change

REMEMBERED = 100_000
"""Runs on their way whose rows are remembered, some 250 bytes each; of others the view is asked."""

Standing = tuple[str, str, str]
"""Workflow, state, status."""


class Known(Struct, gc=False, frozen=True):
    """What the view holds of a run."""

    id: int
    standing: int
    since: int
    ended: int
    data: str
    fields: str


class Memory:
    """What the view held after our last transaction; good until another connection has written."""

    def __init__(self, connection: Connection, version: int) -> None:
        self.version = version
        self.cursors = cursors_of(connection)
        rows = connection.exec_driver_sql("SELECT id, workflow, state, status FROM standing").all()
        self.standings: dict[Standing, int] = {(row[1], row[2], row[3]): row[0] for row in rows}
        self.names: dict[int, Standing] = {row[0]: (row[1], row[2], row[3]) for row in rows}
        self.running: dict[bytes, Known] = {}
        """Runs on their way, by id; `since` and `data` are left empty, as their next record mostly has its own."""

    def keep(self, change: Change, row: Known) -> None:
        """Remember a run on its way, forget another; one that asks people something has rows besides its own."""
        record = change.record
        if record.status != "running" or record.asks or not change.mark:
            self.running.pop(change.mark, None)
        elif len(self.running) < REMEMBERED or change.mark in self.running:
            self.running[change.mark] = row

    def known(self, change: Change) -> Known | None:
        """The row of a run on its way, if the change says all that is not remembered."""
        return self.running.get(change.mark) if change.data and change.since else None


def cursors_of(connection: Connection) -> dict[int, str]:
    return {row[0]: row[1] for row in connection.exec_driver_sql("SELECT partition, last FROM cursor")}
