"""A run folded entry by entry from its stored bytes, as an engine does it: verdicts, held entries and all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from engine.core.definition import Workflow
from engine.core.entry import (
    Entry,
    EventEntry,
    FailureEntry,
    Order,
    OrderEntry,
    ResultEntry,
    TickEntry,
    read_entry,
    write_entry,
)
from engine.core.errors import HandlerFailed
from engine.core.ids import CallId, Position
from engine.core.model import Event
from engine.core.record import DeadLetter, Record, write_record
from engine.core.snapshot import Early, Snapshot, Tombstone, read_stored
from engine.core.transition import (
    CancelCall,
    Command,
    Held,
    Place,
    PublishEvent,
    Reaction,
    Rules,
    StartCall,
    Verdict,
    transition,
)

C = TypeVar("C", bound=Command)
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def event_entry(workflow: Workflow[Any], event: Event, *, id: str, key: str = "k", hops: int = 0) -> EventEntry:
    data = Raw(event.model_dump_json().encode())
    return EventEntry(workflow.name, key, id, "test", type(event).__name__, data, hops=hops)


class Run:
    """Time is log ms from `now`; each entry gets the next position."""

    def __init__(
        self,
        workflow: Workflow[Any],
        *,
        now: int = 10 * DAY,
        lapse: float = 1.0,
        rules: Rules | None = None,
        key: str = "k",
        partition: int = 3,
    ) -> None:
        self.key, self.partition = key, partition
        self.workflow, self.now, self.lapse, self.rules = workflow, now, lapse, rules or Rules()
        self.stored: bytes | None = None
        self.held: list[Held] = []
        self.records: list[Record] = []
        self.commands: list[Command] = []
        self.verdicts: dict[Position, Verdict] = {}
        self.last = Reaction(None)
        self.count = 0

    def fold(self, entry: Entry) -> Reaction:
        self.count += 1
        position = Position(f"{self.count}-0")
        place = Place(self.partition, position, self.now, self.lapse)
        entry = read_entry(write_entry(entry))
        held = self.held if isinstance(entry, OrderEntry) else ()
        verdict: Verdict | None = None
        try:
            reaction = transition(self.workflow, self.stored, entry, place, held=held, rules=self.rules)
        except HandlerFailed as failed:
            verdict = Verdict(failed.index, failed.error, failed.where, failed.cause)
            self.verdicts[position] = verdict
            reaction = transition(
                self.workflow, self.stored, entry, place, held=held, rules=self.rules, verdict=verdict
            )
        self._check_repeat(reaction, entry, place, verdict)
        del self.held[: reaction.release]
        if reaction.hold:
            self.held.append(Held(position, self.now, entry))
        self.stored, self.last = reaction.stored, reaction
        self.records += reaction.records
        self.commands += reaction.commands
        return reaction

    def _check_repeat(self, first: Reaction, entry: Entry, place: Place, verdict: Verdict | None) -> None:
        held = self.held if isinstance(entry, OrderEntry) else ()
        again = transition(self.workflow, self.stored, entry, place, held=held, rules=self.rules, verdict=verdict)
        assert again == first
        for index, record in enumerate(first.records):
            assert record.index == index
            assert msgspec.json.decode(write_record(record), type=Record) == record

    # -- entries ---------------------------------------------------------------------------------------------------

    def send(self, event: Event, *, id: str | None = None, hops: int = 0) -> Reaction:
        return self.fold(event_entry(self.workflow, event, id=id or f"e{self.count + 1}", key=self.key, hops=hops))

    def raw(self, type: str, data: bytes, *, id: str | None = None) -> Reaction:
        return self.fold(EventEntry(self.workflow.name, self.key, id or f"e{self.count + 1}", "test", type, Raw(data)))

    def tick(self, at: int | None = None) -> Reaction:
        """Let the time come at which the run wakes, or `at`."""
        due = self.last.wakes if at is None else at
        assert due
        self.now = max(self.now, due)
        return self.fold(TickEntry(self.workflow.name, self.key, due))

    def result(self, call: StartCall, value: object) -> Reaction:
        output = Raw(msgspec.json.encode(value))
        return self.fold(ResultEntry(self.workflow.name, self.key, call.run, call.id, call.attempt, output))

    def fail(
        self, call: StartCall, error: str = "Down", message: str = "no", *, final: bool = False, wait: int = 0
    ) -> Reaction:
        return self.fold(
            FailureEntry(
                self.workflow.name, self.key, call.run, call.id, call.attempt, error, message, final=final, wait=wait
            )
        )

    def order(self, order: Order, why: str = "because") -> Reaction:
        return self.fold(OrderEntry(self.workflow.name, self.key, order, "ann", why))

    # -- what came of it -------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        assert self.stored is not None
        known = read_stored(self.stored)
        assert isinstance(known, Snapshot)
        return known

    @property
    def grave(self) -> Tombstone:
        assert self.stored is not None
        known = read_stored(self.stored)
        assert isinstance(known, Tombstone)
        return known

    @property
    def early(self) -> Early:
        assert self.stored is not None
        known = read_stored(self.stored)
        assert isinstance(known, Early)
        return known

    @property
    def data(self) -> Mapping[str, Any]:
        """The state's stored fields."""
        found: Mapping[str, Any] = msgspec.json.decode(self.snapshot.data)
        return found

    @property
    def record(self) -> Record:
        return self.records[-1]

    def made(self, kind: type[C]) -> list[C]:
        """The commands of the last fold, of one kind."""
        return [c for c in self.last.commands if isinstance(c, kind)]

    def call(self, step: str = "") -> StartCall:
        """The last call that was started."""
        return next(c for c in reversed(self.commands) if isinstance(c, StartCall) and step in ("", c.step))

    @property
    def published(self) -> list[PublishEvent]:
        return [c for c in self.commands if isinstance(c, PublishEvent)]

    @property
    def dead(self) -> list[DeadLetter]:
        return [c for c in self.commands if isinstance(c, DeadLetter)]

    @property
    def cancelled(self) -> list[CallId]:
        return [c.id for c in self.commands if isinstance(c, CancelCall)]
