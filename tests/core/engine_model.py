"""An engine in memory: a log, its fold, checkpoints and crashes; calls outside that answer in any order, or twice.

What survives a crash: the log, the verdicts, the outputs and the checkpoint. What does not: the rest.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from engine.core.definition import Workflow
from engine.core.entry import (
    AnswerEntry,
    AskedEntry,
    Entry,
    EventEntry,
    FailureEntry,
    KeptEntry,
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
from engine.core.reaction import Forget, Keep
from engine.core.record import DeadLetter, write_record
from engine.core.snapshot import Pending, Snapshot, read_stored, write_stored
from engine.core.transition import (
    Held,
    Place,
    PublishEvent,
    Reaction,
    StartCall,
    Verdict,
    running_calls,
    transition,
)

Outputs = dict[tuple[str, int], bytes]


class Line(msgspec.Struct, frozen=True):
    """An entry on the log."""

    at: int
    raw: bytes


class Tape(msgspec.Struct):
    """What another interpreter needs to fold again."""

    lines: list[Line]
    verdicts: dict[str, Verdict]


@dataclass
class Kept:
    """Keyed state: what a checkpoint holds."""

    offset: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, tuple[Held, ...]] = field(default_factory=lambda: defaultdict(tuple))
    wakes: dict[str, int] = field(default_factory=dict)
    results: dict[tuple[str, CallId], tuple[str, ...]] = field(default_factory=dict)
    """What calls keep, by run and call."""

    def copy(self) -> Kept:
        held: dict[str, tuple[Held, ...]] = defaultdict(tuple)
        held.update(self.held)
        return Kept(self.offset, dict(self.stored), held, dict(self.wakes), dict(self.results))

    def take(self, reaction: Reaction) -> None:
        """Keep and forget what calls kept; every call has as much as its snapshot says, and no other has any."""
        for command in reaction.commands:
            if isinstance(command, Keep):
                place = command.run, command.call
                self.results[place] = (*self.results.get(place, ()), command.name)
            elif isinstance(command, Forget):
                del self.results[command.run, command.call]
        known = read_stored(reaction.stored) if reaction.stored else None
        if isinstance(known, Snapshot) and not known.broken:
            mine = {place[1]: len(names) for place, names in self.results.items() if place[0] == known.run}
            assert mine == {c.id: c.kept for c in known.calls if c.kept}


class Folder:
    """Folds a log from a place on; asks for a verdict where a handler fails."""

    def __init__(self, workflow: Workflow[Any], tape: Tape, lapse: float = 1.0) -> None:
        self.workflow, self.tape, self.lapse = workflow, tape, lapse
        self.kept = Kept()

    def step(self) -> tuple[Entry, Position, Reaction]:
        """Fold the next entry."""
        kept, line = self.kept, self.tape.lines[self.kept.offset]
        kept.offset += 1
        position = Position(f"{kept.offset}-0")
        entry = read_entry(line.raw)
        reaction = self._fold(entry, Place(0, position, line.at, self.lapse))
        held = kept.held[entry.key][reaction.release :]
        kept.held[entry.key] = (*held, Held(position, line.at, entry)) if reaction.hold else held
        kept.wakes[entry.key] = reaction.wakes
        kept.take(reaction)
        if reaction.stored is None:
            kept.stored.pop(entry.key, None)
        else:
            assert write_stored(read_stored(reaction.stored)) == reaction.stored
            kept.stored[entry.key] = reaction.stored
        return entry, position, reaction

    def _fold(self, entry: Entry, place: Place) -> Reaction:
        stored, held = self.kept.stored.get(entry.key), self.kept.held[entry.key]
        verdict = self.tape.verdicts.get(place.position)
        held = held if isinstance(entry, OrderEntry) else ()
        try:
            return transition(self.workflow, stored, entry, place, held=held, verdict=verdict)
        except HandlerFailed as failed:
            assert verdict is None
            verdict = Verdict(failed.index, failed.error, failed.where, failed.cause)
            self.tape.verdicts[place.position] = verdict
            return transition(self.workflow, stored, entry, place, held=held, verdict=verdict)


def outputs_of(position: Position, reaction: Reaction) -> Outputs:
    """By (position, index): records, then published events and dead letters in the order of the commands."""
    raws = [write_record(r) for r in reaction.records]
    for command in reaction.commands:
        if isinstance(command, PublishEvent):
            raws.append(write_record(command.envelope))
        elif isinstance(command, DeadLetter):
            raws.append(write_record(command))
    return {(position, index): raw for index, raw in enumerate(raws)}


def batch(workflow: Workflow[Any], tape: Tape, lapse: float = 1.0) -> tuple[Kept, Outputs]:
    """The whole log folded from its beginning."""
    folder, outputs = Folder(workflow, tape, lapse), Outputs()
    while folder.kept.offset < len(tape.lines):
        _, position, reaction = folder.step()
        outputs |= outputs_of(position, reaction)
    return folder.kept, outputs


def digest(kept: Kept, outputs: Outputs) -> str:
    """Of everything that a fold left and gave."""
    found = hashlib.blake2b(digest_size=16)
    for key, raw in sorted(kept.stored.items()):
        found.update(key.encode() + raw)
    for place, raw in sorted(outputs.items()):
        found.update(repr(place).encode() + raw)
    return found.hexdigest()


class Engine:
    """The live one."""

    def __init__(self, workflow: Workflow[Any], now: int, lapse: float = 1.0) -> None:
        self.workflow, self.now = workflow, now
        self.tape = Tape([], {})
        self.folder = Folder(workflow, self.tape, lapse)
        self.outputs = Outputs()
        self.checkpoint = Kept()
        self.flying: list[tuple[str, StartCall]] = []
        self.past: list[Entry] = []
        self.crashes = 0

    # -- what happens to it ----------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        self.tape.lines.append(Line(self.now, write_entry(entry)))

    def send(self, event: Event, key: str, id: str) -> None:
        data = Raw(event.model_dump_json().encode())
        self.append(EventEntry(self.workflow.name, key, id, "test", type(event).__name__, data))

    def order(self, order: Order, key: str) -> None:
        self.append(OrderEntry(self.workflow.name, key, order, "ann", "because"))

    def answer(self, choice: int, *, fails: bool, final: bool, twice: bool) -> None:
        """One of the calls in flight ends; `twice`: it goes on as if nobody knew."""
        if not self.flying:
            return
        index = choice % len(self.flying)
        key, call = self.flying[index] if twice else self.flying.pop(index)
        if fails:
            entry: Entry = FailureEntry(
                self.workflow.name, key, call.run, call.id, call.attempt, "Down", "no", final=final
            )
        else:
            output = ANSWERS.get(call.step, bytes(call.input))
            entry = ResultEntry(self.workflow.name, key, call.run, call.id, call.attempt, Raw(output))
        self.past.append(entry)
        self.append(entry)

    def keep(self, choice: int, *, late: bool) -> None:
        """A call in flight keeps a result, or an attempt that was given up does, late."""
        if self.flying:
            key, call = self.flying[choice % len(self.flying)]
            known = self._pending(key, call)
            index = known.kept if known is not None and not late else choice % 3
            place = self.workflow.name, key, call.run, call.id, call.attempt
            self.append(KeptEntry(*place, index, f"part {index}", Raw(b"1")))

    def ask(self, choice: int) -> None:
        """A call in flight waits for a person from now on."""
        if self.flying:
            key, call = self.flying.pop(choice % len(self.flying))
            place = self.workflow.name, key, call.run, call.id, call.attempt
            self.append(AskedEntry(*place, "ask", "people", "may I?"))

    def person(self, choice: int) -> None:
        """One of two people answers what was asked last, perhaps once more."""
        asked = [e for e in (read_entry(line.raw) for line in self.tape.lines) if isinstance(e, AskedEntry)]
        if asked:
            one = asked[-1 - choice % min(2, len(asked))]
            self.append(AnswerEntry(one.workflow, one.key, one.call, one.name, ("ann", "bob")[choice % 2], Raw(b"1")))

    def _pending(self, key: str, call: StartCall) -> Pending | None:
        stored = self.folder.kept.stored.get(key)
        known = read_stored(stored) if stored else None
        calls = known.calls if isinstance(known, Snapshot) else ()
        return next((c for c in calls if c.id == call.id), None)

    def repeat(self, choice: int) -> None:
        """An answer comes once more, late."""
        if self.past:
            self.append(self.past[choice % len(self.past)])

    def advance(self, ms: int, *, ticks: bool) -> None:
        """Time goes on; idle runs are woken, or later."""
        self.now += ms
        while ticks and (due := [(at, key) for key, at in self.folder.kept.wakes.items() if 0 < at <= self.now]):
            for at, key in sorted(due):
                self.append(TickEntry(self.workflow.name, key, at))
            self.fold()

    def crash(self) -> None:
        self.crashes += 1
        self.folder.kept = self.checkpoint.copy()
        self.flying = [(k, c) for k, raw in sorted(self.folder.kept.stored.items()) for c in running_calls(raw)]

    # -- what it does ----------------------------------------------------------------------------------------------

    def fold(self, stop: int | None = None) -> None:
        """What stands on the log, or only as far as `stop` entries."""
        while self.folder.kept.offset < len(self.tape.lines) and stop != 0:
            stop = None if stop is None else stop - 1
            entry, position, reaction = self.folder.step()
            self.flying += [(entry.key, c) for c in reaction.commands if isinstance(c, StartCall)]
            new = False
            for place, raw in outputs_of(position, reaction).items():
                new = new or place not in self.outputs
                assert self.outputs.setdefault(place, raw) == raw
            if new:
                self._route(reaction)

    def _route(self, reaction: Reaction) -> None:
        """Published events come back as entries: once, since the outbox drops what it has."""
        for command in reaction.commands:
            if isinstance(command, PublishEvent) and command.envelope.type in self.workflow.events:
                e = command.envelope
                place = self.workflow.name, e.subject, e.id, e.source, e.type, e.data
                self.append(EventEntry(*place, traceparent=e.traceparent, hops=e.longwatchhops))


ANSWERS = {"right": b'"R"', "aside": b"null"}
