"""What a subtask opens besides Flink's state: the application's code and the log."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

from engine.core.application import Application
from engine.flink.plan import Plan
from engine.loader import import_application
from engine.log.archive import Archive
from engine.log.redis_cursor import RedisCursor
from engine.log.redis_log import RedisLog


def load_application(plan: Plan) -> Application:
    """The application that the plan names."""
    return import_application(plan.app, Path(plan.app_path))


def open_log(plan: Plan) -> tuple[RedisCursor, RedisLog]:
    """The reader of the log for one subtask, and a connection for what it appends."""
    archive = Archive(Path(plan.data) / "archive")
    cursor = RedisCursor(plan.log_url, plan.epoch, archive, plan.log_id or None)
    return cursor, RedisLog(plan.log_url, cursor.header, archive)


def open_logging(plan: Plan) -> None:
    """Python's log of this process goes to `logs/engine.log`, bounded; nothing on the terminal."""
    root = logging.getLogger()
    if not any(isinstance(h, RotatingFileHandler) for h in root.handlers):
        handler = RotatingFileHandler(plan.folder("logs") / "engine.log", maxBytes=10 << 20, backupCount=3)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
