"""An engine under measurement: `longwatch run` on a folder of its own, ended with all its processes in any case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import processes
from engine.flink.jvm import die_with_parent
from engine.log.archive import Archive
from engine.log.errors import LogError
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis

APPLICATION = "benchmarks.workload:application"
ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180.0
STOP_SECONDS = 120.0


class EngineEnded(RuntimeError):
    """The engine did not start, or ended in the middle of a measurement."""


class EngineProcess:
    """One engine. A context manager: leaving it kills what still runs."""

    def __init__(
        self,
        data: Path,
        settings: Mapping[str, str],
        *,
        module: str = "engine.cli",
        environment: Mapping[str, str] | None = None,
        application: str = APPLICATION,
    ) -> None:
        """Prepare; `start` starts it.

        Args:
            data: its data folder.
            settings: of `longwatch settings`, by name.
            module: what `python -m` runs, with the arguments of `longwatch`.
            environment: further variables.
            application: what it runs.
        """
        self._application = application
        self.data = data
        self._module = module
        variables = {f"LONGWATCH_{name.upper()}": value for name, value in settings.items()}
        self._environment = {**os.environ, "LONGWATCH_APP_PATH": str(ROOT), **variables, **(environment or {})}
        self._server = EmbeddedRedis(data)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: RedisLog | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start it; with `wait`, return when its job runs."""
        self.data.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            self._module,
            "run",
            "--app",
            self._application,
            "--data",
            str(self.data),
            "--json",
        ]
        with self._said.open("wb") as out, (self.data.parent / f"{self.data.name}.err").open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends the engine by itself
                preexec_fn=die_with_parent,  # noqa: PLW1509 - no thread of the benchmark holds a lock that matters here
            )
        if wait:
            self.await_running()

    def await_running(self) -> float:
        """Return when its job runs; since when, wall seconds."""
        until = time.monotonic() + START_SECONDS
        while True:
            for line in self.said():
                if line.get("event") == "running":
                    return datetime.fromisoformat(line["at"]).timestamp()
            self.check()
            if time.monotonic() > until:
                raise EngineEnded(f"the engine did not start within {START_SECONDS:.0f} s; see {self.data}/logs")
            time.sleep(0.05)

    @property
    def _said(self) -> Path:
        return self.data.parent / f"{self.data.name}.out"

    def said(self) -> list[dict[str, Any]]:
        """Its lines."""
        lines = self._said.read_bytes().split(b"\n")[:-1] if self._said.exists() else []
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def check(self) -> None:
        """Raise when it has ended."""
        if self._process is None or self._process.poll() is not None:
            code = self._process.returncode if self._process else None
            words = (self.data.parent / f"{self.data.name}.err").read_text(errors="replace")[-2000:]
            raise EngineEnded(f"the engine ended with code {code}: {words or self.said()[-1:]}")

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def log(self) -> RedisLog:
        """A connection to its log; the main thread's."""
        if self._log is None:
            self._log = self.open_log()
        return self._log

    @property
    def url(self) -> str:
        return self._server.url

    def open_log(self) -> RedisLog:
        return RedisLog.open(self._server.url, Archive(self.data / "archive"))

    def pids(self) -> list[int]:
        """All its processes."""
        return processes.tree(self.pid, str(self._server.socket))

    def stop(self) -> float:
        """End it as SIGTERM does, with a savepoint; how many seconds that took."""
        began = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise EngineEnded(
                    f"the engine did not stop within {STOP_SECONDS:.0f} s; see {self.data}/logs"
                ) from None
        self._forget()
        return time.monotonic() - began

    def kill(self) -> None:
        """Kill the supervisor with SIGKILL, wait until what hangs on it is gone; Redis lives on."""
        if self._process is None:
            return
        below = [pid for pid in processes.tree(self._process.pid) if processes.role(pid) != "redis"]
        self._process.kill()
        self._process.wait()
        _await_end(below)
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        with suppress(LogError):
            self._server.stop()

    def _forget(self) -> None:
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


def _await_end(pids: list[int]) -> None:
    until = time.monotonic() + 10
    while alive := [pid for pid in pids if processes.command(pid)]:
        if time.monotonic() > until:
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
