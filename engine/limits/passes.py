"""The right to make one call."""

from __future__ import annotations

import time
from typing import Protocol

from engine.limits.outcome import Outcome


class Passed(Protocol):
    """What a pass tells its gate."""

    def ended(self, passed: Pass) -> None: ...

    def returned(self, passed: Pass) -> None: ...

    def serves(self, passed: Pass, tokens: int) -> bool: ...

    def corrected(self, passed: Pass, tokens: int) -> None: ...

    def reported(self, outcome: Outcome, passed: Pass | None) -> None: ...


class Pass:
    """One call may start; `end` it when it is over, however that came. A slot is held until then."""

    __slots__ = ("_ended", "_gate", "at", "entry", "name", "probe", "tokens")

    def __init__(self, gate: Passed, name: str, tokens: int, *, entry: int = 0, probe: bool = False) -> None:
        self._gate = gate
        self._ended = False
        self.at = time.monotonic()
        self.name = name
        self.tokens = tokens
        """What it counts for."""
        self.entry = entry
        """Its number in the window; 0: it is in none."""
        self.probe = probe
        """It is the one call by which a provider that is down is tried; its report opens the gate or keeps it shut."""

    def used(self, tokens: int) -> None:
        """Correct the estimate; also after `end`."""
        if tokens != self.tokens:
            self.tokens = tokens
            self._gate.corrected(self, tokens)

    def report(self, outcome: Outcome) -> None:
        """Say what became of the call. Without a word a probe says nothing, and the next call is one."""
        self._gate.reported(outcome, self)

    def serves(self, tokens: int) -> bool:
        """Whether a call of so many tokens may still begin by it. A minute is counted from when it was given."""
        return self._gate.serves(self, tokens)

    def give_back(self) -> None:
        """End it, and count nothing: no call was made by it."""
        if not self._ended:
            self._ended = True
            self._gate.returned(self)

    def end(self) -> None:
        """Let the next one pass; harmless twice."""
        if not self._ended:
            self._ended = True
            self._gate.ended(self)
