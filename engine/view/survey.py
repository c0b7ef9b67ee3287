"""How long runs have been where they are, and whose timers are overdue: counted a piece at a time.

Neither has an index, which would cost every record that is projected. So the runs that are not over are read in pieces
of bounded size, each some ten milliseconds, and the figures of a whole pass are kept until the next one is through.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DatabaseError

from engine.view.database import open_reader

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

PIECE: Final = 20_000
"""Runs that are read at once."""

_STANDINGS: Final = "SELECT id, workflow, state FROM standing WHERE runs > 0 AND status <> 'finished' ORDER BY id"
_PIECE: Final = """
SELECT COUNT(*), MAX(id), MIN(CASE WHEN since > 0 THEN since END), SUM(wakes > 0 AND wakes < ?)
FROM (SELECT id, since, wakes FROM run WHERE standing = ? AND id > ? ORDER BY id LIMIT ?)
"""


@dataclass(frozen=True)
class Found:
    """What a whole pass found. Times are log ms."""

    oldest: dict[tuple[str, str], int] = field(default_factory=dict)
    """Since when the run is in a state (of a workflow) that entered it first."""
    overdue: dict[str, int] = field(default_factory=dict)
    """Runs of a workflow whose next timer was due."""


class Survey:
    """Passes over a view, piece by piece. One thread's."""

    def __init__(self, path: Path) -> None:
        self._database = open_reader(path)
        self.found: Found | None = None
        """Of the last whole pass; None: none is through yet."""
        self._left: list[tuple[int, str, str]] = []
        self._after = -1
        self._now = Found()

    @property
    def is_through(self) -> bool:
        """Whether no pass is under way."""
        return not self._left

    def step(self, due: int, size: int = PIECE) -> None:
        """Read one more piece; begin a pass where none is under way. A view that is not there yet has no runs.

        Args:
            due: a timer that was due before this log time is overdue.
            size: how many runs at most.

        """
        with contextlib.suppress(DatabaseError), self._database.connect() as connection:
            if not self._left:
                self._begin(connection)
            while self._left and size > 0:
                size -= self._read(connection, due, size)
            if not self._left:
                self.found = self._now
            return
        self._left = []

    def close(self) -> None:
        self._database.dispose()

    def _begin(self, connection: Connection) -> None:
        rows = connection.exec_driver_sql(_STANDINGS).all()
        self._left = [(number, workflow, state) for number, workflow, state in rows]
        self._after = -1
        self._now = Found()

    def _read(self, connection: Connection, due: int, size: int) -> int:
        """Read runs of the first standing that is left; how many those were."""
        number, workflow, state = self._left[0]
        row = connection.exec_driver_sql(_PIECE, (due, number, self._after, size)).one()
        count, last, since, overdue = row
        if since is not None:
            name = workflow, state
            self._now.oldest[name] = min(since, self._now.oldest.get(name, since))
        self._now.overdue[workflow] = self._now.overdue.get(workflow, 0) + (overdue or 0)
        if count < size:
            del self._left[0]
            self._after = -1
        else:
            self._after = last
        return max(1, int(count))
