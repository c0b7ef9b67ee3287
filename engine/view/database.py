"""The file of the view: opened for one writer at a time and any number of readers, made anew when it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.exc import OperationalError

from engine.view import schema

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.pool import ConnectionPoolEntry

BUSY_MS = 30_000
"""How long a writer waits for another one; a batch takes some tens of milliseconds."""


def open_writer(path: Path, log_id: str) -> Engine:
    """The view of this log, empty if the file is missing or is of another log or another version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = _engine(f"sqlite:///{path}", "BEGIN IMMEDIATE")
    with database.begin() as connection:
        if not _fits(connection, log_id):
            reset(connection, log_id)
    return database


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
