"""Everything that Longwatch raises on purpose, by whose fault it is.

LongwatchError
├── DefinitionError      a workflow's author: the definition does not hold together
├── EventRefused         a sender: the event cannot be taken as it is
├── HandlerFailed        a handler's author: the handler raised, or answered what it may not
└── UnreadableSnapshot   an upgrade: what is stored cannot be read by this code
"""

from __future__ import annotations

from collections.abc import Sequence


class LongwatchError(Exception):
    """Base of all."""


class DefinitionError(LongwatchError, TypeError):
    """A definition with every problem that was found in it; `problems` holds them one by one."""

    def __init__(self, what: str, problems: Sequence[str]) -> None:
        self.what, self.problems = what, tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__(f"{what} has {count}:\n{lines}")

    def __reduce__(self) -> tuple[type[DefinitionError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.what, self.problems)


class EventRefused(LongwatchError, ValueError):
    """An event that cannot be taken: `reason` says why, `field` names the place in it."""

    def __init__(self, reason: str, field: str = "") -> None:
        self.reason, self.field = reason, field
        super().__init__(f"{field}: {reason}" if field else reason)

    def __reduce__(self) -> tuple[type[EventRefused], tuple[str, str]]:
        return type(self), (self.reason, self.field)


class HandlerFailed(LongwatchError):
    """The user's code failed in the fold. The caller stores a verdict and folds the entry again with it.

    `index` counts the applications of this entry (timers first), so the verdict hits the same one every time.
    """

    def __init__(self, index: int, error: str, where: str, cause: str) -> None:
        self.index, self.error, self.where, self.cause = index, error, where, cause
        super().__init__(f"{cause}: {error}" + (f" ({where})" if where else ""))

    def __reduce__(self) -> tuple[type[HandlerFailed], tuple[int, str, str, str]]:
        return type(self), (self.index, self.error, self.where, self.cause)


class HandlerTimeout(BaseException):
    """Thrown into a handler that does not end within its bound (setting `handler_timeout`)."""


class UnreadableSnapshot(LongwatchError):
    """Stored bytes that this code cannot read."""
