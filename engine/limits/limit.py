"""How much of a thing may be used, and how the gates pace themselves."""

from __future__ import annotations

from dataclasses import dataclass, fields


class NeverFits(ValueError):
    """A call wants more than its limit allows in a whole minute: it would wait for ever."""


@dataclass(frozen=True)
class Limit:
    """What may pass a gate, over all workers together; None: as much as wants to."""

    calls: int | None = None
    """At once."""
    requests: int | None = None
    """In any minute."""
    tokens: int | None = None
    """In any minute, by the estimate at the start, corrected by what was used."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: a limit is not a whole number of at least 1, or there is none at all.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in given.items():
            if value is not None and (type(value) is not int or value < 1):
                msg = f"Limit({name}={value!r}): give a whole number of at least 1, or leave {name} out for no limit"
                raise ValueError(msg)
        if all(value is None for value in given.values()):
            raise ValueError("Limit(): it limits nothing; give calls (at once), requests or tokens (a minute)")

    def check(self, name: str, tokens: int) -> None:
        """Refuse a call that could never pass.

        Raises:
            NeverFits: it has more tokens than a minute.
        """
        if self.tokens is not None and tokens > self.tokens:
            raise NeverFits(
                f"{name}: a call of an estimated {tokens:,} tokens can never pass a limit of {self.tokens:,} a minute; "
                "raise the limit or make the call smaller"
            )


@dataclass(frozen=True)
class Pace:
    """The times by which gates work, all in wall seconds. The same for all workers of a log."""

    minute: float = 60.0
    """The length of the sliding window."""
    slack: float = 1.0
    """Added to it: of two requests the first may be so much longer on its way to the provider, who counts arrivals."""
    lease: float = 20.0
    """A worker that was silent for so long is dead, and its slots are free; it gives a sign of life every third."""
    poll: float = 1.0
    """Who waits asks again after so long at the latest, should the word that something is free be lost."""
    tell: float = 1.0
    """What waits is written down at most that often."""
    outages: int = 3
    """So many outages without a success between them shut a gate; one with a `Retry-After` does it at once."""
    forget: float = 60.0
    """An outage that is older than that no longer counts."""
    first_wait: float = 1.0
    """From the shutting of a gate to the first probe; doubled after every probe that fails."""
    longest_wait: float = 60.0
    ease: float = 0.25
    """After it opened, 4 may pass at first, and twice as many after each such time, until nothing is left to hold."""
    longest_retry_after: float = 3600.0
    """A provider's `Retry-After` is believed up to here: its clock may be wrong."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: a time is not above 0, or the first wait is longer than the longest.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name != "slack"):
                raise ValueError(f"Pace({field.name}={value!r}): it must be above 0")
        if self.first_wait > self.longest_wait:
            raise ValueError(
                f"Pace: first_wait {self.first_wait:g} s is above longest_wait {self.longest_wait:g} s: raise it"
            )
