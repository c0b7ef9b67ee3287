"""The server's own account of what it was asked, and how much at once: what a limit or a bill is checked against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from engine.testing.providers.protocol import Asked, Json, Tokens


@dataclass(eq=False)
class Request:
    """One request, from its last byte in to the last byte out."""

    number: int
    """Counted from 1, in the order in which requests came."""
    at: float
    """Wall clock, seconds since the epoch."""
    began: float
    """The server's monotonic clock, seconds; `ended` likewise."""
    protocol: str
    """`openai-chat`, `openai-responses` or `anthropic`."""
    headers: dict[str, str]
    """All of them, names in small letters. Keys are in here: print none of it."""
    body: Json
    asked: Asked
    at_once: int
    """Requests in hand when this one came, itself among them."""
    behaviour: str = ""
    """The name of the class that answered."""
    ended: float | None = None
    outcome: Literal["pending", "answered", "cut", "gone"] = "pending"
    """`cut`: this server broke the connection off. `gone`: the client did."""
    status: int | None = None
    tokens: Tokens = field(default_factory=Tokens)
    """Charged: also for an answer that was cut, nothing for an error."""

    @property
    def model(self) -> str:
        return self.asked.model

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("idempotency-key")


@dataclass(frozen=True)
class Load:
    """How much was asked of the server, in all and at its worst."""

    requests: int
    tokens: int
    peak_at_once: int
    peak_requests: int
    """In any one window."""
    peak_tokens: int
    """Likewise."""

    @classmethod
    def of(cls, requests: Iterable[Request], window: float = 60) -> Load:
        """Read off a log: of any requests (one model's, say), with windows of so many seconds that slide."""
        asked = sorted(requests, key=lambda each: each.began)
        return cls(
            requests=len(asked),
            tokens=sum(each.tokens.total for each in asked),
            peak_at_once=_peak_at_once(asked),
            peak_requests=_peak([(each.began, 1) for each in asked], window),
            peak_tokens=_peak([(each.began, each.tokens.total) for each in asked], window),
        )


def _peak_at_once(asked: list[Request]) -> int:
    """One that ends when another begins is not at once with it: False sorts before True."""
    moments = [(each.began, True) for each in asked]
    moments += [(each.ended, False) for each in asked if each.ended is not None]
    return max(accumulate(1 if begins else -1 for _, begins in sorted(moments)), default=0)


def _peak(amounts: list[tuple[float, int]], window: float) -> int:
    first = most = held = 0
    for at, amount in amounts:
        held += amount
        while amounts[first][0] <= at - window:
            held -= amounts[first][1]
            first += 1
        most = max(most, held)
    return most
