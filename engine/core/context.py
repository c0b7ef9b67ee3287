"""What a handler may know beside its state and its event. The same in every fold of the same entry."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime

from engine.core.entry import Asker
from engine.core.ids import RunId


def moment(at: int) -> datetime:
    """Log ms as a datetime in UTC."""
    seconds, ms = divmod(at, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=ms * 1000)


def milliseconds(when: datetime) -> int:
    """A datetime with a time zone as log ms; a part of a millisecond counts as a whole one, so nothing fires early.

    Raises:
        ValueError: `when` has no time zone.
    """
    if when.tzinfo is None:
        message = f"{when.isoformat()} has no time zone; a timer needs one, as in datetime(..., tzinfo=UTC)"
        raise ValueError(message)
    span = when - datetime(1970, 1, 1, tzinfo=UTC)
    return -((span.days * 86_400_000_000 + span.seconds * 1_000_000 + span.microseconds) // -1000)


class Context:
    """An optional last parameter of every handler."""

    __slots__ = ("_at", "_entered", "_random", "_seed", "asker", "key", "run_id", "who")

    def __init__(
        self,
        key: str,
        run_id: RunId,
        at: int,
        entered: int,
        seq: int,
        part: int = 1,
        who: str = "",
        asker: Asker | None = None,
    ) -> None:
        """`part` counts the handlers of one application, so that each draws numbers of its own.

        `who` is the person whose answer is being handled, `asker` the run whose question is.
        """
        self.key, self.run_id, self.who, self.asker = key, run_id, who, asker
        self._at, self._entered, self._seed = at, entered, f"{run_id}/{seq}/{part}"
        self._random: random.Random | None = None

    @property
    def now(self) -> datetime:
        """Log time of what is being handled: the entry's append time, or the timer's due time."""
        return moment(self._at)

    @property
    def entered_at(self) -> datetime:
        """When the run entered its state, log time."""
        return moment(self._entered)

    @property
    def random(self) -> random.Random:
        """Seeded by run, sequence number and handler: every fold draws the same."""
        if self._random is None:
            self._random = random.Random(self._seed)  # noqa: S311 - repeatable is what it is for
        return self._random

    def uuid(self) -> uuid.UUID:
        """A version 4 UUID that every fold draws again."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)
