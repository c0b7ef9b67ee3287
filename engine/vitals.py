"""The engine's vital signs: what only its supervisor knows, told to those who watch it from another process.

They stand in `engine-figures.json` in the data folder, a few hundred bytes that are replaced whole every two seconds.
What is counted there goes on after a restart of the supervisor, too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from engine.data_folder import now

if TYPE_CHECKING:
    from pathlib import Path

    from engine.supervisor import Observer, Progress

FILE: Final = "engine-figures.json"
FRESH_MS: Final = 10_000
"""Figures that are older are those of an engine that is gone, or that cannot do its work."""


class VitalSigns(Struct, frozen=True):
    """What the file holds. Times are wall ms, 0: never."""

    at: int = 0
    """When it was written."""
    state: str = ""
    """The driver's last word: starting, running, stopping, stopped, restarting."""
    restarts: int = 0
    """Starts after a death, since the data folder was made."""
    checkpoints_failed: int = 0
    """Likewise."""
    newest_checkpoint: int = 0
    """When the newest checkpoint of this start was triggered."""
    flink: tuple[str, ...] = ()
    """Where Flink serves its own metrics, as `host:port`."""

    def is_up(self, moment: int) -> bool:
        """Whether the engine did its work at that wall time, as far as is known."""
        return self.state == "running" and moment - self.at < FRESH_MS


def read_vitals(data: Path) -> VitalSigns | None:
    """The vital signs in a data folder; None: no engine has left any."""
    try:
        return msgspec.json.decode((data / FILE).read_bytes(), type=VitalSigns)
    except (OSError, msgspec.DecodeError):
        return None


class Vitals:
    """An observer of the engine that writes its vital signs and hands on what it hears."""

    def __init__(self, observer: Observer, data: Path, *, died: bool) -> None:
        """`died`: the engine that was here before did not stop by itself."""
        self._observer, self._path = observer, data / FILE
        signs = read_vitals(data) or VitalSigns()
        self._signs = msgspec.structs.replace(
            signs, state="starting", restarts=signs.restarts + died, newest_checkpoint=0, flink=()
        )

    def say(self, what: str, words: str, **facts: object) -> None:
        """See `Observer.say`."""
        match what:
            case "restart":
                self._write(restarts=self._signs.restarts + 1, state="restarting", flink=())
            case "checkpoint" if isinstance(failed := facts.get("failed"), int):
                self._write(checkpoints_failed=self._signs.checkpoints_failed + failed)
            case "running":
                found = facts.get("metrics")
                self._write(state=what, flink=tuple(map(str, found)) if isinstance(found, list) else ())
            case "starting" | "stopping" | "stopped":
                self._write(state=what)
            case _:
                pass
        self._observer.say(what, words, **facts)

    def show(self, progress: Progress) -> None:
        """See `Observer.show`."""
        age = progress.checkpoint_age_ms
        newest = self._signs.newest_checkpoint if age is None else now() - age
        self._write(state=progress.driver, newest_checkpoint=newest)
        self._observer.show(progress)

    def _write(self, **changes: object) -> None:
        self._signs = msgspec.structs.replace(self._signs, at=now(), **changes)
        aside = self._path.with_name(self._path.name + ".new")
        with contextlib.suppress(OSError):  # a full disk is told where it hurts
            aside.write_bytes(msgspec.json.encode(self._signs))
            aside.replace(self._path)
