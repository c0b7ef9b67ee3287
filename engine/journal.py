"""The journal and the run view, for those who read what happened and never touch the runtime: traces, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.log.errors import LogError, LogUnavailable
from engine.log.protocol import Header, Item, output_id
from engine.view.history import history, record_at
from engine.view.view import RunRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.core.record import Record
    from engine.session import Session

__all__ = ["Header", "Item", "Journal", "LogError", "LogUnavailable", "RunRow", "output_id"]


class Journal:
    """Records in the order in which they were made, by partition; and those of one run. One thread's, as its session.

    Items hold bytes: `engine.core.record.read_record` reads them. Every call raises `LogUnavailable` while the log's
    server is away; calling again connects again.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._log = session.log

    @property
    def header(self) -> Header:
        """Which log it is, its partitions, and how its time runs."""
        return self._log.header

    def scan(self, partition: int, after: str | None = None, until: str | None = None) -> Iterator[Item]:
        """All records of a partition behind `after`, up to and with `until`: from the archive, then from the log."""
        return self._log.scan("journal", partition, after, until)

    def follow(self, after: Mapping[int, str | None], wait_ms: int, count: int = 1000) -> dict[int, list[Item]]:
        """What came behind these ids, by one read; waits when there is nothing."""
        return self._log.follow("journal", after, wait_ms, count)

    def dead_letters(self, partition: int, after: str | None = None) -> Iterator[Item]:
        """As `scan`, of the dead letters (`engine.core.record.read_letter`)."""
        return self._log.scan("dead", partition, after)

    def rows(self, key: str, workflow: str = "") -> list[RunRow]:
        """Every run that this key has had, the newest first."""
        return self._session.view.all_of_key(key, workflow)

    def every_row(self) -> Iterable[RunRow]:
        return self._session.view.every()

    def records(self, row: RunRow) -> list[Record]:
        """The run's records in order."""
        return history(self._log, row)

    def record(self, partition: int, place: str) -> Record | None:
        """The record of a journal id; None: it is not there (any more)."""
        return record_at(self._log, partition, place)
