"""What a call says about the provider behind a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST_REASON = 200


@dataclass(frozen=True)
class Ok:
    """The provider answered; a refusal of this one call (a 400) is an answer too."""


@dataclass(frozen=True)
class Outage:
    """The provider is down or overloaded: refused or cut connection, time-out, 429, 5xx."""

    wait_seconds: float = 0.0
    """What it asked for by `Retry-After`; 0: it did not say."""
    reason: str = ""
    """A few words for an operator, shown by `longwatch status`; no keys and no text of a customer."""


OK: Final = Ok()
Outcome = Ok | Outage
