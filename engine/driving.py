"""Keeping a driver running: started again when it dies, until that is seen to be in vain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from engine.driver_process import REFUSED, DriverProcess, Facts, is_final, kind_of
from engine.log.checks import END_LOST
from engine.log.errors import LogUnavailable

if TYPE_CHECKING:
    from pathlib import Path

DEATHS: Final = 5
"""So many deaths of the driver within `DEATHS_SECONDS` are no accident, nor are so many starts that came to nothing."""
DEATHS_SECONDS: Final = 60.0
FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0

_CODES: Final = {"LogLost": 7, "LogMismatch": 7, "NoWholeCheckpoint": 7, "Fenced": 6, "DefinitionError": 1}
"""Exit codes of final failures by their class; others are a wrong setting or application."""


class EngineFailed(Exception):
    """The engine cannot go on; the message holds the words of what failed.

    `exit_code` is the command's.
    """

    def __init__(self, words: str, exit_code: int = 8) -> None:
        self.words, self.exit_code = words, exit_code
        super().__init__(words)

    def __reduce__(self) -> tuple[type[EngineFailed], tuple[str, int]]:
        """Survive pickling, which calls the class with its facts."""
        return EngineFailed, (self.words, self.exit_code)


class Start(Protocol):
    """Starts a driver.

    Raises:
        LogUnavailable: not now.
    """

    def __call__(self, *, first: bool) -> DriverProcess: ...


class Say(Protocol):
    """Tells an observer of something that happened."""

    def __call__(self, what: str, words: str, **facts: object) -> None: ...


class Driving:
    """A driver that is kept running. The main thread's."""

    def __init__(self, start: Start, say: Say, errors: Path, *, chosen: bool = False) -> None:
        """Begin nothing yet: `keep` does.

        Args:
            start: starts a driver.
            say: is told what an observer should know.
            errors: where the driver's standard error is found, for a death without words.
            chosen: somebody has named the checkpoint of the first start: no other one takes its place.

        """
        self._start, self._say, self._errors = start, say, errors
        self._process: DriverProcess | None = None
        self._again_at: float | None = time.monotonic()
        """When one is started; None: one runs, or none is wanted."""
        self._starts = 0
        self._deaths: list[float] = []
        self._vain = 0
        """Starts in a row that died before they ran."""
        self._stops = False
        self._chosen = chosen
        self.looks_back = False
        """Whether the next driver is to go on from an older checkpoint that the log still covers."""
        self.state = "starting"
        """The driver's last word: starting, running, stopping, stopped; or restarting."""
        self.jvm = 0
        self.rest_port = 0
        self.oldest_trigger = 0
        """When the oldest checkpoint was triggered that a start could go back to, wall ms; 0: unknown."""
        self.newest_trigger = 0
        self.has_savepoint = False
        """Whether it stopped with everything folded in a savepoint."""

    @property
    def pid(self) -> int:
        """Of the driver; 0: none lives."""
        return self._process.pid if self._process else 0

    @property
    def lives(self) -> bool:
        return self._process is not None

    def keep(self) -> bool:
        """Start a driver if one is due; whether one was started."""
        if self._again_at is None or time.monotonic() < self._again_at:
            return False
        try:
            self._process = self._start(first=not self._starts)
        except LogUnavailable:
            self._again_at = time.monotonic() + FIRST_WAIT
            return False
        self._again_at = None
        self._starts += 1
        self.state = "starting"
        return True

    def stop(self) -> None:
        """Ask the driver for a savepoint and an end; none is started any more."""
        self._stops, self._again_at = True, None
        if self._process is not None:
            self._process.ask_to_stop()

    def kill(self) -> None:
        """End the driver at once."""
        self._stops, self._again_at = True, None
        if self._process is not None:
            self._process.kill()
            self._forget()

    def hear(self, facts: Facts) -> None:
        """Take in a line of the driver.

        Raises:
            EngineFailed: it died, and there is no point in starting another one.

        """
        match facts["driver"]:
            case "checkpoint":
                self.oldest_trigger, self.newest_trigger = facts["oldest_trigger"], facts["newest_trigger"]
            case "checkpoint_failed":
                self._say("checkpoint", f"{facts['failed']} checkpoint(s) failed since the start", **facts)
            case "skipped":
                self._say("checkpoint", f"{facts['path']} cannot be used: {facts['why']}", **facts)
            case "went_back":
                self._say("log", _went_back(facts), **facts)
            case "failed":
                pass  # its words are said when it has ended
            case "ended":
                self._ended(facts)
            case state:
                self._enter(state, facts)

    def _enter(self, state: str, facts: Facts) -> None:
        self.state = state
        self.jvm = facts.get("jvm_pid", self.jvm)
        self.rest_port = facts.get("rest_port", self.rest_port)
        if state == "running":
            self._vain = 0
            self._chosen = self.looks_back = False
            restored = facts.get("restored_from")
            self._say("running", f"running, from {_words_of(restored)}" if restored else "running", **facts)
        elif state == "stopped":
            self.has_savepoint = facts["savepoint"] is not None
            if facts.get("error"):
                self._say("savepoint", str(facts["error"]))

    def _ended(self, facts: Facts) -> None:
        process = self._process
        if process is None or facts["pid"] != process.pid:
            return
        self._forget()
        if self._stops:
            return
        words = process.failure or f"the driver ended with code {facts['code']}; see {self._errors}"
        if kind_of(words) == "LogLost" and END_LOST in words and not (self._chosen or self.looks_back):
            self.looks_back = True
            self._say("log", "the log has lost its end: looking for a checkpoint that it still covers", error=words)
        elif facts["code"] == REFUSED or is_final(words):
            raise EngineFailed(words, _CODES.get(kind_of(words), 2))
        self._died(words)

    def _died(self, words: str) -> None:
        moment = time.monotonic()
        self._deaths = [death for death in self._deaths if moment - death < DEATHS_SECONDS] + [moment]
        self._vain += 1
        if len(self._deaths) >= DEATHS:
            raise EngineFailed(f"the engine died {len(self._deaths)} times within a minute; the last time: {words}")
        if self._vain >= DEATHS:
            raise EngineFailed(f"the engine could not be started, {self._vain} times; the last time: {words}")
        self.state = "restarting"
        self._again_at = moment + min(FIRST_WAIT * 2 ** (len(self._deaths) - 1), LONGEST_WAIT)
        self._say("restart", f"the engine died and is started again: {words}", error=words)

    def _forget(self) -> None:
        self._process, self.jvm, self.rest_port = None, 0, 0


def _went_back(facts: Facts) -> str:
    """Say which checkpoint was chosen, why, and what that means."""
    if facts["path"]:
        chosen = f"goes back to {_words_of(facts['path'])}, the newest that the log still covers"
    else:
        chosen = "folds the log from its beginning, for there is no checkpoint yet"
    ahead = ", ".join(_words_of(item["path"]) for item in facts["ahead"])
    passed = f" (passed over, for they hold entries that are gone: {ahead})" if ahead else ""
    return (
        f"the log has lost its end: the engine {chosen}{passed}. What is gone never was: its senders must send it "
        "again, steps that it asked for may run again, and what was told to others meanwhile (published events, "
        "traces) is not taken back"
    )


def _words_of(checkpoint: str) -> str:
    """Name a checkpoint by its number, a savepoint as such."""
    number = checkpoint.rpartition("/chk-")[2]
    return f"checkpoint {number}" if number.isdecimal() else "the savepoint"
