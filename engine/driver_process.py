"""The driver as its supervisor sees it: a child process that says what happens, one JSON object a line."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Facts = dict[str, Any]
"""A line of the driver: `driver` says what happened (`engine.flink.driver` lists all), the rest is about it."""

MODULE: Final = "engine.flink.driver"
REFUSED: Final = 2
"""Exit code of a driver that was given a plan that it cannot run."""

_FINAL: Final = re.compile(
    r"^(?:\w+\.)*(LogLost|LogMismatch|Fenced|DefinitionError|AppError|ImportError|ModuleNotFoundError|SyntaxError"
    r"|NoWholeCheckpoint|UnknownFlink|PlanRefused)\b"
)
"""Failures that come again however often the driver is started."""


def is_final(words: str) -> bool:
    """Whether a failure in the driver's words will come again at every start."""
    return _FINAL.match(words) is not None


def kind_of(words: str) -> str:
    """Name the class of a final failure; empty for another."""
    found = _FINAL.match(words)
    return found[1] if found else ""


class DriverProcess:
    """A running driver. Make it in the main thread: Linux ends it when the thread that made it ends."""

    def __init__(self, plan: Path, errors: Path, tell: Callable[[Facts], None]) -> None:
        """Start it.

        Args:
            plan: the file that `engine.flink.plan.write_plan` wrote.
            errors: its standard error is added there.
            tell: called from a thread of its own with every line, and last with `{"driver": "ended", "code": ...}`.

        """
        self.failure = ""
        self._tell = tell
        with errors.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, "--plan", str(plan)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor, which asks it to stop
            )
        self._listener = threading.Thread(target=self._listen, name="driver", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask_to_stop(self) -> None:
        """Ask for a savepoint and an end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, and Java with it."""
        self._process.kill()
        self._process.wait()
        self._listener.join(5)

    def _listen(self) -> None:
        with self._process as process:  # closes its pipes and waits for its end
            for line in process.stdout or ():
                with contextlib.suppress(msgspec.DecodeError):
                    facts = msgspec.json.decode(line, type=Facts)
                    if facts.get("driver") == "failed":
                        self.failure = str(facts.get("error", ""))
                    self._tell(facts)
            code = process.wait()
        self._tell({"driver": "ended", "code": code, "pid": process.pid})
