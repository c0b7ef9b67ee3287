"""One fold at work: timers, the entry, and what follows at once; each an application, each with its record.

`engine.core.transition` is the way in and says how an entry is applied.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw
from pydantic import ValidationError

from engine.core import asking, episode, halts, moving, spending, working
from engine.core.context import Context, moment
from engine.core.definition import Handler, StateSpec, Workflow, flat
from engine.core.entry import (
    AnswerEntry,
    AskedEntry,
    Entry,
    EventEntry,
    FailureEntry,
    KeptEntry,
    OrderEntry,
    QuestionEntry,
    ResultEntry,
    TickEntry,
    write_entry,
)
from engine.core.errors import HandlerFailed, UnreadableSnapshot
from engine.core.ids import CallId, Position, RunId
from engine.core.model import Answer, Event, Publish, State, StepFailed, key_of
from engine.core.reaction import (
    MAX_SNAPSHOT,
    Command,
    Held,
    Place,
    PublishEvent,
    Reaction,
    Rules,
    StartCall,
    Verdict,
    digest_of,
    event_hash,
    run_id,
)
from engine.core.record import (
    NOTHING,
    Cause,
    CloudEvent,
    DeadLetter,
    Dropped,
    Episode,
    Halted,
    PendingCall,
    PendingTimer,
    Published,
    Record,
    Status,
)
from engine.core.snapshot import (
    Early,
    Pending,
    Progress,
    Snapshot,
    Timer,
    Tombstone,
    grave_of,
    write_stored,
)
from engine.core.steps import Call
from engine.core.telling import HELD, naming, told_by
from engine.core.trace import episode_trace, span_id, traceparent

MAX_SEEN = 1_000
MAX_HOPS = 100
MAX_AT_ONCE = 1_000
MAX_EARLY = 1_000
MAX_ERROR = 2_000
SHOWN_CALLS = 20


class BadEvent(Exception):
    """An event that the workflow cannot take: a dead letter, no error."""


class Fold:
    """One fold at work; thrown away after it."""

    __slots__ = (
        "_drawn",
        "_trace",
        "asking",
        "at",
        "before",
        "behind",
        "came",
        "changed",
        "commands",
        "current",
        "dropped",
        "early",
        "entry",
        "episode",
        "hold",
        "known_state",
        "made",
        "place",
        "published",
        "reached",
        "records",
        "release",
        "resumed",
        "rules",
        "running",
        "snap",
        "told",
        "verdict",
        "wakes",
        "workflow",
    )

    def __init__(
        self, workflow: Workflow[Any], entry: Entry, place: Place, verdict: Verdict | None, rules: Rules
    ) -> None:
        self.workflow, self.entry, self.place, self.verdict, self.rules = workflow, entry, place, verdict, rules
        self.at = place.at
        self.records: list[Record] = []
        self.commands: list[Command] = []
        self.hold, self.release = False, 0
        self.snap: Snapshot
        self.early: Early | None = None
        self.behind = 0
        """How many entries are held if the next application halts the run."""
        self.came: bytes | None = None
        self.before: bytes | None = None
        self.known_state: State | None = None
        self.made = 0
        self._drawn = 0
        self.changed = False
        self.published: list[Published] = []
        self.wakes, self.running = 0, False
        self.reached = False
        self.current: Entry | None = None
        """The entry that is being applied."""
        self.resumed = ""
        """The order that a halted run goes on by: `resume` or `skip`."""
        self.episode: Episode | None = None
        """What the application is part of."""
        self._trace = ""
        self.dropped: list[Dropped] = []
        self.asking: list[PendingCall] = []
        self.told: dict[str, Any] = {}
        """What the record tells beside what it takes over from the entry."""

    # -- what is stored is no run at rest ------------------------------------------------------------------------

    def over(self, grave: Tombstone, stored: bytes | None) -> Reaction:
        entry = self.entry
        if isinstance(entry, TickEntry):
            return Reaction(stored, wakes=grave.expires)
        record = self._too_late(grave)
        if isinstance(entry, QuestionEntry):
            asking.refuse(self, entry, "RunFinished", f"the run is finished ({grave.state})")
        if isinstance(entry, KeptEntry):
            spending.took(self, entry.run, entry.used)
        again = write_stored(msgspec.structs.replace(grave, seq=grave.seq + 1, prev=f"{self.place.position}/0"))
        return Reaction(again, self.commands, records=[record], wakes=grave.expires)

    def _too_late(self, grave: Tombstone) -> Record:
        """An episode of its own, which ends at once."""
        cause, name, id_, source = told = naming(self.entry)
        known = Snapshot(run=grave.run, version=0, state=grave.state, data=NOTHING, seq=grave.seq)
        self.snap = known
        self._go_on(known, episode.begin(known, self.at, *told, self.entry))
        return Record(
            workflow=self.workflow.name,
            key=self.entry.key,
            run=grave.run,
            version=self.workflow.version,
            seq=grave.seq + 1,
            at=self.at,
            entry=self.place.position,
            prev=grave.prev,
            cause=cause,
            name=name,
            id=id_,
            source=source,
            from_=grave.state,
            to=grave.state,
            status="finished",
            ignored=f"the run is finished ({grave.state})",
            code=self.workflow.code,
            episode=self.episode,
            ends=True,
            **told_by(self.entry),
        )

    def expire(self, early: Early) -> Early | None:
        if self.at < early.expires:
            return early
        oldest = self.at - self.rules.early_hold
        for at, position, event in early.events:
            if at <= oldest:
                reason = f"no run of {self.workflow.name!r} with this key began in time"
                self.dead(event, reason, at, Position(position))
        rest = tuple(e for e in early.events if e[0] > oldest)
        return Early(rest[0][0] + self.rules.early_hold, rest) if rest else None

    def begin(self, early: Early | None) -> Reaction:
        """No run stands under this key."""
        entry = self.entry
        if isinstance(entry, EventEntry | QuestionEntry) and entry.type in self.workflow.starts_on:
            run = run_id(self.workflow.name, entry.key, self.place.partition, self.place.position)
            self.snap = Snapshot(
                run=run, version=self.workflow.version, state="", data=Raw(b"null"), began=self.place.at
            )
            if early is not None:
                self.early = early
                self.snap.kept = tuple(event for _, _, event in early.events)
                self.snap.seen = tuple((at, event_hash(e.source, e.id)) for at, _, e in early.events)
            return self.run(())
        if isinstance(entry, EventEntry):
            early = self._wait_for_start(entry, early)
        elif isinstance(entry, OrderEntry):
            self.dead(entry, f"there is no run {self.workflow.name}/{entry.key} to {entry.order}")
        elif isinstance(entry, AnswerEntry):
            self.dead(entry, f"there is no run {self.workflow.name}/{entry.key} to answer")
        elif isinstance(entry, QuestionEntry):
            asking.refuse(self, entry, "NoRun", f"there is no run {self.workflow.name}/{entry.key}")
        return self._waiting(early)

    def _waiting(self, early: Early | None) -> Reaction:
        if early is None:
            return Reaction(None, self.commands)
        return Reaction(write_stored(early), self.commands, wakes=early.expires)

    def _wait_for_start(self, entry: EventEntry, early: Early | None) -> Early | None:
        if entry.type not in self.workflow.events:
            self.dead(entry, f"workflow {self.workflow.name!r} knows no event {entry.type!r}")
            return early
        events = early.events if early else ()
        if any(e.id == entry.id and e.source == entry.source for _, _, e in events):
            return early
        if len(events) >= MAX_EARLY:
            self.dead(entry, f"{MAX_EARLY} events already wait for this run to begin")
            return early
        expires = early.expires if early else self.at + self.rules.early_hold
        return Early(expires, (*events, (self.at, self.place.position, entry)))

    def dead(self, entry: Entry, reason: str, at: int | None = None, position: Position | None = None) -> None:
        event = entry if isinstance(entry, EventEntry) else None
        self.commands.append(
            DeadLetter(
                reason=reason,
                at=self.at if at is None else at,
                entry=position or self.place.position,
                body=write_entry(entry),
                workflow=entry.workflow,
                key=entry.key,
                type=event.type if event else entry.cause,
                id=event.id if event else "",
            )
        )
        if isinstance(entry, QuestionEntry):
            asking.refuse(self, entry, "NotAnswered", reason)

    def broken(self, stored: bytes, error: str, known: Snapshot | None = None) -> Reaction:
        """What is stored cannot be read: the run halts with its bytes kept, the others go on."""
        if self.verdict is None:
            raise HandlerFailed(0, f"the stored snapshot cannot be read ({error})", "", "snapshot")
        halted = Halted(self.verdict.error, self.verdict.where, self.verdict.cause, self.at)
        if known is None:
            known = Snapshot(run=_run_in(stored), version=0, state="", data=Raw(b"null"))
        self.snap = Snapshot(
            run=known.run,
            version=known.version,
            state=known.state,
            data=Raw(b"null"),
            seq=known.seq + 1,
            prev=known.prev,
            broken=stored,
            halted=halted,
            began=known.began,
        )
        self.hold = not isinstance(self.entry, TickEntry)
        self.snap.held = int(self.hold)
        told = naming(self.entry)
        self._go_on(self.snap, episode.begin(known, self.at, *told, self.entry))
        self._record(*told, self.snap, len(self.commands), known.state)
        return self.done()

    # -- a run ---------------------------------------------------------------------------------------------------

    def run(self, held: Sequence[Held]) -> Reaction:
        if self.snap.halted is not None:
            return halts.while_halted(self, held)
        self.behind = 0 if isinstance(self.entry, TickEntry) else 1
        done = self.go(self.entry, self.place.position, self.place.at)
        self.hold = not done and self.behind == 1
        if self.hold and not self.reached:  # a timer halted the run: the entry behind it is told of too
            self.at = self.place.at
            self.apply(self.place.position, *naming(self.entry, self.snap), lambda: HELD, self.entry)
        return self.done()

    def go(self, entry: Entry, position: Position, at: int) -> bool:
        """Timers, the entry, and what follows at once. False: the run halted before the entry was done with."""
        if self.snap.state and not self.fire_due(at, position):
            return False
        self.at = at
        if isinstance(entry, TickEntry):
            return True
        self.reached = True
        try:
            if not self.apply(position, *naming(entry, self.snap), partial(self._entry, entry), entry):
                return False
        except BadEvent as error:
            self.dead(entry, str(error), at, position)
            return True
        self.behind -= 1
        self.settle(position)
        return True

    def done(self) -> Reaction:
        snap = self.snap
        if not snap.run and snap.halted is None and not snap.ended:  # the start event was no good: there is no run
            return self._waiting(self.early)
        if snap.ended and not snap.state and not snap.broken:  # ended before it began: nothing to remember
            return Reaction(None, self.commands, self.records, release=self.release)
        if snap.ended and not snap.calls and snap.halted is None:
            grave = grave_of(snap, self.rules.retention)
            return Reaction(write_stored(grave), self.commands, self.records, self.hold, self.release, grave.expires)
        if self.before is None:  # nothing was applied
            self.wakes, self.running = next_wake(snap), _runs(snap)
            self.before = self.came or write_stored(snap)
        return Reaction(self.before, self.commands, self.records, self.hold, self.release, self.wakes, self.running)

    # -- applications --------------------------------------------------------------------------------------------

    def apply(
        self,
        position: Position,
        cause: Cause,
        name: str,
        id_: str,
        source: str,
        action: Callable[[], str],
        entry: Entry | None = None,
        timer: Timer | None = None,
    ) -> bool:
        """Run one application and record it; `action` says why it was ignored, if it was. False: it halted the run."""
        before, old = _copy(self.snap), self.before
        state, commands, published = self.known_state, len(self.commands), self.published
        from_, index = before.state, len(self.records)
        self.made, self._drawn, self.changed, self.published = 0, 0, False, []
        self.dropped, self.asking, self.told = [], [], {}
        self._go_on(self.snap, before.episode or episode.begin(before, self.at, cause, name, id_, source, entry))
        self.snap.seq += 1
        self.current = entry
        failure: HandlerFailed | None = None
        ignored = ""
        if self.verdict is not None and self.verdict.index == index:
            failure = HandlerFailed(index, self.verdict.error, self.verdict.where, self.verdict.cause)
        else:
            try:
                ignored = action()
                self._record(cause, name, id_, source, before, commands, from_, ignored, position, entry, old)
            except BadEvent:
                self.snap, self.known_state, self.published = before, state, published
                del self.commands[commands:]
                if not before.state:
                    before.run = RunId("")
                raise
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                failure = failed_by(index, error, _words(before.state, cause, name, timer))
                if self.verdict is None:
                    raise failure from error
        if failure is None:
            return True
        self.snap, self.known_state, self.changed, self.published = _copy(before), state, False, []
        self.dropped, self.asking, self.told = [], [], {}
        del self.commands[commands:]
        self.snap.seq += 1
        if before.halted is None:
            self.snap.halted_timer, self.snap.held = timer, self.behind
        self.snap.halted = Halted(failure.error, failure.where, failure.cause, self.at)
        self._record(cause, name, id_, source, before, commands, from_, "", position, entry, old)
        return False

    def _go_on(self, snap: Snapshot, with_: Episode) -> None:
        """What is done from here on is part of this episode."""
        if self.episode is not with_:
            self.episode, self._trace = with_, ""
        snap.episode = with_

    @property
    def trace(self) -> str:
        """Of the episode that goes on."""
        if not self._trace and self.episode is not None:
            self._trace = episode_trace(self.snap.run, self.episode)
        return self._trace

    def place_of(self, call: Pending) -> str:
        """Where the attempt of a call stands in the trace."""
        return episode.attempt(self.trace, self.snap.run, call.id, call.attempt)

    def carried(self) -> tuple[str, str]:
        """What the episode hands on with its trace: tracestate and baggage."""
        return (self.episode.tracestate, self.episode.baggage) if self.episode is not None else ("", "")

    def _record(
        self,
        cause: Cause,
        name: str,
        id_: str,
        source: str,
        before: Snapshot,
        commands: int,
        from_: str = "",
        ignored: str = "",
        position: Position | None = None,
        entry: Entry | None = None,
        old: bytes | None = None,
    ) -> None:
        """Record what an application made of the run `before` it, with the commands from there on."""
        snap, workflow = self.snap, self.workflow
        prev, index = snap.prev, len(self.records)
        snap.prev = f"{self.place.position}/{index}"
        base = NOTHING
        if snap.code != workflow.code:
            if snap.code:
                base = Raw(old or self.came or b"null")
            snap.code = workflow.code
        ends = not episode.is_going_on(snap, self.at) and (snap.halted is not None or self.at_once() is None)
        snap.episode = None if ends else self.episode
        raw = write_stored(snap)
        if len(raw) > MAX_SNAPSHOT and snap.halted is None:
            message = f"the snapshot would have {len(raw)} bytes, the limit is {MAX_SNAPSHOT}; keep large data outside"
            raise ValueError(message)
        self.before = raw
        calls = tuple(
            [
                PendingCall(c.id, c.step, c.attempt, c.due, c.status, c.error, c.kept, c.note)
                for c in snap.calls[:SHOWN_CALLS]
            ]
        )
        self.wakes, self.running = next_wake(snap), _runs(snap)
        data, fields = NOTHING, {}
        if self.changed and self.known_state is not None:
            data, fields = snap.data, workflow.specs[snap.state].fields(self.known_state)
        self.records.append(
            Record(
                workflow=workflow.name,
                key=self.entry.key,
                run=snap.run,
                version=snap.version,
                seq=snap.seq,
                at=self.at,
                entry=position or self.place.position,
                index=index,
                prev=prev,
                cause=cause,
                name=name,
                id=id_,
                source=source,
                from_=from_,
                to=snap.state,
                visit=snap.visit,
                since=snap.entered,
                status=_status(snap, running=self.running),
                wakes=0 if snap.ended else self.wakes,
                ignored=ignored,
                halted=snap.halted,
                calls=calls,
                more_calls=max(0, len(snap.calls) - SHOWN_CALLS),
                timers=tuple([PendingTimer(f"{t.owner or snap.state}.{t.handler}", t.due) for t in snap.timers]),
                published=tuple(self.published),
                asks=asking.waiting_for_people(snap, workflow.specs.get(snap.state)),
                taken=snap.taken,
                spent=snap.spent,
                data=data,
                fields=fields,
                snapshot=digest_of(raw),
                code=workflow.code,
                base=base,
                episode=self.episode,
                ends=ends,
                began=(snap.began or before.entered) if snap.ended and not before.ended else 0,
                left=(left := episode.left(before, snap)),
                within=episode.within(before, left),
                late=self.place.at - self.at if cause == "timer" else 0,
                starts=len([c for c in self.commands[commands:] if type(c) is StartCall]),
                dropped=tuple(self.dropped),
                asking=tuple(self.asking),
                content=workflow.contents.of(entry, before) if workflow.content and not ignored else NOTHING,
                **{**told_by(entry), **self._of_attempt(name, entry, before), **self.told},
            )
        )

    def _of_attempt(self, name: str, entry: Entry | None, before: Snapshot) -> dict[str, str]:
        """That it is one of a step that thinks, and how it failed."""
        told: dict[str, str] = {}
        if isinstance(entry, ResultEntry | FailureEntry | AskedEntry):
            step = self.workflow.steps.get(name)
            if step is not None and step.model:
                told["kind"] = "agent"
            if isinstance(entry, FailureEntry):
                told["error"] = self.workflow.contents.error(entry, before)
        return told

    def fire_due(self, until: int, position: Position) -> bool:
        """Every timer due at or before `until`, in order of due time. False: one of them halted the run."""
        last, fired = -1, 0
        while (due := _next_due(self.snap)) is not None and due[0] <= until:
            self.at = due[0]
            if isinstance(due[1], Pending):
                call = due[1]
                went = self.apply(
                    position, "timer", f"retry {call.step}", call.id, "", partial(working.again, self, call)
                )
            else:
                timer = due[1]
                last, fired = due[0], fired + 1 if due[0] == last else 1
                if fired > MAX_AT_ONCE:
                    return self._endless(position)
                name = f"{timer.owner or self.snap.state}.{timer.handler}"
                went = self.apply(position, "timer", name, "", "", partial(moving.fire, self, timer), timer=timer)
            if not (went and self.settle(position)):
                return False
        return True

    def settle(self, position: Position) -> bool:
        """What a state takes up at once: work over nothing, events kept for it. False: it halted the run."""
        for _ in range(MAX_AT_ONCE + len(self.snap.kept)):
            if not (self.snap.works or self.snap.kept) or (move := self.at_once()) is None:
                return True
            if not self.take_up(move, position):
                return False
        return self._endless(position)

    def _endless(self, position: Position) -> bool:
        reason = f"more than {MAX_AT_ONCE} moves at once without a wait; add a state that waits"
        if self.verdict is None:
            raise HandlerFailed(len(self.records), reason, "", self.snap.state)
        return self.apply(position, "event", "", "", "", lambda: "")

    def at_once(self) -> Progress | EventEntry | None:
        """The next thing that needs no entry. At rest there is none: one that stands in a halted run halted it."""
        snap = self.snap
        if (idle := next((w for w in snap.works if w.size == 0), None)) is not None:
            return idle
        if snap.ended:
            return snap.kept[0] if snap.kept else None
        spec = self.workflow.specs.get(snap.state)
        if spec is None or snap.version != self.workflow.version:
            return None
        return next((e for e in snap.kept if e.type in spec.events), None)

    def take_up(self, move: Progress | EventEntry, position: Position, why: str = "") -> bool:
        """With `why`, leave it out instead."""
        if isinstance(move, EventEntry):
            return self.apply(position, *naming(move), partial(self._take, move, why), move)
        spec = self.workflow.specs.get(self.snap.state)
        name = spec.works_by_name[move.work].words if spec and move.work in spec.works_by_name else move.work
        return self.apply(position, "result", name, "", "", partial(self._over_nothing, move, why))

    def _take(self, entry: EventEntry, why: str) -> str:
        self.snap.kept = tuple(e for e in self.snap.kept if e is not entry)
        if why or self.snap.ended:
            return why or "no state took this event, which had been kept"
        try:
            return self._handle(entry)
        except BadEvent as error:
            self.dead(entry, str(error))
            return f"{error}: it is a dead letter"

    def _over_nothing(self, work: Progress, why: str) -> str:
        if not why:
            moving.bring_up_to_date(self)
            return working.work_done(self, work, ())
        self.snap.works = tuple(w for w in self.snap.works if w is not work)
        return why

    # -- entries -------------------------------------------------------------------------------------------------

    def _entry(self, entry: Entry) -> str:
        if not isinstance(entry, OrderEntry):
            moving.bring_up_to_date(self)
        if isinstance(entry, ResultEntry):
            return working.result(self, entry)
        if isinstance(entry, EventEntry):
            return self._event(entry)
        if isinstance(entry, FailureEntry):
            return working.fail(self, entry)
        if isinstance(entry, KeptEntry):
            return asking.kept(self, entry)
        if isinstance(entry, QuestionEntry):
            return asking.question(self, entry) if self.snap.state else self._begin_by(entry)
        if isinstance(entry, AskedEntry):
            return asking.asked(self, entry)
        if isinstance(entry, AnswerEntry):
            return asking.answered(self, entry)
        if isinstance(entry, OrderEntry):
            return halts.obey(self, entry)
        return ""

    def _event(self, entry: EventEntry) -> str:
        if (seen := self.hear(entry.source, entry.id)) is None:
            return f"a repeat: event {entry.id!r} of {entry.source!r} was taken before"
        ignored = self._handle(entry) if self.snap.state else self._start(entry)
        self.snap.seen = seen
        return ignored

    def hear(self, source: str, id_: str) -> tuple[tuple[int, str], ...] | None:
        """What the run remembers once this is taken; None: it was taken before."""
        mark = event_hash(source, id_)
        oldest = self.at - self.rules.retention
        seen = self.snap.seen
        if seen and seen[0][0] < oldest:
            seen = tuple(s for s in seen if s[0] >= oldest)
        if any(s[1] == mark for s in seen):
            return None
        return (*seen[-(MAX_SEEN - 1) :], (self.at, mark))

    def _begin_by(self, entry: QuestionEntry) -> str:
        seen = self.hear(entry.asker.workflow, entry.id) if entry.id else None
        ignored = self._start(entry)
        self.snap.seen = seen or self.snap.seen
        return ignored

    def _handle(self, entry: EventEntry) -> str:
        if self.snap.ended:
            return f"the run is finished ({self.snap.state})"
        spec = self.spec()
        if entry.visit and entry.visit != self.snap.visit:
            return f"answered already: the run has moved on to {spec.name}"
        if why := asking.taken_by_other(self.snap, entry.who):
            return why
        handler = spec.events.get(entry.type)
        if handler is None:
            if entry.type in spec.later:
                self.snap.kept = (*self.snap.kept, entry)
                return f"kept for a later state: {spec.name} names {entry.type} in later="
            if entry.type in spec.ignores:
                return f"{spec.name} ignores {entry.type} on purpose"
            if entry.type in self.workflow.starts_on:
                return f"the run has begun: {spec.name} does not handle {entry.type}"
            if entry.type not in self.workflow.events:
                message = f"workflow {self.workflow.name!r} knows no event {entry.type!r}"
                raise BadEvent(message)
            return f"{spec.name} does not know {entry.type}"
        event = self._read_event(entry, handler.event or Event)
        self.snap.hops, self.snap.hopped = entry.hops, self.at if entry.hops else 0
        if entry.who:
            self.snap.taken = ""
        self.answer(handler, self.call_handler(handler, self.state(), event))
        return ""

    def _read_event(self, entry: EventEntry | QuestionEntry, kind: type[Event]) -> Event:
        try:
            return kind.model_validate_json(bytes(entry.data))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"{entry.type} does not fit its schema: {where}: {first['msg']}"
            raise BadEvent(message) from None

    def _start(self, entry: EventEntry | QuestionEntry) -> str:
        snap = self.snap
        try:
            event = self._read_event(entry, self.workflow.starts_on[entry.type])
        except BadEvent as error:
            if not self.records:
                raise
            raise ValueError(str(error)) from None  # it halted here before: that run is there, and stays
        snap.entered = self.at
        if isinstance(entry, EventEntry):
            snap.hops, snap.hopped = entry.hops, self.at if entry.hops else 0
        starting = self.workflow.starting
        answer = starting.function(event, self.context()) if starting.takes_context else starting.function(event)
        self.answer(starting, answer)
        if not snap.state:
            message = "start answered with no state; a run must begin in one"
            raise TypeError(message)
        return ""

    def pending(self, run: RunId, call_id: CallId) -> Pending | None:
        """The call of this run that waits under this id."""
        if run != self.snap.run:
            return None
        for call in self.snap.calls:
            if call.id == call_id:
                return call
        return None

    def put(self, call: Pending) -> None:
        """Put `call` in the place of the pending call of its id."""
        self.snap.calls = tuple([call if c.id == call.id else c for c in self.snap.calls])

    def pay(self, call: Pending) -> None:
        """Have it run, if it can be paid for."""
        step = self.workflow.steps.get(call.step)
        paid = msgspec.structs.replace(call, status="running") if step is None else spending.pay(self, call, step)
        if paid.status == "running":
            self.launch(paid)
        else:
            self.put(paid)

    def launch(self, call: Pending) -> None:
        """Put `call` in the place of the pending call of its id and have it run."""
        self.put(call)
        self.commands.append(working.start_of(self.snap, call, self.trace))

    def lost(self, call: Pending, error: str, message: str) -> None:
        """A call has failed for good."""
        if not call.work:
            working.give_up(
                self, msgspec.structs.replace(call, status="failed", error=f"{error}: {message}", asks=None)
            )
            return
        working.drop(self, call)
        working.drop_work(self, call.work)
        work = self.spec().works_by_name[call.work]
        failure = StepFailed(step=call.step, error=message or error, type=error, attempts=call.attempt)
        handler = working.must(work.failed)
        self.answer(handler, self.call_handler(handler, self.state(), failure))

    # -- states --------------------------------------------------------------------------------------------------

    def spec(self) -> StateSpec:
        try:
            return self.workflow.specs[self.snap.state]
        except KeyError:
            message = (
                f"workflow {self.workflow.name!r} version {self.workflow.version} has no state {self.snap.state}; "
                f"bring it back, or raise version= and say in migrate={{{self.snap.state!r}: ...}} what becomes of it"
            )
            raise UnreadableSnapshot(message) from None

    def state(self) -> State:
        """The state as its class reads it; migrated when an older version wrote it."""
        if self.known_state is None:
            moving.bring_up_to_date(self)
        if self.known_state is None:
            self.known_state = moving.read_state(self)
        return self.known_state

    def context(self) -> Context:
        snap = self.snap
        self._drawn += 1
        current = self.current
        who = current.who if isinstance(current, EventEntry) else ""
        asker = current.asker if isinstance(current, QuestionEntry) else None
        return Context(self.entry.key, snap.run, self.at, snap.entered, snap.seq, self._drawn, who, asker)

    def call_handler(self, handler: Handler, *arguments: Any) -> Any:
        """What a handler answers."""
        if handler.takes_context:
            return handler.function(*arguments, self.context())
        return handler.function(*arguments)

    def answer(self, handler: Handler, answer: Any) -> None:
        """Check an answer against its annotation and carry it out."""
        if isinstance(answer, State):
            moving.check_target(handler, answer)
            moving.move(self, answer)
            return
        following: State | None = None
        others: list[Call[Any] | Publish | Answer[Any]] = []
        for part in flat((answer,)):
            if isinstance(part, State) and following is None:
                moving.check_target(handler, part)
                following = part
            elif (
                (isinstance(part, Call) and handler.calls)
                or (isinstance(part, Publish) and handler.publishes)
                or (isinstance(part, Answer) and handler.replies)
            ):
                others.append(part)
            else:
                raise TypeError(moving.not_allowed(handler, part))
        for part in others:
            self.emit(part)
        if following is not None:
            moving.move(self, following)

    def emit(self, part: Call[Any] | Publish | Answer[Any]) -> None:
        if isinstance(part, Call):
            working.make(self, part.step, part.step.write_input(part.input))
        elif isinstance(part, Answer):
            self.commands.append(asking.reply(part))
        else:
            self._publish(part)

    def _publish(self, part: Publish) -> None:
        snap, event = self.snap, part.event
        if snap.hops >= MAX_HOPS:
            message = f"{MAX_HOPS} published events in a row without an event from outside or a timer; break the circle"
            raise ValueError(message)
        name = type(event).__name__
        key = part.key or key_of(event, type(event).__key__) or self.entry.key
        id_ = f"{snap.run}.{snap.seq}.{self.made}"
        self.made += 1
        tracestate, baggage = self.carried()
        envelope = CloudEvent(
            id=id_,
            source=f"longwatch/{self.workflow.name}",
            type=name,
            subject=key,
            time=moment(self.at).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            data=Raw(event.__pydantic_serializer__.to_json(event, warnings="error")),
            traceparent=traceparent(self.trace, span_id("publish", id_)),
            tracestate=tracestate,
            baggage=baggage,
            longwatchhops=snap.hops + 1,
            longwatchcause=f"{snap.run}.{snap.seq}",
        )
        self.published.append(Published(id_, name, key))
        self.commands.append(PublishEvent(event, envelope))


def _run_in(stored: bytes) -> RunId:
    """The run's id in bytes that cannot be read, so that it is found in a list; empty when it is not there."""
    found = re.search(rb'"run":"([0-9a-f]{16})"', stored)
    return RunId(found[1].decode() if found else "")


def _words(state: str, cause: str, name: str, timer: Timer | None) -> str:
    return f"timer {name}" if timer else f"{cause} {name} in {state or 'start'}".replace("  ", " ")


def failed_by(index: int, error: BaseException, cause: str) -> HandlerFailed:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "/engine/core/" not in f.filename.replace("\\", "/")), None)
    where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno} in {last.name}" if last else ""
    try:
        text = str(error).encode(errors="backslashreplace").decode()[:MAX_ERROR]
    except BaseException as worse:  # noqa: BLE001 - it is the user's __str__
        text = f"(its words cannot be had: {type(worse).__name__})"
    return HandlerFailed(index, f"{type(error).__name__}: {text}" if text else type(error).__name__, where, cause)


def _copy(snap: Snapshot) -> Snapshot:
    """What `copy.copy` does, in a third of its time."""
    copied: Snapshot = snap.__copy__()  # type: ignore[attr-defined]  # not in the stubs of msgspec
    return copied


def _status(snap: Snapshot, *, running: bool) -> Status:
    if snap.halted is not None:
        return "halted"
    if snap.ended:
        return "finished"
    return "running" if running else "waiting"


def _runs(snap: Snapshot) -> bool:
    """Whether calls are in flight; in a halted run none counts."""
    if snap.halted is not None:
        return False
    for call in snap.calls:  # noqa: SIM110 - quicker than any(), and asked at every entry
        if call.status == "running":
            return True
    return False


def next_wake(snap: Snapshot) -> int:
    """When the next timer is due, log ms; 0: never, and in a halted run time stands still."""
    due = _next_due(snap) if snap.halted is None else None
    return due[0] if due else 0


def _next_due(snap: Snapshot) -> tuple[int, Timer | Pending] | None:
    found: tuple[int, Timer | Pending] | None = None
    for timer in snap.timers:
        if found is None or timer.due < found[0]:
            found = timer.due, timer
    for call in snap.calls:
        if call.status == "waiting" and (found is None or call.due < found[0]):
            found = call.due, call
    return found
