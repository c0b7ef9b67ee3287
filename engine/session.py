"""A data folder opened for questions and orders: its log, its view, and a server that is started when none runs.

Nothing is opened before it is asked for: a question that the view can answer starts no server.
"""

from __future__ import annotations

import contextlib
import time
from functools import cached_property
from typing import TYPE_CHECKING, Self

from engine.log.archive import Archive
from engine.log.errors import LogLost, LogUnavailable
from engine.log.lease import Owner
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis
from engine.view.follower import Follower
from engine.view.projector import Projector
from engine.view.view import View

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from engine.settings import Settings


class Session:
    """One thread's. Close it: what it started ends then, unless somebody else has come to use it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._server = None if settings.log else EmbeddedRedis(settings.data, settings.fsync)
        self._started = False

    @property
    def view_path(self) -> Path:
        return self.settings.data / "view.sqlite"

    @property
    def url(self) -> str:
        return self.settings.log or (self._server.url if self._server else "")

    @cached_property
    def archive(self) -> Archive:
        return Archive(self.settings.data / "archive")

    @cached_property
    def log(self) -> RedisLog:
        """The log; made when there is none, since events may be sent before the engine runs."""
        if self._server is not None:
            self._started = self._server.ensure()
        try:
            return RedisLog.open(self.url, self.archive)
        except LogLost:
            if self._had_a_log():
                raise
        return RedisLog.create(self.url, self.settings.partitions, self.settings.lapse, self.archive)

    @property
    def view(self) -> View:
        """The view, as new as it can be: projected from the journal now when nobody else does it."""
        if not self.exists():
            return View(None)
        self.refresh()
        return self._view

    @cached_property
    def _view(self) -> View:
        return View(self.view_path)

    @cached_property
    def _follower(self) -> Follower:
        return Follower(self.log, Projector(self.view_path, self.log.header.log_id))

    def exists(self) -> bool:
        """Whether anything was ever sent or run here; False only for a data folder without a log."""
        return self._server is None or "log" in self.__dict__ or (self.settings.data / "redis").exists()

    def answers(self) -> bool:
        """Whether the log's server runs; it is not started for this."""
        return "log" in self.__dict__ or self._server is None or self._server.running()

    def refresh(self, *, start: bool = False) -> None:
        """Bring the view up to date, unless an engine that runs does so.

        With the server down the view stays as it is, as the engine left it, unless `start` says to start the server or
        there is no view yet.
        """
        if not self.exists():
            return
        missing = not self._has_view()
        if (start or missing or self.answers()) and (missing or not self.engine_runs()):
            self._follower.catch_up()

    def engine_runs(self) -> bool:
        """Whether a living engine has the log."""
        lease = self.log.lease()
        if lease is None:
            return False
        owner = lease.owner
        if owner.host == Owner.this_process().host:
            return owner.is_local() and not owner.is_dead()
        return lease.expires > time.time() * 1000

    def close(self) -> None:
        for name in ("_view", "log"):
            if name in self.__dict__:
                self.__dict__[name].close()
        if "_follower" in self.__dict__:
            self._follower.projector.close()
        if self._started and self._server is not None and not self._is_used():
            self._server.stop()

    def _has_view(self) -> bool:
        return self.view_path.exists() and bool(self._view.log_id())

    def _had_a_log(self) -> bool:
        """Whether the folder knows of a log: an empty one in its place is a loss, and nothing to begin silently."""
        data = self.settings.data
        if any((data / "archive").glob("*/*/*")) or any((data / "checkpoints").glob("*")):
            return True
        return self._has_view()

    def _is_used(self) -> bool:
        """Whether anybody else is connected to the server that was started here."""
        try:
            wire = Wire(Address.parse(self.url))
        except LogUnavailable:
            return False
        with contextlib.closing(wire):
            lines = wire.call("INFO", "clients").decode().splitlines()
        return "connected_clients:1" not in lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
