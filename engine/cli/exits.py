"""Exit codes: what a script can tell from a command's end.

The codes are a promise (`docs/commands.md` lists them, `longwatch --help` shows them). An error finds its code by its
class's name, so that this file needs to import nobody.
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
"""Done."""
DIFFERS: Final = 1
"""The command did its work and the answer is no: the definition has problems, the replay differs, nothing matched."""
USAGE: Final = 2
"""A flag, a setting or an argument is wrong."""
REFUSED: Final = 3
"""What was given is not accepted: an event that fails its schema, an order that the run cannot take."""
UNKNOWN: Final = 4
"""There is no such run, workflow, event type or dead letter."""
TIMEOUT: Final = 5
"""`--wait` or `--until-rest` ran out of time."""
BUSY: Final = 6
"""Another engine has the log."""
MISMATCH: Final = 7
"""Log, checkpoint or code do not belong together: an emptied log, other partitions, another lapse, changed code."""
UNAVAILABLE: Final = 8
"""Log or engine cannot be reached, or the engine ended by itself."""
INTERRUPTED: Final = 130
"""Ctrl-C before the command was done."""

MEANING: Final = {
    OK: "done",
    DIFFERS: "the answer is no: problems found, replay differs, nothing matched",
    USAGE: "a flag, setting or argument is wrong",
    REFUSED: "what was given is not accepted (an event against its schema, an order that does not fit)",
    UNKNOWN: "no such run, workflow, event or dead letter",
    TIMEOUT: "--wait or --until-rest ran out of time",
    BUSY: "another engine has the log",
    MISMATCH: "log, checkpoint or code do not belong together",
    UNAVAILABLE: "log or engine cannot be reached, or the engine ended by itself",
    INTERRUPTED: "Ctrl-C",
}

_BY_ERROR: Final = {
    "AppError": USAGE,
    "FileNotFoundError": USAGE,
    "IsADirectoryError": USAGE,
    "ProjectError": USAGE,
    "SettingsError": USAGE,
    "EventRefused": REFUSED,
    "OrderRefused": REFUSED,
    "UnknownEvent": UNKNOWN,
    "UnknownLetter": UNKNOWN,
    "UnknownRun": UNKNOWN,
    "UnknownWorkflow": UNKNOWN,
    "WaitTimeout": TIMEOUT,
    "Fenced": BUSY,
    "LogBusy": BUSY,
    "CodeChanged": MISMATCH,
    "LogLost": MISMATCH,
    "LogMismatch": MISMATCH,
    "EngineFailed": UNAVAILABLE,
    "LogError": UNAVAILABLE,
    "OSError": UNAVAILABLE,
}
"""Of the house's errors and of what the operating system says; the nearest base counts, others are `DIFFERS`."""


def code_of(error: BaseException) -> int:
    """Find the exit code of an error: its own `exit_code`, else by the name of its class or its nearest base."""
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_BY_ERROR[name] for name in names if name in _BY_ERROR), DIFFERS)


def epilog() -> str:
    """The codes as the foot of `longwatch --help`."""
    return "Exit codes:  " + "  ·  ".join(f"{code} {meaning}" for code, meaning in MEANING.items())
