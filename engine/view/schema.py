"""The view's tables, made so that a million runs are listed, counted and found without reading many of them.

A run keeps one row, small and of nearly fixed size; its data stays in the journal, and the row says where. `standing`
is the trick: workflow, state and status together are one small number, and the table of these numbers also counts its
runs. So counts need no counting, any filter on the three is a short list of numbers, and one index of (standing, id)
gives the newest runs of each of them in order. A run's id begins with its start, so ids are in the order in which runs
began, and are the same when the view is made again.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, UniqueConstraint

VERSION: Final = 3
"""Of these tables. A view of another version is thrown away and made again from the journal."""

metadata = MetaData()

standing = Table(
    "standing",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("workflow", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("runs", Integer, nullable=False),
    UniqueConstraint("workflow", "state", "status"),
)

run = Table(
    "run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("standing", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("started", Integer, nullable=False),
    Column("updated", Integer, nullable=False),
    Column("since", Integer, nullable=False),
    Column("wakes", Integer, nullable=False),
    Column("ended", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("last", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("fields", Text, nullable=False),
    Index("run_of_key", "key", "workflow", "run_id", unique=True),
    Index("run_standing", "standing"),
)
"""Times are log ms, 0 for none. `last` and `data` are ids in the journal's partition: of the run's last record, and of
the last one that holds the state's data. `fields` are the searchable ones in JSON, to be taken out of `field` again."""

field = Table(
    "field",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("run", Integer, primary_key=True),
    sqlite_with_rowid=False,
)

inbox = Table(
    "inbox",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("since", Integer, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("visit", Integer, nullable=False),
    Column("group", Text, nullable=False),
    Column("call", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("until", Integer, nullable=False),
    Column("taken", Text, nullable=False),
    Column("schema", Text, nullable=False),
    Index("inbox_since", "since", "run", "place"),
    Index("inbox_of_group", "group", "since", "run", "place", "taken"),
    sqlite_with_rowid=False,
)
"""What waits for people (see `engine.view.inbox`), the things that a run asks counted by `place`."""

cursor = Table(
    "cursor",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("last", Text, nullable=False),
    Column("at", Integer, nullable=False),
)
"""The id of the last record that was projected, and its log time; written in the transaction that projects it."""

origin = Table("origin", metadata, Column("log_id", Text, primary_key=True), Column("version", Integer, nullable=False))
"""Which log this is a view of."""
