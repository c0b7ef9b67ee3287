"""One run in memory: what an engine keeps of it, and what came of its entries."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from engine.core.definition import Workflow
from engine.core.entry import Entry, OrderEntry, read_entry, write_entry
from engine.core.errors import HandlerFailed, LongwatchError
from engine.core.ids import CallId
from engine.core.model import Event, State
from engine.core.record import DeadLetter, Record
from engine.core.snapshot import Snapshot, read_stored
from engine.core.transition import Held, Place, Reaction, Verdict, transition


class NotRepeatable(LongwatchError):
    """A handler answered differently when the same entry was folded again."""


class MemoryRun:
    """What is stored of a run, what its calls have kept, and what an observer saw of it."""

    def __init__(self, workflow: Workflow[Any], key: str) -> None:
        self.workflow, self.key = workflow, key
        self.records: list[Record] = []
        self.published: list[Event] = []
        self.dead: list[DeadLetter] = []
        self.kept: dict[CallId, dict[str, Raw]] = {}
        """What `once` has kept, by call and name."""
        self.inputs: dict[str, list[Any]] = {}
        """Of every attempt, by step."""
        self.state: State | None = None
        self.stored: bytes | None = None
        self.wakes = 0
        self._held: list[Held] = []

    @property
    def snapshot(self) -> Snapshot | None:
        known = read_stored(self.stored) if self.stored else None
        return known if isinstance(known, Snapshot) else None

    def fold(self, entry: Entry, place: Place) -> Reaction:
        """Fold an entry twice and take over what came of it.

        Raises:
            NotRepeatable: the two do not agree.
        """
        reaction = self._twice(read_entry(write_entry(entry)), place)
        self._held = self._held[reaction.release :]
        if reaction.hold:
            self._held.append(Held(place.position, place.at, entry))
        self.stored, self.wakes = reaction.stored, reaction.wakes
        self.records += reaction.records
        for record in reaction.records:
            if bytes(record.data):
                self.state = self.workflow.specs[record.to].read(bytes(record.data))
        return reaction

    def _twice(self, entry: Entry, place: Place) -> Reaction:
        verdict: Verdict | None = None
        held = self._held if isinstance(entry, OrderEntry) else ()
        try:
            first = transition(self.workflow, self.stored, entry, place, held=held)
        except HandlerFailed as failed:
            verdict = Verdict(failed.index, failed.error, failed.where, failed.cause)
            first = transition(self.workflow, self.stored, entry, place, held=held, verdict=verdict)
        second = transition(self.workflow, self.stored, entry, place, held=held, verdict=verdict)
        if first != second:
            message = (
                f"{type(entry).__name__} in {self.state!r} led to two different answers; a handler must be pure: "
                "take time, randomness and ids from its Context"
            )
            raise NotRepeatable(message)
        return first
