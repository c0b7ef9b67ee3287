"""The file of the view: opened for one writer at a time and any number of readers, made anew when it does not fit."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.exc import DatabaseError, OperationalError

from engine.core.errors import LongwatchError
from engine.view import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.pool import ConnectionPoolEntry

MAGIC = b"SQLite format 3\0"
"""The first bytes of every database (SQLite's page "Database File Format", 1.3.1)."""

BUSY_MS = 30_000
"""How long a writer waits for another one; a batch takes some tens of milliseconds."""


class ViewDamaged(LongwatchError):
    """The file of the view cannot be read. It holds nothing of its own: without it, it is made again."""

    exit_code = 8


@contextmanager
def telling(path: object) -> Iterator[None]:
    """Say in words what SQLite says of a damaged, locked or unwritable file.

    Raises:
        ViewDamaged: in its place.
    """
    try:
        yield
    except DatabaseError as error:
        advice = (
            "wait, or end the process that holds it"
            if "locked" in str(error.orig)
            else "see to disk and permissions; if it is damaged, delete it: it is made again from the journal"
        )
        raise ViewDamaged(f"the view {path} cannot be used ({error.orig}): {advice}") from error


def open_writer(path: Path, log_id: str) -> Engine:
    """The view of this log, empty if the file is missing or is of another log or another version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_if_foreign(path)
    database = _engine(f"sqlite:///{path}", "BEGIN IMMEDIATE")
    with telling(path), database.begin() as connection:
        if not _fits(connection, log_id):
            reset(connection, log_id)
    return database


def _remove_if_foreign(path: Path) -> None:
    """A file that is no SQLite (its first bytes were overwritten, or it never was) only stands in the way."""
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except FileNotFoundError:
        return
    if head and head != MAGIC:
        for name in ("", "-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)


def open_reader(path: Path) -> Engine:
    return _engine(f"sqlite:///{path}", "BEGIN")


def open_empty() -> Engine:
    """A view of nothing, in memory."""
    database = create_engine("sqlite://")
    schema.metadata.create_all(database)
    return database


def reset(connection: Connection, log_id: str) -> None:
    """Empty the view. Tables are dropped and made, and the file stays: readers see either the old or the new."""
    schema.metadata.drop_all(connection)
    schema.metadata.create_all(connection)
    connection.execute(schema.origin.insert().values(log_id=log_id, version=schema.VERSION))


def version(connection: Connection) -> int:
    """Another number when another connection has written since (SQLite's page "PRAGMA data_version")."""
    cursor = connection.connection.cursor()  # past SQLAlchemy, which would begin a transaction
    cursor.execute("PRAGMA data_version")
    (number,) = cursor.fetchone() or (0,)
    return int(number)


def _fits(connection: Connection, log_id: str) -> bool:
    try:
        rows = connection.execute(select(schema.origin)).all()
    except OperationalError:
        return False
    return [tuple(row) for row in rows] == [(log_id, schema.VERSION)]


def _engine(url: str, begin: str) -> Engine:
    """We say BEGIN ourselves, as SQLAlchemy's page on SQLite has it ("Serializable isolation, transactional DDL")."""
    database = create_engine(url, connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000})

    @event.listens_for(database, "connect")
    def prepare(raw: Any, _entry: ConnectionPoolEntry) -> None:  # noqa: ANN401 - a DBAPI connection has no type
        raw.isolation_level = None
        raw.execute("PRAGMA journal_mode=WAL")
        # Durable after a crash of the machine up to the last checkpoint of the WAL; what is missing is projected again.
        raw.execute("PRAGMA synchronous=NORMAL")
        raw.execute("PRAGMA wal_autocheckpoint=4000")
        raw.execute("PRAGMA cache_size=-32000")
        raw.execute("PRAGMA mmap_size=1073741824")
        raw.execute("PRAGMA temp_store=MEMORY")

    @event.listens_for(database, "begin")
    def say_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return database
