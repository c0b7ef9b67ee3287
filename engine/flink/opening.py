"""What a subtask opens besides Flink's state: the application's code and the log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.core.application import Application
from engine.flink.plan import Plan
from engine.loader import import_application
from engine.log.archive import Archive
from engine.log.checks import check_entry
from engine.log.protocol import START, Position
from engine.log.redis_cursor import RedisCursor
from engine.log.redis_keys import TRIMMED, pairs, stream
from engine.log.redis_log import RedisLog
from engine.logs import open_file


class CoveredCursor(RedisCursor):
    """A cursor that looks for the entry at each position as well.

    A log that came back without its end may have been written on before anybody looks: its tail is ahead again.
    """

    def assign(self, positions: Mapping[int, Position | None]) -> None:
        """See `Cursor.assign`.

        Raises:
            LogLost: a position is ahead of the log's end, or its entry is gone.
        """
        super().assign(positions)
        wanted = {partition: position or START for partition, position in positions.items()}
        held = {p: bool(self._ask("XRANGE", stream("log", p), at, at)) for p, at in wanted.items()}
        trimmed = pairs(self._ask("HGETALL", TRIMMED))  # last: an entry that was trimmed meanwhile is none that is gone
        for partition, at in wanted.items():
            reached = Position(trimmed.get(str(partition), START))
            check_entry(self.header, partition, at, reached, held=held[partition])


def load_application(plan: Plan) -> Application:
    """The application that the plan names."""
    return import_application(plan.app, Path(plan.app_path))


def open_cursor(plan: Plan) -> CoveredCursor:
    """A reader of the log. Where it takes a checkpoint's positions, the log covers that checkpoint."""
    return CoveredCursor(plan.log_url, plan.epoch, Archive(Path(plan.data) / "archive"), plan.log_id or None)


def open_log(plan: Plan) -> tuple[RedisCursor, RedisLog]:
    """The reader of the log for one subtask, and a connection for what it appends."""
    cursor = open_cursor(plan)
    return cursor, RedisLog(plan.log_url, cursor.header, Archive(Path(plan.data) / "archive"))


def open_logging(plan: Plan) -> None:
    """Python's log of this process goes to `logs/engine.log`; Java's has a file of its own."""
    open_file(plan.folder("logs") / "engine.log", plan.log_format, plan.log_level)
