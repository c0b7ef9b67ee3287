"""Processes beside the engine that tell others how it fares: traces to a collector, metrics to Prometheus.

The engine knows them by their modules' names alone. It starts them, starts them again when they end, later each time,
and ends them with itself; it waits for none of them and fails with none of them.

A companion is started through this module (`python -m engine.companions MODULE ...`), which binds its life to that of
its supervisor before any of its own code runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engine.driving import Say
    from engine.settings import Settings

EXPORTER: Final = "observability.exporter"
METRICS: Final = "observability.metrics_server"

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
STEADY_SECONDS: Final = 60.0
"""Who has run so long begins with the shortest wait again."""
STOP_SECONDS: Final = 5.0
"""At a stop a companion has so long to send what is left; the rest is sent after the next start."""
LONGEST_WORDS: Final = 300
MOST_SAID: Final = 20

_PARENT: Final = "_LONGWATCH_PARENT"
_DIE_WITH_PARENT: Final = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl(2)."""


@dataclass
class Companion:
    """One process that is kept running. The main thread's."""

    name: str
    """As messages call it."""
    arguments: tuple[str, ...]
    """The module and its arguments."""
    log: Path
    """It writes its log there by itself; what it prints is added, and the first line of that is said."""
    say: Say
    environment: Mapping[str, str] = field(repr=False)
    _process: subprocess.Popen[bytes] | None = None
    _again_at: float = 0.0
    _started: float = 0.0
    _ends: int = 0
    """In a row, each before it had run for long."""
    _heard: str = ""
    """The first that it printed since it was started."""
    _said: set[str] = field(default_factory=set)
    _listener: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """0: it does not run."""
        return self._process.pid if self._process else 0

    def keep(self) -> bool:
        """Start it if it is due; whether it was started. Takes no longer than starting a process does."""
        if self._process is not None and self._process.poll() is not None:
            if self._listener is not None:
                self._listener.join(0.1)  # its last words are in the pipe
            self._ended(self._process.returncode)
        elif self._process is not None and self._heard:
            self._tell(self._heard)
        if self._process is not None or time.monotonic() < self._again_at:
            return False
        self._started = time.monotonic()
        try:
            self._start()
        except OSError as error:
            self._ended(None, str(error))
            return False
        return True

    def ask_to_end(self) -> None:
        """Ask it to end; it is not started any more."""
        self._again_at = float("inf")
        if self._process is not None:
            self._process.terminate()

    def end(self, until: float) -> None:
        """Wait for its end until then (monotonic seconds), and end it at once if it has not come to it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> None:
        self._heard = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.companions", *self.arguments],
            env={**self.environment, _PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for the supervisor, which ends it in its time
        )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), name=self.name, daemon=True)
        self._listener.start()

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Add what it prints to its log: what its own log did not hold, such as why it could not be started."""
        with process.stdout or contextlib.nullcontext(()) as lines:
            for line in lines:
                words = line.decode(errors="replace").rstrip()
                is_part = words[:1].isspace() or words.startswith("Traceback")
                if words and process is self._process and not is_part:
                    self._heard = self._heard or words[:LONGEST_WORDS]
                with contextlib.suppress(OSError), self.log.open("ab") as log:
                    log.write(line)

    def _ended(self, code: int | None, why: str = "") -> None:
        """Say once, and not at each new try, that it does not run."""
        self._process = None
        if time.monotonic() - self._started > STEADY_SECONDS:
            self._ends = 0
        self._again_at = time.monotonic() + min(FIRST_WAIT * 2**self._ends, LONGEST_WAIT)
        self._ends = min(self._ends + 1, 16)
        if self._ends == 1:
            how = f"ended with code {code}" if code is not None else "could not be started"
            words = why or self._heard
            self._tell(f"it {how} and is started again, later each time{f': {words}' if words else ''}")

    def _tell(self, words: str) -> None:
        """Say what is wrong with it, the same once."""
        self._heard = ""
        if words not in self._said and len(self._said) < MOST_SAID:
            self._said.add(words)
            self.say(self.name, f"the engine goes on without its {self.name} process: {words} (see {self.log})")


class Companions:
    """All of an engine. The main thread's."""

    def __init__(self, companions: Sequence[Companion]) -> None:
        self._all = companions

    def keep(self) -> bool:
        """Start those that are due; whether any was started."""
        started = [each.keep() for each in self._all]
        return any(started)

    def pid(self, name: str) -> int:
        """Of the one of this name; 0: it does not run."""
        return next((each.pid for each in self._all if each.name == name), 0)

    def stop(self, seconds: float) -> None:
        """End all; they have so long to come to their own end."""
        until = time.monotonic() + seconds
        for each in self._all:
            each.ask_to_end()
        for each in self._all:
            each.end(until)


def companions_of(settings: Settings, logs: Path, say: Say) -> Companions:
    """Those that the settings ask for."""
    environment = {**os.environ, **_variables(settings)}
    wanted: list[tuple[str, tuple[str, ...]]] = []
    if settings.otlp:
        wanted.append(("exporter", (EXPORTER, "--data", str(settings.data))))
    if settings.metrics:
        wanted.append(("metrics", (METRICS, "--data", str(settings.data), "--listen", settings.metrics)))
    return Companions([Companion(name, words, logs / f"{name}.log", say, environment) for name, words in wanted])


def _variables(settings: Settings) -> dict[str, str]:
    """What they must know of the settings, whatever said it. Not as arguments: those are seen by everybody."""
    names = ("log", "fsync", "otlp", "otlp_protocol", "trace_rule", "metrics", "log_format", "log_level")
    return {f"LONGWATCH_{name.upper()}": str(getattr(settings, name)) for name in names}


def _bind() -> None:
    """End when the supervisor does, however that ends. On Linux; elsewhere only its own stop ends a companion."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    parent = os.environ.pop(_PARENT, "")
    if parent and os.getppid() != int(parent):  # it was gone before this process was bound to it
        sys.exit(1)


if __name__ == "__main__":
    _bind()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
