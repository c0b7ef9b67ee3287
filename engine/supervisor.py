"""`longwatch run`: one engine, from its start to its stop.

The supervisor owns the data folder. It starts the log's server, takes the log's lease, keeps the view behind the
journal and the archive behind the checkpoints, and sees to it that a driver runs: the process that starts Java and
Flink (see `engine.flink.driver`). It does no work of runs itself, so it has little that can fail.

What ends comes back: a driver or JVM that dies is started again on the newest whole checkpoint, under a new epoch, so
that nothing of the old one can still write; an embedded Redis that dies is started on its files. When the log has lost
its end, the engine goes back to the newest checkpoint that the log still covers, and the view is made again. What would
fail again at once (no such checkpoint, an application that cannot be imported) ends the engine with its words.

Where the settings ask for them, an exporter of traces and a server of metrics run beside it (see `engine.companions`).

    main thread          the loop below: happenings, lease, respawns, figures
    thread "driver"      reads the driver's lines into the loop's queue
    thread "view"        journal -> view
    thread "archive"     log -> archive, whenever the driver told of a checkpoint
"""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from engine.background import Background
from engine.code_change import check_code
from engine.companions import STOP_SECONDS, companions_of
from engine.data_folder import DataFolder, EngineFile, Pids, now
from engine.driver_process import DriverProcess, Facts
from engine.driving import Driving
from engine.flink.plan import Plan, write_plan
from engine.gauges import Figures, Gauges
from engine.log.archive import Archive
from engine.log.errors import Fenced, LogBusy, LogError, LogLost, LogUnavailable
from engine.log.janitor import Janitor
from engine.log.lease import Owner
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis
from engine.settings import Settings, show_size
from engine.view.database import ViewDamaged
from engine.view.follower import Follower
from engine.view.projector import Projector
from engine.vitals import Vitals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from engine import Application
    from engine.settings import Loaded

_TURN_SECONDS: Final = 0.2
_LEASE_SECONDS: Final = 5.0
_SERVER_SECONDS: Final = 1.0
_FIGURES_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 30.0
"""The driver gives its savepoint ten seconds, and Flink some more to end."""
_CATCH_UP_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Progress:
    """What an observer is shown every few seconds."""

    figures: Figures
    records_per_second: float
    checkpoint_age_ms: int | None
    """Since the newest checkpoint was triggered; None: there was none yet."""
    driver: str
    """The driver's last word: starting, running, stopping, ..."""


class Observer(Protocol):
    """Who is told how the engine fares."""

    def say(self, what: str, words: str, **facts: object) -> None:
        """Tell of something that happened once."""

    def show(self, progress: Progress) -> None:
        """Show how things stand."""


class Supervisor:
    """One engine on one data folder. Make it and call `run` in the main thread."""

    def __init__(
        self,
        loaded: Loaded,
        app: str,
        application: Application,
        observer: Observer,
        *,
        accept: bool = False,
        restore: Path | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            loaded: the settings, and which of them somebody has chosen.
            app: the application as `module:name`.
            application: the same, imported: its code's digests are compared and noted.
            observer: hears and sees how it goes.
            accept: go on with changed code although the last engine did not stop cleanly.
            restore: a checkpoint or savepoint that the first start goes on from; None: the newest whole one.

        """
        self._loaded, self._app, self._application = loaded, app, application
        self._folder = DataFolder(self.settings.data)
        last = self._folder.read_engine()
        observer = Vitals(observer, self._folder.path, died=last is not None and not last.stopped)
        self._observer, self._accept, self._restore = observer, accept, restore
        self._archive = Archive(self._folder.archive)
        self._server = None if self.settings.log else EmbeddedRedis(self.settings.data, self.settings.fsync)
        self._happenings: queue.SimpleQueue[Facts] = queue.SimpleQueue()
        errors = self._folder.logs / "engine.log"
        self._driving = Driving(self._start_driver, observer.say, errors, chosen=restore is not None)
        self._companions = companions_of(self.settings, self._folder.logs, observer.say)
        self._stops_asked = 0
        self._is_away = False
        self._projected = 0
        self._view_is_ahead = threading.Event()
        self._clocks: dict[str, float] = {}

    @property
    def settings(self) -> Settings:
        return self._loaded.settings

    @property
    def url(self) -> str:
        return self.settings.log or (self._server.url if self._server else "")

    def run(self) -> None:
        """Run until a signal asks for the end.

        Raises:
            LogBusy: another engine has the log.
            LogMismatch, LogLost, CodeChanged: log, checkpoints and code do not belong together.
            EngineFailed: it cannot go on.

        """
        with self._signals():
            self._folder.make()
            ours = self._server is not None and self._server.ensure()
            try:
                with contextlib.closing(self._open_log()) as self._log:
                    self._lease = self._log.take_lease(Owner.this_process())
                    ours = True
                    self._run_on_log()
            finally:
                if ours and self._server is not None:
                    self._server.stop()

    # -- start

    def _run_on_log(self) -> None:
        """Run with the lease in hand; who does not have it leaves the server alone, for another engine may use it."""
        try:
            self._check_code()
            self._run_helpers()
        finally:
            with contextlib.suppress(LogError):
                self._log.release_lease(self._lease)

    def _open_log(self) -> RedisLog:
        """Open the log, or make it where nothing was ever begun."""
        chosen = {name for name in ("partitions", "lapse") if self._loaded.origin[name] != "default"}
        partitions = self.settings.partitions if "partitions" in chosen else None
        lapse = self.settings.lapse if "lapse" in chosen else None
        last = self._folder.read_engine()
        log_id = last.log_id if last and self._folder.has_checkpoints() else None
        try:
            return RedisLog.open(self.url, self._archive, partitions=partitions, lapse=lapse, log_id=log_id)
        except LogLost:
            if self._folder.has_checkpoints():
                raise LogLost(
                    f"log {self.url} is empty or another one, and {self._folder.path} holds checkpoints of runs that "
                    "stand on a log: give the log its files back, or take another data folder (--data) to begin anew"
                ) from None
        return RedisLog.create(self.url, self.settings.partitions, self.settings.lapse, self._archive)

    def _check_code(self) -> None:
        last = self._folder.read_engine()
        code = {name: workflow.code for name, workflow in self._application.workflows.items()}
        if last is not None and not self._accept:
            check_code(last, code, self._folder, self._log)
        self._note = EngineFile(
            version=version("longwatch"),
            app=self._app,
            log_id=self._log.header.log_id,
            owner=Owner.this_process(),
            started=now(),
            code=code,
        )

    def _plan(self) -> Plan:
        settings, header = self.settings, self._log.header
        return Plan(
            app=self._app,
            app_path=str(settings.app_path),
            data=str(self._folder.path),
            log_url=self.url,
            log_id=header.log_id,
            intakes=settings.intakes,
            epoch=self._lease.epoch,
            partitions=header.partitions,
            lapse=header.lapse,
            cluster=settings.cluster,
            parallelism=settings.parallelism,
            backend=settings.backend,
            checkpoint_interval_ms=_ms(settings.checkpoint_interval),
            retained_checkpoints=settings.checkpoints_retained,
            managed_memory=show_size(settings.managed_memory),
            heap=show_size(settings.heap)[:-1] if settings.heap else "",
            flink=settings.flink,
            slice_ms=_ms(settings.slice),
            handler_timeout_ms=_ms(settings.handler_timeout),
            early_hold_ms=_ms(settings.early_hold),
            retention_ms=_ms(settings.retention),
            log_format=settings.log_format,
            log_level=settings.log_level,
            metrics=bool(settings.metrics),
        )

    def _run_helpers(self) -> None:
        gauges = Gauges(self._log, self.url, self._folder.view)
        view = Background("view", self._view, lambda error: self._tell_failure("view", error))
        archive = Background("archive", self._tidy, lambda error: self._tell_failure("archive", error))
        try:
            with gauges:
                self._driving.keep()
                self._loop(gauges)
        finally:
            self._driving.kill()
            archive.stop(_CATCH_UP_SECONDS)
            patience = 0.0 if self._stops_asked > 1 else _CATCH_UP_SECONDS
            if not view.stop(patience) and patience:
                self._observer.say("view", "the view is behind; commands bring it up to date")
            self._companions.stop(STOP_SECONDS if patience else 0.0)
            clean = self._driving.has_savepoint
            self._write_note(stopped=now() if clean else 0)
            self._observer.say("stopped", "stopped" if clean else "stopped on the last checkpoint", clean=clean)

    # -- the loop

    def _loop(self, gauges: Gauges) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                self._take(self._happenings.get(timeout=_TURN_SECONDS))
                while True:
                    self._take(self._happenings.get_nowait())
            if self._stops_asked and not self._driving.lives:
                return
            if self._is_time("server", _SERVER_SECONDS):
                self._keep_server()
            if self._is_time("lease", _LEASE_SECONDS):
                self._keep_lease()
            if self._is_time("figures", _FIGURES_SECONDS):
                self._show(gauges)
            if self._driving.keep():
                self._write_note()
            self._keep_companions()

    def _take(self, facts: Facts) -> None:
        match facts["driver"]:
            case "stop":
                self._stop()
            case "failed_beside":
                self._end_beside(facts["what"], facts["error"])
            case "went_back":
                self._view_is_ahead.set()
                self._driving.hear(facts)
            case "checkpoint" | "checkpoint_failed" | "skipped":
                self._driving.hear(facts)
            case _:
                self._driving.hear(facts)
                self._write_note()

    def _start_driver(self, *, first: bool) -> DriverProcess:
        """Start a driver; each under an epoch of its own, so that nothing of the one before can still write."""
        if not first:
            self._lease = self._log.take_lease(self._lease.owner)
        plan = msgspec.structs.replace(self._plan(), look_back=self._driving.looks_back)
        if first and self._restore is not None:
            plan = msgspec.structs.replace(plan, restore=str(self._restore.absolute()))
        write_plan(plan, self._folder.plan)
        return DriverProcess(self._folder.plan, self._folder.logs / "engine.log", self._happenings.put)

    def _stop(self) -> None:
        """First call: a savepoint and an end. Second: an end."""
        if self._stops_asked > 1:
            self._driving.kill()
        elif self._driving.lives:
            self._observer.say("stopping", "stopping: savepoint, then the end (Ctrl-C again ends at once)")
            self._clocks["stop"] = time.monotonic()
        self._driving.stop()

    # -- beside the driver

    def _view(self, stop: threading.Event) -> Iterator[None]:
        """Keep the view behind the journal; after `stop`, to its end.

        When the log has lost its end, so has the journal: the view forgets all, and is made again of what is left.
        """
        log = self._second_log()
        projector = Projector(self._folder.view, log.header.log_id)
        follower = Follower(log, projector)
        try:
            follower.catch_up()
            while not stop.is_set():
                if self._view_is_ahead.is_set():
                    projector.reset()
                    self._view_is_ahead.clear()
                    follower.catch_up()
                self._projected += follower.step(500)
                yield
                stop.wait(0.1)
            while follower.step(0):
                yield
        finally:
            projector.close()
            log.close()

    def _tidy(self, stop: threading.Event) -> Iterator[None]:
        """Archive and trim whenever the oldest retained checkpoint is another one."""
        log = self._second_log()
        settings = self.settings
        janitor = Janitor(
            log,
            self._archive,
            most_entries=settings.archive_entries,
            longest_ms=_ms(settings.archive_age),
            dead_days=settings.dead_letter_retention.days,
        )
        tidied = 0
        try:
            while not stop.wait(1.0):
                if (trigger := self._driving.oldest_trigger) != tidied:
                    log.renew_lease(self._lease)
                    janitor.tidy(trigger)
                    tidied = trigger
                yield
        finally:
            log.close()

    def _second_log(self) -> RedisLog:
        return RedisLog.open(self.url, self._archive, log_id=self._log.header.log_id)

    def _tell_failure(self, what: str, error: Exception) -> None:
        self._happenings.put({"driver": "failed_beside", "what": what, "error": error})

    def _end_beside(self, what: str, error: Exception) -> None:
        if isinstance(error, Fenced):
            raise LogBusy(f"another engine has taken the log over: {error}")
        if isinstance(error, LogLost):
            raise error
        self._observer.say(what, f"{what}: {type(error).__name__}: {error}; tried again", error=str(error))

    def _keep_server(self) -> None:
        if self._is_stuck_in_stop():
            self._driving.kill()
        if self._server is None or self._server.running():
            return
        self._observer.say("redis", "Redis has ended; it is started again")
        try:
            self._server.ensure()
        except LogError as error:
            self._observer.say("redis", f"Redis does not come up, which is tried on: {error}", error=str(error))
            return
        self._observer.say("redis", "Redis is back")
        self._write_note()

    def _keep_companions(self) -> None:
        if self._companions.keep():
            with contextlib.suppress(OSError):  # their ids are for who looks: a full disk ends no engine by this
                self._write_note()

    def _keep_lease(self) -> None:
        try:
            with contextlib.suppress(LogUnavailable):  # the connection may just be an old one
                self._lease = self._log.renew_lease(self._lease)
                self._tell_away("")
                return
            self._lease = self._log.renew_lease(self._lease)
        except LogUnavailable as error:
            self._tell_away(str(error))
        except Fenced as error:
            raise LogBusy(f"another engine has taken the log over: {error}") from error

    def _tell_away(self, why: str) -> None:
        """Say once that the log is away, and once that it is back."""
        if bool(why) != self._is_away:
            words = f"the log is away, the engine waits for it: {why}" if why else "the log is back"
            self._observer.say("log", words, error=why)
        self._is_away = bool(why)

    def _is_stuck_in_stop(self) -> bool:
        asked = self._clocks.get("stop")
        return asked is not None and time.monotonic() - asked > _STOP_SECONDS

    def _show(self, gauges: Gauges) -> None:
        with contextlib.suppress(LogUnavailable, ViewDamaged):  # the view may not be made yet, or be made again
            figures = gauges.read()
            moment = time.monotonic()
            before, count = self._clocks.get("rate_at", moment), self._clocks.get("rate_count", 0.0)
            rate = (self._projected - count) / (moment - before) if moment > before else 0.0
            self._clocks |= {"rate_at": moment, "rate_count": float(self._projected)}
            newest = self._driving.newest_trigger
            self._observer.show(
                Progress(figures, rate, max(0, now() - newest) if newest else None, self._driving.state)
            )

    # -- small things

    def _write_note(self, *, stopped: int = 0) -> None:
        driving = self._driving
        pids = Pids(
            supervisor=self._note.owner.pid,
            driver=driving.pid,
            jvm=driving.jvm,
            redis=self._redis_pid() if self._server else 0,
            exporter=self._companions.pid("exporter"),
            metrics=self._companions.pid("metrics"),
        )
        self._note = msgspec.structs.replace(self._note, pids=pids, rest_port=driving.rest_port, stopped=stopped)
        self._folder.write_engine(self._note)

    def _redis_pid(self) -> int:
        try:
            with contextlib.closing(Wire(Address.parse(self.url))) as wire:
                found = re.search(rb"process_id:(\d+)", wire.call("INFO", "server"))
        except LogUnavailable:
            return 0
        return int(found[1]) if found else 0

    def _is_time(self, name: str, seconds: float) -> bool:
        moment = time.monotonic()
        if moment - self._clocks.get(name, 0.0) < seconds:
            return False
        self._clocks[name] = moment
        return True

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def ask(_number: int, _frame: FrameType | None) -> None:
            self._stops_asked += 1
            self._happenings.put({"driver": "stop"})

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ms(length: timedelta) -> int:
    return round(length / timedelta(milliseconds=1))
