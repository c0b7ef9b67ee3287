"""The process that runs the engine's job: `python -m engine.flink.driver --plan plan.json`.

It starts Java and Flink, finds the newest whole checkpoint, hands the job over and watches it until it ends. Its
supervisor reads its standard output, one JSON object a line:

    {"driver": "starting", "jvm_pid": 4711}
    {"driver": "skipped", "path": "...", "why": "..."}               a damaged checkpoint was passed over
    {"driver": "went_back", "path": "..." or null, "ahead": [{"path": "...", "why": "..."}]}     see `Plan.look_back`
    {"driver": "running", "job_id": "...", "rest_port": 8081, "restored_from": "..." or null, "jvm_pid": 4711,
     "metrics": ["127.0.0.1:9250"]}
    {"driver": "checkpoint", "oldest_trigger": ms, "newest_trigger": ms, "count": 3, "newest_path": "..."}
    {"driver": "checkpoint_failed", "failed": 2}                     two more than the last time
    {"driver": "stopping"}
    {"driver": "stopped", "savepoint": "..." or null, "error": null or why there is no savepoint}
    {"driver": "failed", "error": "the words of what failed first"}

A `checkpoint` line comes when there are as many checkpoints as are kept and what older jobs left was swept, and then
whenever that changes: so every checkpoint that a start could ever go back to was triggered at `oldest_trigger` or
later.

SIGTERM and SIGINT stop it with a savepoint, a second one at once. It dies when the process that started it dies (Linux:
when the *thread* that started it ends), and Java dies with it. Exit codes: 0 stopped, 1 failed, 2 the plan is refused.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import signal
import stat
import sys
import threading
import time
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from py4j.protocol import Py4JJavaError, Py4JNetworkError

from engine.flink import checkpoints
from engine.flink.checkpoints import NoneCovered
from engine.flink.cluster import Cluster, PlanRefused, make_cluster
from engine.flink.jvm import JavaFailed, die_with_parent
from engine.flink.plan import Plan, read_plan
from engine.flink.rest import ENDED, FlinkRefused, FlinkUnreachable, SavepointFailed, words_of
from engine.log.errors import LogLost
from engine.logs import open_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

logger = logging.getLogger(__name__)
T = TypeVar("T")

_CANCEL_SECONDS: Final = 5.0
_TURN_SECONDS: Final = 0.1
_STATUS_TURNS: Final = 5
_CHECKPOINT_TURNS: Final = 10

_PATIENCE_SECONDS: Final = 30.0
"""How long nothing that Flink is asked may be answered before its job is given up."""

_UNANSWERED: Final = (FlinkUnreachable, FlinkRefused, HTTPException, ValueError, TypeError, KeyError)
"""No answer; and what comes of one that was cut off, empty or not the one that was asked for."""

_OTHER_BACKEND: Final = "different StateBackend"
"""Flink's words, as of `internals.PYFLINK`."""

_STOPPED, _FAILED, _REFUSED = 0, 1, 2


class JobFailed(RuntimeError):
    """The job ended by itself.

    Attributes:
        why: the words of what failed first; for an error raised in Python `Type: message`.

    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Voice:
    """Says what happens, one JSON object a line, on the standard output that the driver was started with.

    Whatever else writes to standard output afterwards goes to standard error, so that the lines stay whole.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)

    def say(self, driver: str, **facts: object) -> None:
        self._out.write(msgspec.json.encode({"driver": driver, **facts}) + b"\n")


class Stop:
    """Whether somebody asked the driver to stop; asked twice, the driver ends at once."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            os._exit(_FAILED)  # Java dies with us: see jvm.spawn
        self.asked = True


class Patience:
    """Lets single questions to Flink fail: on a machine whose CPU is taken away, a healthy Flink answers late.

    That a process has ended is seen by `Cluster.check`, at once.
    """

    def __init__(self, seconds: float = _PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def ask(self, question: Callable[[], T]) -> T | None:
        """The answer; None if it failed.

        Raises:
            FlinkUnreachable, FlinkRefused: nothing was answered for `seconds`, and more than once.

        """
        try:
            answer = question()
        except _UNANSWERED as error:
            moment = time.monotonic()
            if self._since is None:
                self._since = moment
                logger.warning("Flink did not answer, which is waited for: %s: %s", type(error).__name__, error)
            elif moment - self._since > self._seconds:
                raise
            return None
        self._since = None
        return answer


class Driver:
    """One job from its start to its end."""

    def __init__(self, plan: Plan, voice: Voice, stop: Stop) -> None:
        self._plan = plan
        self._voice = voice
        self._stop = stop
        self._seen: tuple[int, ...] = ()
        self._failed: int | None = None
        self._swept = False

    def run(self) -> None:
        """Run the job until it is stopped.

        Raises:
            JobFailed: if the job ends by itself.
            JavaFailed: if a process of the cluster ends by itself.

        """
        cluster = make_cluster(self._plan)
        self._voice.say("starting", jvm_pid=cluster.jvm.pid)
        build = _load_build(self._plan)
        with cluster:
            try:
                self._run_on(cluster, build)
            except (FlinkUnreachable, FlinkRefused, Py4JNetworkError):
                cluster.check()  # says it better, if it was Java that ended
                raise
            except Py4JJavaError as error:  # its words are in Java, which ends with the cluster
                raise JobFailed(words_of(str(error))) from error

    def _run_on(self, cluster: Cluster, build: Any) -> None:  # noqa: ANN401
        found = self._find(cluster)
        if self._stop.asked:
            self._voice.say("stopped", savepoint=None, error=None)
            return
        job = _submit(cluster, self._plan, build, found)
        self._await_start(cluster, job, found)
        self._watch(cluster, job)
        self._end(cluster, job)

    def _find(self, cluster: Cluster) -> Path | None:
        if self._plan.restore:
            return Path(self._plan.restore)
        if self._plan.look_back:
            return self._look_back(cluster)
        found = checkpoints.find(Path(self._plan.data), cluster.java)
        for damaged in found.damaged:
            self._voice.say("skipped", path=str(damaged.path), why=damaged.why)
        return found.path

    def _look_back(self, cluster: Cluster) -> Path | None:
        """Find what the log still covers: the positions in each checkpoint, tried as the engine itself would."""
        from engine.flink.opening import open_cursor  # noqa: PLC0415 (PyFlink: read while Java starts, and seldom)
        from engine.flink.positions import read_positions  # noqa: PLC0415 (the same)

        with contextlib.closing(open_cursor(self._plan)) as cursor:

            def check(path: Path) -> None:
                cursor.assign(read_positions(cluster, self._plan, path))

            found = checkpoints.find_covered(Path(self._plan.data), cluster.java, check)
        for damaged in found.damaged:
            self._voice.say("skipped", path=str(damaged.path), why=damaged.why)
        ahead = [{"path": str(item.path), "why": item.why} for item in found.ahead]
        for item in ahead:
            logger.warning("checkpoint %(path)s is passed over: %(why)s", item)
        logger.warning("the log has lost its end; going on from %s", found.path or "its beginning")
        self._voice.say("went_back", path=str(found.path) if found.path else None, ahead=ahead)
        return found.path

    def _await_start(self, cluster: Cluster, job: str, found: Path | None) -> None:
        patience = Patience()
        while not self._stop.asked:
            cluster.check()
            if patience.ask(lambda: _is_working(cluster, job)):
                facts = {"job_id": job, "rest_port": cluster.rest.port, "jvm_pid": cluster.jvm.pid}
                facts["metrics"] = cluster.metrics
                self._voice.say("running", **facts, restored_from=str(found) if found else None)
                return
            time.sleep(_TURN_SECONDS)

    def _watch(self, cluster: Cluster, job: str) -> None:
        turn, patience = 0, Patience()
        while not self._stop.asked:
            turn += 1
            cluster.check()
            if turn % _STATUS_TURNS == 0:
                patience.ask(lambda: _check_job(cluster, job))
            if turn % _CHECKPOINT_TURNS == 0:
                patience.ask(lambda: self._tell_checkpoints(cluster, job))
            time.sleep(_TURN_SECONDS)

    def _tell_checkpoints(self, cluster: Cluster, job: str) -> None:
        counts = cluster.rest.checkpoint_counts(job)
        if self._failed is None:  # one that is triggered before all tasks run is declined, and means nothing
            self._failed = counts["failed"]
        if counts["failed"] != self._failed:
            self._voice.say("checkpoint_failed", failed=counts["failed"] - self._failed)
            self._failed = counts["failed"]
        kept = cluster.rest.checkpoints(job)
        numbers = tuple(checkpoint.id for checkpoint in kept)
        if numbers == self._seen or len(kept) < self._plan.retained_checkpoints:
            return
        if not self._swept:
            paths = [Path(checkpoint.path) for checkpoint in kept]
            self._swept = checkpoints.sweep(Path(self._plan.data), cluster.java, paths) is not None
            if not self._swept:
                return
        self._seen = numbers
        self._voice.say(
            "checkpoint",
            oldest_trigger=min(checkpoint.trigger_timestamp for checkpoint in kept),
            newest_trigger=max(checkpoint.trigger_timestamp for checkpoint in kept),
            count=len(kept),
            newest_path=kept[-1].path,
            newest_bytes=kept[-1].size,
            newest_ms=kept[-1].duration_ms,
        )

    def _end(self, cluster: Cluster, job: str) -> None:
        self._voice.say("stopping")
        folder = Path(self._plan.data).absolute() / "savepoints"
        try:
            savepoint = cluster.rest.stop_with_savepoint(job, str(folder), self._plan.stop_seconds)
        except SavepointFailed as error:
            cluster.check()
            _cancel(cluster, job)
            self._voice.say("stopped", savepoint=None, error=f"{error} It ends on the last checkpoint.")
        else:
            self._voice.say("stopped", savepoint=savepoint, error=None)


def main() -> int:
    """Run the driver; gives its exit code."""
    arguments = argparse.ArgumentParser(prog="python -m engine.flink.driver")
    arguments.add_argument("--plan", type=Path, required=True, help="the plan, as engine.flink.plan writes it")
    path = arguments.parse_args().plan
    _die_with_supervisor()
    voice, stop = Voice(), Stop()
    try:
        plan = read_plan(path)
        open_stream(plan.log_format, plan.log_level)
        Driver(plan, voice, stop).run()
    except (PlanRefused, msgspec.MsgspecError, OSError) as error:
        voice.say("failed", error=f"{path}: {error}" if isinstance(error, msgspec.MsgspecError) else str(error))
        return _REFUSED
    except Exception as error:  # noqa: BLE001 (whatever ended the driver is told to its supervisor)
        voice.say("failed", error=_words(error))
        return _FAILED
    return _STOPPED


def _load_build(plan: Plan) -> Any:  # noqa: ANN401 (a function of the job's module)
    """The function that draws the job's graph; the modules are read while Java starts."""
    sys.path.insert(0, plan.app_path)
    module, _, name = plan.job.partition(":")
    return getattr(importlib.import_module(module), name)


def _submit(cluster: Cluster, plan: Plan, build: Any, found: Path | None) -> str:  # noqa: ANN401
    environment = cluster.environment(found)
    build(environment, plan)
    return str(environment.execute_async("longwatch").get_job_id())


def _is_working(cluster: Cluster, job: str) -> bool:
    _check_job(cluster, job)
    return cluster.rest.is_working(job)


def _check_job(cluster: Cluster, job: str) -> None:
    status = cluster.rest.status(job)
    if status not in ENDED:
        return
    words = cluster.rest.failure(job) or f"the job ended by itself: {status}"
    if _OTHER_BACKEND in words:
        words = (
            f"The newest checkpoint was not made with backend = {cluster.plan.backend}, and only a savepoint can be"
            f" read with another: set the backend as it was, stop the engine (which makes a savepoint), then change it."
        )
    raise JobFailed(words)


def _cancel(cluster: Cluster, job: str) -> None:
    until = time.monotonic() + _CANCEL_SECONDS
    try:
        cluster.rest.cancel(job)
        while cluster.rest.status(job) not in ENDED and time.monotonic() < until:
            time.sleep(_TURN_SECONDS)
    except (FlinkUnreachable, FlinkRefused):
        return  # it is killed next, which is as good: the last checkpoint stays


def _die_with_supervisor() -> None:
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(_FAILED)  # it died before the kernel was told
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_read_until_end, name="supervisor", daemon=True).start()


def _read_until_end() -> None:
    """Read standard input, a pipe that the supervisor holds open, until the supervisor is gone."""
    while os.read(0, 1024):
        pass
    os._exit(_FAILED)


def _words(error: Exception) -> str:
    if isinstance(error, NoneCovered):
        return f"{LogLost.__name__}: {error}"
    return str(error) if isinstance(error, JobFailed | JavaFailed) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
