"""One fold at work: timers, the entry, and what follows at once; each an application, each with its record.

`engine.core.transition` is the way in and says how an entry is applied.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw
from pydantic import ValidationError

from engine.core import asking, spending
from engine.core.context import Context, milliseconds, moment
from engine.core.definition import Handler, MomentSpec, StateSpec, Workflow, WorkSpec, flat
from engine.core.entry import (
    AnswerEntry,
    AskedEntry,
    Asker,
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
    AskRun,
    CancelCall,
    Command,
    Forget,
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
    Halted,
    PendingCall,
    PendingTimer,
    Published,
    Record,
    Status,
)
from engine.core.snapshot import (
    FORMAT,
    Early,
    Group,
    Pending,
    Progress,
    Snapshot,
    Timer,
    Tombstone,
    grave_of,
    read_stored,
    write_stored,
)
from engine.core.steps import Call, Step, StepHalts

MAX_SEEN = 1_000
MAX_HOPS = 100
MAX_AT_ONCE = 1_000
MAX_EARLY = 1_000
MAX_FAILED = 100
MAX_ERROR = 2_000
SHOWN_CALLS = 20


HELD = "held: the run is halted"
_CAUSES: dict[type[Entry], Cause] = {
    ResultEntry: "result",
    FailureEntry: "failure",
    KeptEntry: "kept",
    AskedEntry: "asked",
    AnswerEntry: "answer",
}
_OF_CALLS = (ResultEntry, FailureEntry, KeptEntry, AskedEntry, AnswerEntry)


class BadEvent(Exception):
    """An event that the workflow cannot take: a dead letter, no error."""


class Fold:
    """One fold at work; thrown away after it."""

    __slots__ = (
        "_drawn",
        "_made",
        "_state",
        "at",
        "before",
        "behind",
        "came",
        "changed",
        "commands",
        "current",
        "early",
        "entry",
        "hold",
        "place",
        "published",
        "reached",
        "records",
        "release",
        "resumed",
        "rules",
        "running",
        "snap",
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
        self._state: State | None = None
        self._made = 0
        self._drawn = 0
        self.changed = False
        self.published: list[Published] = []
        self.wakes, self.running = 0, False
        self.reached = False
        self.current: Entry | None = None
        """The entry that is being applied."""
        self.resumed = ""
        """The order that a halted run goes on by: `resume` or `skip`."""

    # -- what is stored is no run at rest ------------------------------------------------------------------------

    def over(self, grave: Tombstone, stored: bytes | None) -> Reaction:
        entry = self.entry
        if isinstance(entry, TickEntry):
            return Reaction(stored, wakes=grave.expires)
        record = self._blank(
            grave.run, grave.seq + 1, grave.state, f"the run is finished ({grave.state})", prev=grave.prev
        )
        if isinstance(entry, QuestionEntry):
            asking.refuse(self, entry, "RunFinished", f"the run is finished ({grave.state})")
        again = write_stored(msgspec.structs.replace(grave, seq=grave.seq + 1, prev=f"{self.place.position}/0"))
        return Reaction(again, self.commands, records=[record], wakes=grave.expires)

    def _blank(self, run: RunId, seq: int, state: str, ignored: str, prev: str = "") -> Record:
        cause, name, id_, source = _naming(self.entry)
        return Record(
            workflow=self.workflow.name,
            key=self.entry.key,
            run=run,
            version=self.workflow.version,
            seq=seq,
            at=self.at,
            entry=self.place.position,
            prev=prev,
            cause=cause,
            name=name,
            id=id_,
            source=source,
            from_=state,
            to=state,
            status="finished",
            ignored=ignored,
            code=self.workflow.code,
        )

    def expire(self, early: Early) -> Early | None:
        if self.at < early.expires:
            return early
        oldest = self.at - self.rules.early_hold
        for at, position, event in early.events:
            if at <= oldest:
                reason = f"no run of {self.workflow.name!r} with this key began in time"
                self._dead(event, reason, at, Position(position))
        rest = tuple(e for e in early.events if e[0] > oldest)
        return Early(rest[0][0] + self.rules.early_hold, rest) if rest else None

    def begin(self, early: Early | None) -> Reaction:
        """No run stands under this key."""
        entry = self.entry
        if isinstance(entry, EventEntry | QuestionEntry) and entry.type in self.workflow.starts_on:
            run = run_id(self.workflow.name, entry.key, self.place.partition, self.place.position)
            self.snap = Snapshot(run=run, version=self.workflow.version, state="", data=Raw(b"null"))
            if early is not None:
                self.early = early
                self.snap.kept = tuple(event for _, _, event in early.events)
                self.snap.seen = tuple((at, event_hash(e.source, e.id)) for at, _, e in early.events)
            return self.run(())
        if isinstance(entry, EventEntry):
            early = self._wait_for_start(entry, early)
        elif isinstance(entry, OrderEntry):
            self._dead(entry, f"there is no run {self.workflow.name}/{entry.key} to {entry.order}")
        elif isinstance(entry, AnswerEntry):
            self._dead(entry, f"there is no run {self.workflow.name}/{entry.key} to answer")
        elif isinstance(entry, QuestionEntry):
            asking.refuse(self, entry, "NoRun", f"there is no run {self.workflow.name}/{entry.key}")
        return self._waiting(early)

    def _waiting(self, early: Early | None) -> Reaction:
        if early is None:
            return Reaction(None, self.commands)
        return Reaction(write_stored(early), self.commands, wakes=early.expires)

    def _wait_for_start(self, entry: EventEntry, early: Early | None) -> Early | None:
        if entry.type not in self.workflow.events:
            self._dead(entry, f"workflow {self.workflow.name!r} knows no event {entry.type!r}")
            return early
        events = early.events if early else ()
        if any(e.id == entry.id and e.source == entry.source for _, _, e in events):
            return early
        if len(events) >= MAX_EARLY:
            self._dead(entry, f"{MAX_EARLY} events already wait for this run to begin")
            return early
        expires = early.expires if early else self.at + self.rules.early_hold
        return Early(expires, (*events, (self.at, self.place.position, entry)))

    def _dead(self, entry: Entry, reason: str, at: int | None = None, position: Position | None = None) -> None:
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
        )
        self.hold = not isinstance(self.entry, TickEntry)
        self.snap.held = int(self.hold)
        self._record(*_naming(self.entry))
        return self._done()

    # -- a run ---------------------------------------------------------------------------------------------------

    def run(self, held: Sequence[Held]) -> Reaction:
        if self.snap.halted is not None:
            return self._halted(held)
        self.behind = 0 if isinstance(self.entry, TickEntry) else 1
        done = self._go(self.entry, self.place.position, self.place.at)
        self.hold = not done and self.behind == 1
        if self.hold and not self.reached:  # a timer halted the run: the entry behind it is told of too
            self.at = self.place.at
            self._apply(self.place.position, *_naming(self.entry, self.snap), lambda: HELD, self.entry)
        return self._done()

    def _go(self, entry: Entry, position: Position, at: int) -> bool:
        """Timers, the entry, and what follows at once. False: the run halted before the entry was done with."""
        if self.snap.state and not self._fire_due(at, position):
            return False
        self.at = at
        if isinstance(entry, TickEntry):
            return True
        self.reached = True
        try:
            if not self._apply(position, *_naming(entry, self.snap), partial(self._entry, entry), entry):
                return False
        except BadEvent as error:
            self._dead(entry, str(error), at, position)
            return True
        self.behind -= 1
        self._settle(position)
        return True

    def _done(self) -> Reaction:
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

    def _apply(
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
        state, commands, published = self._state, len(self.commands), self.published
        from_, index = before.state, len(self.records)
        self._made, self._drawn, self.changed, self.published = 0, 0, False, []
        self.snap.seq += 1
        self.current = entry
        failure: HandlerFailed | None = None
        ignored = ""
        if self.verdict is not None and self.verdict.index == index:
            failure = HandlerFailed(index, self.verdict.error, self.verdict.where, self.verdict.cause)
        else:
            try:
                ignored = action()
                self._record(cause, name, id_, source, from_, ignored, position, entry, old)
            except BadEvent:
                self.snap, self._state, self.published = before, state, published
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
        self.snap, self._state, self.changed, self.published = before, state, False, []
        del self.commands[commands:]
        self.snap.seq += 1
        if before.halted is None:
            self.snap.halted_timer, self.snap.held = timer, self.behind
        self.snap.halted = Halted(failure.error, failure.where, failure.cause, self.at)
        self._record(cause, name, id_, source, from_, "", position, entry, old)
        return False

    def _record(
        self,
        cause: Cause,
        name: str,
        id_: str,
        source: str,
        from_: str = "",
        ignored: str = "",
        position: Position | None = None,
        entry: Entry | None = None,
        old: bytes | None = None,
    ) -> None:
        snap, workflow = self.snap, self.workflow
        prev, index = snap.prev, len(self.records)
        snap.prev = f"{self.place.position}/{index}"
        base = NOTHING
        if snap.code != workflow.code:
            if snap.code:
                base = Raw(old or self.came or b"null")
            snap.code = workflow.code
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
        if self.changed and self._state is not None:
            data, fields = snap.data, workflow.specs[snap.state].fields(self._state)
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
                **_told_by(entry),
            )
        )

    def _fire_due(self, until: int, position: Position) -> bool:
        """Every timer due at or before `until`, in order of due time. False: one of them halted the run."""
        last, fired = -1, 0
        while (due := _next_due(self.snap)) is not None and due[0] <= until:
            self.at = due[0]
            if isinstance(due[1], Pending):
                call = due[1]
                went = self._apply(position, "timer", f"retry {call.step}", call.id, "", partial(self._again, call))
            else:
                timer = due[1]
                last, fired = due[0], fired + 1 if due[0] == last else 1
                if fired > MAX_AT_ONCE:
                    return self._endless(position)
                name = f"{timer.owner or self.snap.state}.{timer.handler}"
                went = self._apply(position, "timer", name, "", "", partial(self._timer, timer), timer=timer)
            if not (went and self._settle(position)):
                return False
        return True

    def _settle(self, position: Position) -> bool:
        """What a state takes up at once: work over nothing, events kept for it. False: it halted the run."""
        for _ in range(MAX_AT_ONCE + len(self.snap.kept)):
            if not (self.snap.works or self.snap.kept) or (move := self._at_once()) is None:
                return True
            if not self._take_up(move, position):
                return False
        return self._endless(position)

    def _endless(self, position: Position) -> bool:
        reason = f"more than {MAX_AT_ONCE} moves at once without a wait; add a state that waits"
        if self.verdict is None:
            raise HandlerFailed(len(self.records), reason, "", self.snap.state)
        return self._apply(position, "event", "", "", "", lambda: "")

    def _at_once(self) -> Progress | EventEntry | None:
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

    def _take_up(self, move: Progress | EventEntry, position: Position, why: str = "") -> bool:
        """With `why`, leave it out instead."""
        if isinstance(move, EventEntry):
            return self._apply(position, *_naming(move), partial(self._take, move, why), move)
        spec = self.workflow.specs.get(self.snap.state)
        name = spec.works_by_name[move.work].words if spec and move.work in spec.works_by_name else move.work
        return self._apply(position, "result", name, "", "", partial(self._over_nothing, move, why))

    def _take(self, entry: EventEntry, why: str) -> str:
        self.snap.kept = tuple(e for e in self.snap.kept if e is not entry)
        if why or self.snap.ended:
            return why or "no state took this event, which had been kept"
        try:
            return self._handle(entry)
        except BadEvent as error:
            self._dead(entry, str(error))
            return f"{error}: it is a dead letter"

    def _over_nothing(self, work: Progress, why: str) -> str:
        if not why:
            self._current()
            return self._work_done(work, ())
        self.snap.works = tuple(w for w in self.snap.works if w is not work)
        return why

    # -- entries -------------------------------------------------------------------------------------------------

    def _entry(self, entry: Entry) -> str:
        if not isinstance(entry, OrderEntry):
            self._current()
        if isinstance(entry, ResultEntry):
            return self._result(entry)
        if isinstance(entry, EventEntry):
            return self._event(entry)
        if isinstance(entry, FailureEntry):
            return self._failed(entry)
        if isinstance(entry, KeptEntry):
            return asking.kept(self, entry)
        if isinstance(entry, QuestionEntry):
            return asking.question(self, entry) if self.snap.state else self._start(entry)
        if isinstance(entry, AskedEntry):
            return asking.asked(self, entry)
        if isinstance(entry, AnswerEntry):
            return asking.answered(self, entry)
        if isinstance(entry, OrderEntry):
            return self._order(entry)
        return ""

    def _event(self, entry: EventEntry) -> str:
        snap = self.snap
        mark = event_hash(entry.source, entry.id)
        oldest = self.at - self.rules.retention
        seen = snap.seen
        if seen and seen[0][0] < oldest:
            seen = tuple(s for s in seen if s[0] >= oldest)
        if any(s[1] == mark for s in seen):
            return f"a repeat: event {entry.id!r} of {entry.source!r} was taken before"
        ignored = self._handle(entry) if snap.state else self._start(entry)
        self.snap.seen = (*seen[-(MAX_SEEN - 1) :], (self.at, mark))
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
        self.snap.hops = entry.hops
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
            snap.hops = entry.hops
        starting = self.workflow.starting
        answer = starting.function(event, self._context()) if starting.takes_context else starting.function(event)
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

    def _result(self, entry: ResultEntry) -> str:
        call = self.pending(entry.run, entry.call)
        if call is None:
            if entry.call.endswith(spending.RESERVE):
                return spending.granted(self, entry)
            return "late: nobody waits for this call any longer"
        return self._done_with(call, entry.output)

    def _done_with(self, call: Pending, output: Raw) -> str:
        self._drop(call)
        if not call.work:
            return ""
        progress = next(w for w in self.snap.works if w.work == call.work)
        results = (*progress.results, (call.slot, output))
        if len(results) < progress.size:
            self._progress(msgspec.structs.replace(progress, results=results))
            self._start_queued(call.work)
            return ""
        self._work_done(progress, results)
        return ""

    def _over(self, call: Pending) -> None:
        """A call is done with: what it kept is not needed any more, what was reserved for it is settled."""
        if call.kept:
            self.commands.append(Forget(self.snap.run, call.id))
        if call.reserved:
            spending.settle(self, call)

    def _drop(self, call: Pending) -> None:
        self._over(call)
        self.snap.calls = tuple([c for c in self.snap.calls if c is not call])

    def _progress(self, new: Progress) -> None:
        self.snap.works = tuple(new if w.work == new.work else w for w in self.snap.works)

    def _start_queued(self, work: str) -> None:
        queued = next((c for c in self.snap.calls if c.work == work and c.status == "queued"), None)
        if queued is not None:
            self.pay(queued)

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
        self.commands.append(_start(self.snap.run, call))

    def _work_done(self, progress: Progress, results: Sequence[tuple[int, Raw]]) -> str:
        spec = self.spec()
        work = spec.works_by_name[progress.work]
        self.snap.works = tuple([w for w in self.snap.works if w.work != progress.work])
        if work.each:
            read = work.steps[0].read_output
            outputs: list[Any] = [tuple(read(bytes(raw)) for _, raw in sorted(results, key=lambda r: r[0]))]
        else:
            ordered = results if len(results) == 1 else sorted(results, key=lambda r: r[0])
            outputs = [work.steps[slot].read_output(bytes(raw)) for slot, raw in ordered]
        handler = _must(work.done)
        self.answer(handler, self.call_handler(handler, self.state(), *outputs))
        return ""

    def _failed(self, entry: FailureEntry) -> str:
        call = self.pending(entry.run, entry.call)
        if call is None:
            return "late: nobody waits for this call any longer"
        if call.status != "asked" and (entry.attempt != call.attempt or call.status != "running"):
            return f"late: attempt {entry.attempt} was given up before"
        step = self.workflow.steps.get(call.step)
        if entry.halts:
            if self.resumed == "resume":
                self.launch(msgspec.structs.replace(call, attempt=call.attempt + 1))
                return ""
            if self.resumed != "skip":
                message = f"{call.step}: {entry.message}; mend it, then `longwatch resume`"
                raise StepHalts(message)
        elif step is not None and step.otherwise is not None and entry.error == "NoRun":
            return self._done_with(call, Raw(step.write_output(step.otherwise)))
        elif step is not None and not entry.final and (wait := self._wait(step, call, entry)) is not None:
            waiting = msgspec.structs.replace(
                call,
                status="waiting",
                due=self.at + wait,
                error=f"{entry.error}: {entry.message}",
                failures=call.failures + (not entry.outage),
                outages=call.outages + entry.outage,
            )
            self.put(waiting)
            return ""
        self.lost(call, entry.error, entry.message)
        return ""

    def lost(self, call: Pending, error: str, message: str) -> None:
        """A call has failed for good."""
        if not call.work:
            self._give_up(msgspec.structs.replace(call, status="failed", error=f"{error}: {message}", asks=None))
            return
        self._drop(call)
        self._drop_work(call.work)
        work = self.spec().works_by_name[call.work]
        failure = StepFailed(step=call.step, error=message or error, type=error, attempts=call.attempt)
        handler = _must(work.failed)
        self.answer(handler, self.call_handler(handler, self.state(), failure))

    def _give_up(self, gone: Pending) -> None:
        """A call that nobody waits for has failed: it stays to be seen and retried, the last hundred of them."""
        spending.settle(self, gone)
        gone = msgspec.structs.replace(gone, reserved=False, tokens=0, cost=0)
        calls = [gone if c.id == gone.id else c for c in self.snap.calls if c.id != gone.id or not self.snap.ended]
        failed = [c for c in calls if c.status == "failed"]
        if len(failed) > MAX_FAILED:
            calls.remove(failed[0])
            self._over(failed[0])
        if self.snap.ended:
            self._over(gone)
        self.snap.calls = tuple(calls)

    def _wait(self, step: Step[Any, Any], call: Pending, entry: FailureEntry) -> int | None:
        """Log ms until the next attempt; None: there is none."""
        if not entry.outage and call.failures + 1 >= step.retry.attempts:
            return None
        tried = call.failures + call.outages + 1
        wait = int(max(step.retry.wait(tried), entry.wait) * self.place.lapse)
        if step.total is not None:
            whole = int(step.total.total_seconds() * 1000 * self.place.lapse)
            if self.at + wait - call.since > whole:
                return None
        return wait

    def _drop_work(self, work: str) -> None:
        snap = self.snap
        self._cancel(c for c in snap.calls if c.work == work)
        snap.calls = tuple(c for c in snap.calls if c.work != work)
        snap.works = tuple(w for w in snap.works if w.work != work)

    def _cancel(self, calls: Iterator[Pending]) -> None:
        """Nobody waits for these any longer."""
        for call in calls:
            if call.status == "running":
                self.commands.append(CancelCall(self.snap.run, call.id))
            self._over(call)

    def _again(self, call: Pending) -> str:
        self.launch(msgspec.structs.replace(call, status="running", attempt=call.attempt + 1, due=0))
        return ""

    def _timer(self, timer: Timer) -> str:
        self._current()
        spec = self.spec()
        handler = spec.timers_by_name.get((timer.owner, timer.handler))
        rest = tuple(t for t in self.snap.timers if t is not timer)
        self.snap.timers = (*rest, *self._next_of(timer))
        self.snap.hops = 0
        if handler is None:
            return f"{spec.name} has no timer {timer.handler} of {timer.owner or spec.name}"
        self.answer(handler, self.call_handler(handler, self.state()))
        return ""

    def _next_of(self, timer: Timer) -> tuple[Timer, ...]:
        """The same timer again, when it repeats; a superstate's goes on in a state that overrides it."""
        spec = self.workflow.specs.get(self.snap.state)
        found = spec.timers_by_name.get((timer.owner, timer.handler)) if spec else None
        if found is None and spec is not None:
            found = next((h for h in spec.group_timers.get(timer.owner, ()) if h.name == timer.handler), None)
        if found is None or not found.repeats:
            return ()
        return (msgspec.structs.replace(timer, due=timer.due + found.delay),)

    # -- orders and halts ----------------------------------------------------------------------------------------

    def _order(self, entry: OrderEntry) -> str:
        """An order for a run that is not halted."""
        if entry.order == "cancel":
            return self._end_by_order()
        if entry.order == "retry":
            return self._retry()
        if entry.order == "take":
            return asking.take(self, entry.who)
        if entry.order == "release":
            return asking.release(self)
        return "the run is not halted"

    def _end_by_order(self) -> str:
        snap = self.snap
        if snap.ended and snap.halted is None:
            return f"the run is finished ({snap.state})"
        self._cancel(iter(snap.calls))
        snap.calls, snap.works, snap.timers = (), (), ()
        snap.ended = snap.ended or self.at
        snap.halted = snap.halted_timer = None
        snap.held = 0
        return ""

    def _retry(self) -> str:
        again = [c for c in self.snap.calls if c.status in ("waiting", "failed")]
        for call in again:
            new = msgspec.structs.replace(call, attempt=call.attempt + 1, due=0, since=self.at)
            step = self.workflow.steps.get(call.step)
            if step is not None and step.question is not None:
                self.put(msgspec.structs.replace(new, status="asked", error=""))
                self._ask(step, new)
            else:
                self.pay(new)
        return "" if again else "no call of this run waits for another attempt"

    def _halted(self, held: Sequence[Held]) -> Reaction:
        entry, snap = self.entry, self.snap
        if isinstance(entry, OrderEntry) and entry.order in ("resume", "skip"):
            return self._resume(entry, held)
        if isinstance(entry, OrderEntry) and entry.order == "cancel":
            self._apply(self.place.position, *_naming(entry), self._end_by_order, entry)
            self._leave_out(held, "the run was cancelled")
            self._settle(self.place.position)
            return self._done()
        if isinstance(entry, TickEntry):
            return self._done()
        snap.held += 1
        self.hold = True
        self._apply(self.place.position, *_naming(entry, snap), lambda: HELD, entry)
        return self._done()

    def _leave_out(self, held: Sequence[Held], why: str) -> None:
        for item in held:
            self._apply(item.position, *_naming(item.entry, self.snap), lambda: why, item.entry)
            if isinstance(item.entry, QuestionEntry):
                asking.refuse(self, item.entry, "RunFinished" if self.snap.ended else "NotAnswered", why)
        self.release += len(held)

    def _resume(self, order: OrderEntry, held: Sequence[Held]) -> Reaction:
        if self.snap.broken or not self.snap.run:
            return self._mend(held)
        halted, timer = self.snap.halted, self.snap.halted_timer
        self.behind = len(held)
        if not self._apply(self.place.position, *_naming(order), partial(self._lift, order), order):
            return self._done()
        self._state = None
        self.resumed = order.order
        if halted is not None:
            self.at = halted.at
        if order.order == "skip" and timer is None:
            held = self._skip(held)
        if self._settle(self.place.position):
            self._fold_held(held)
        self._begin_again()
        return self._done()

    def _begin_again(self) -> None:
        """Start what was in flight when the run halted: an engine that was started meanwhile has left it alone."""
        started = {c.id for c in self.commands if isinstance(c, StartCall)}
        for call in self.snap.calls if self.snap.halted is None else ():
            if call.status == "running" and call.id not in started:
                self.commands.append(msgspec.structs.replace(_start(self.snap.run, call), again=True))

    def _fold_held(self, held: Sequence[Held]) -> None:
        for done, item in enumerate(held):
            self.behind = len(held) - done
            self.release += self._go(item.entry, item.position, item.at)
            self.resumed = ""
            if self.snap.halted is not None:
                return
        self.behind = 0
        self._fire_due(self.place.at, self.place.position)

    def _skip(self, held: Sequence[Held]) -> Sequence[Held]:
        """Leave out what halted the run; answers with what is still to be folded."""
        why = "left out by an order"
        if not self.snap.state:
            self._leave_out(held[:1], why)
            for event in self.snap.kept:
                self._dead(event, "the run that it waited for was left out by an order")
            for item in held[1:]:
                if isinstance(item.entry, QuestionEntry):
                    asking.refuse(self, item.entry, "NoRun", "the run was left out by an order")
                else:
                    lost = "the run that it waited for was left out by an order"
                    self._dead(item.entry, lost, item.at, item.position)
            self.snap.kept, self.release = (), len(held)
            return ()
        if (move := self._at_once()) is not None:
            self._take_up(move, self.place.position, why)
            return held
        if held and isinstance(held[0].entry, FailureEntry) and held[0].entry.halts:
            return held  # folded again as a call that is given up
        self._leave_out(held[:1], why)
        self.behind = len(held[1:])
        return held[1:]

    def _lift(self, order: OrderEntry) -> str:
        snap = self.snap
        timer = snap.halted_timer
        snap.halted = snap.halted_timer = None
        snap.held = 0
        if order.order != "skip":
            return ""
        if timer is not None:
            snap.timers = (*(t for t in snap.timers if t != timer), *self._next_of(timer))
        elif not snap.state:
            snap.ended = self.at
        return ""

    def _mend(self, held: Sequence[Held]) -> Reaction:
        """Try again to read what could not be read."""
        raw = self.snap.broken
        try:
            known = read_stored(raw)
            if type(known) is not Snapshot or known.v > FORMAT:
                message = f"{type(known).__name__} of form {getattr(known, 'v', 0)}"
                raise UnreadableSnapshot(message)  # noqa: TRY301 - one place to say so
        except (msgspec.DecodeError, UnicodeDecodeError, UnreadableSnapshot) as error:
            why = f"the stored snapshot still cannot be read ({error})"
            self._apply(self.place.position, *_naming(self.entry), lambda: why, self.entry)
            return self._done()
        known.halted = self.snap.halted
        if self.snap.seq > known.seq:
            known.seq, known.prev = self.snap.seq, self.snap.prev
        self.snap = known
        return self._resume(self.entry, held) if isinstance(self.entry, OrderEntry) else self._done()

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
        if self._state is None:
            self._current()
        if self._state is None:
            self._state = self._read_state()
        return self._state

    def _read_state(self) -> State:
        snap = self.snap
        try:
            return self.spec().read(bytes(snap.data))
        except ValidationError as error:
            message = f"state {snap.state} as version {snap.version} stored it does not fit this code: {error}"
            raise UnreadableSnapshot(message) from None

    def _current(self) -> None:
        """Bring what another version stored up to this one, before anything looks at the state."""
        snap, now = self.snap, self.workflow.version
        if snap.version == now or not snap.state or snap.ended:
            return
        before = snap.state
        if snap.version < now and before in self.workflow.migrate:
            new = self.workflow.migrate[before](json.loads(bytes(snap.data)))
            spec = self.workflow.specs.get(type(new).__name__)
            if spec is None or spec.type is not type(new):
                message = f"migrate[{before!r}] answered with {type(new).__name__}, which is not in states="
                raise UnreadableSnapshot(message)
            snap.state, snap.data = spec.name, Raw(spec.write(new))
            self._state, self.changed = new, True
        else:
            self._state = self._read_state()
        snap.version = now
        self._carry_over(before, self._state)

    def _carry_over(self, before: str, state: State) -> None:
        """Timers and work of a state that another version entered, as this one would have them.

        What is still there goes on. A timer that is new is set, counted from when the state was entered; one that is
        missing may have fired already, so it is set only when it repeats, leads on or is not due yet.
        """
        snap, spec = self.snap, self.spec()
        entered = {g.name: g.entered for g in snap.groups}
        snap.groups = tuple(Group(g, snap.visit, entered.setdefault(g, snap.entered)) for g in spec.groups)
        due = {(h.owner, h.name): (h, entered.get(h.owner, snap.entered) + h.delay) for h in spec.timers}
        due |= {
            (m.owner, m.name): (m.due, at) for m in spec.moments if m.due and (at := self._when(m, state)) is not None
        }
        timers = {(t.owner, t.handler): t for t in snap.timers if (t.owner, t.handler) in due}
        for name, (handler, at) in due.items():
            if handler.repeats:
                at += max(0, -((at - self.at) // handler.delay)) * handler.delay  # noqa: PLW2901 - the next one
            if name not in timers and (at > self.at or handler.repeats or handler.targets - {spec.type}):
                timers[name] = Timer(max(at, self.at), name[1], name[0])
        snap.timers = tuple(timers.values())
        for work in snap.works:
            if work.work not in spec.works_by_name:
                self._drop_work(work.work)
        if before != spec.name:
            going = {w.work for w in snap.works}
            for new in spec.works:
                if new.name not in going:
                    self._start_work(new, state)

    def _context(self) -> Context:
        snap = self.snap
        self._drawn += 1
        current = self.current
        who = current.who if isinstance(current, EventEntry) else ""
        asker = current.asker if isinstance(current, QuestionEntry) else None
        return Context(self.entry.key, snap.run, self.at, snap.entered, snap.seq, self._drawn, who, asker)

    def call_handler(self, handler: Handler, *arguments: Any) -> Any:
        """What a handler answers."""
        if handler.takes_context:
            return handler.function(*arguments, self._context())
        return handler.function(*arguments)

    def answer(self, handler: Handler, answer: Any) -> None:
        """Check an answer against its annotation and carry it out."""
        if isinstance(answer, State):
            _check_target(handler, answer)
            self._move(answer)
            return
        following: State | None = None
        others: list[Call[Any] | Publish | Answer[Any]] = []
        for part in flat((answer,)):
            if isinstance(part, State) and following is None:
                _check_target(handler, part)
                following = part
            elif (
                (isinstance(part, Call) and handler.calls)
                or (isinstance(part, Publish) and handler.publishes)
                or (isinstance(part, Answer) and handler.replies)
            ):
                others.append(part)
            else:
                raise TypeError(_not_allowed(handler, part))
        for part in others:
            self._emit(part)
        if following is not None:
            self._move(following)

    def _emit(self, part: Call[Any] | Publish | Answer[Any]) -> None:
        if isinstance(part, Call):
            self._make(part.step, part.step.write_input(part.input))
        elif isinstance(part, Answer):
            self.commands.append(asking.reply(part))
        else:
            self._publish(part)

    def _make(self, step: Step[Any, Any], raw: bytes, work: str = "", slot: int = 0, *, queued: bool = False) -> None:
        snap = self.snap
        id_ = CallId(f"{snap.seq}.{self._made}")
        self._made += 1
        call = Pending(id_, step.name, Raw(raw), self.at, work, slot, status="queued" if queued else "running")
        if step.question is not None:
            snap.calls = (*snap.calls, msgspec.structs.replace(call, status="asked"))
            self._ask(step, call)
            return
        if step.spends is not None and not queued:
            call = spending.pay(self, call, step)
        snap.calls = (*snap.calls, call)
        if call.status == "running":
            self.commands.append(_start(snap.run, call))

    def _ask(self, step: Step[Any, Any], call: Pending) -> None:
        """Have another run asked; its answer is the call's result."""
        asker = Asker(self.workflow.name, self.entry.key, self.snap.run, call.id)
        caused = self.current
        trace = caused.traceparent if isinstance(caused, EventEntry | QuestionEntry) else ""
        self.commands.append(AskRun(step.read_input(bytes(call.input)), asker, trace))

    def _publish(self, part: Publish) -> None:
        snap, event = self.snap, part.event
        if snap.hops >= MAX_HOPS:
            message = f"{MAX_HOPS} published events in a row without an event from outside or a timer; break the circle"
            raise ValueError(message)
        name = type(event).__name__
        key = part.key or key_of(event, type(event).__key__) or self.entry.key
        id_ = f"{snap.run}.{snap.seq}.{self._made}"
        self._made += 1
        caused = self.entry if isinstance(self.entry, EventEntry) else None
        envelope = CloudEvent(
            id=id_,
            source=f"longwatch/{self.workflow.name}",
            type=name,
            subject=key,
            time=moment(self.at).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            data=Raw(event.__pydantic_serializer__.to_json(event, warnings="error")),
            traceparent=caused.traceparent if caused else "",
            tracestate=caused.tracestate if caused else "",
            longwatchhops=snap.hops + 1,
            longwatchcause=f"{snap.run}.{snap.seq}",
        )
        self.published.append(Published(id_, name, key))
        self.commands.append(PublishEvent(event, envelope))

    def _move(self, new: State) -> None:
        spec = self.workflow.specs[type(new).__name__]
        snap = self.snap
        if snap.state == spec.name:
            old, self._state = self._state, new
            snap.data, self.changed = Raw(spec.write(new)), True
            if spec.moments:
                self._set_moments(spec, new, old, {"", *spec.groups})
            return
        self._enter(spec, new)

    def _enter(self, spec: StateSpec, new: State) -> None:
        snap = self.snap
        if snap.calls:
            self._cancel(c for c in snap.calls if c.work)
            snap.calls = tuple([c for c in snap.calls if not c.work])
        snap.works, snap.taken = (), ""
        snap.state, snap.data, snap.entered = spec.name, Raw(spec.write(new)), self.at
        snap.visit += 1
        old, self._state, self.changed = self._state, new, True
        entered = self._regroup(spec, new, old)
        if spec.final:
            snap.timers, snap.ended = (), self.at
            for call in snap.calls:
                if call.status == "failed":
                    self._over(call)
            snap.calls = tuple(c for c in snap.calls if c.status != "failed")
        for handler in spec.enters:
            if not handler.owner or handler.owner in entered:
                for part in flat((self.call_handler(handler, new),)):
                    if not isinstance(part, Call | Publish):
                        raise TypeError(_not_allowed(handler, part))
                    self._emit(part)
        for work in spec.works:
            self._start_work(work, new)

    def _regroup(self, spec: StateSpec, new: State, old: State | None) -> frozenset[str]:
        """Leave the superstates that the state is not in, enter those that are new; answers with the new ones."""
        snap = self.snap
        if not (snap.groups or spec.groups or snap.timers or spec.timers or spec.moments):
            return frozenset()
        stayed = {g.name for g in snap.groups if g.name in spec.groups}
        entered = frozenset(g for g in spec.groups if g not in stayed)
        known = {g.name: g for g in snap.groups}
        snap.groups = tuple(known[g] if g in stayed else Group(g, snap.visit, self.at) for g in spec.groups)
        timers = [t for t in snap.timers if t.owner in stayed]
        for group in spec.groups:
            if group in entered:
                timers += [Timer(self.at + h.delay, h.name, group) for h in spec.group_timers[group]]
        timers += [Timer(self.at + h.delay, h.name) for h in spec.timers if not h.owner]
        snap.timers = tuple(timers)
        if spec.moments:
            self._set_moments(spec, new, old, stayed)
        return entered

    def _set_moments(self, spec: StateSpec, new: State, old: State | None, stayed: AbstractSet[str]) -> None:
        """The `@at` timers of new data. One that is over and says what it said before has fired: it is left alone."""
        timers = list(self.snap.timers)
        for m in spec.moments:
            due = self._when(m, new)
            known = old is not None and m.owner in stayed
            if old is not None and known and due is not None and due <= self.at and due == self._when(m, old):
                continue
            timers = [t for t in timers if (t.owner, t.handler) != (m.owner, m.name)]
            if due is not None:
                timers.append(Timer(max(due, self.at), m.name, m.owner))
        self.snap.timers = tuple(timers)

    def _when(self, moment: MomentSpec, state: State) -> int | None:
        """What an `@at` method says, log ms."""
        when = moment.when(state, self._context()) if moment.when_takes_context else moment.when(state)
        return None if when is None else milliseconds(when)

    def _start_work(self, work: WorkSpec, state: State) -> None:
        inputs = work.inputs(state, self._context()) if work.inputs_take_context else work.inputs(state)
        if work.each:
            step, count = work.steps[0], 0
            for count, value in enumerate(inputs, 1):
                self._make(step, step.write_input(value), work.name, count - 1, queued=count > work.limit)
            self.snap.works = (*self.snap.works, Progress(work.name, count))
            return
        if len(work.steps) == 1:
            inputs = (inputs,)
        elif not isinstance(inputs, tuple) or len(inputs) != len(work.steps):
            message = f"{self.snap.state}.{work.name} must give {len(work.steps)} inputs, one for each of {work.words}"
            raise TypeError(message)
        for slot, step in enumerate(work.steps):
            self._make(step, step.write_input(inputs[slot]), work.name, slot)
        self.snap.works = (*self.snap.works, Progress(work.name, len(work.steps)))


def _run_in(stored: bytes) -> RunId:
    """The run's id in bytes that cannot be read, so that it is found in a list; empty when it is not there."""
    found = re.search(rb'"run":"([0-9a-f]{16})"', stored)
    return RunId(found[1].decode() if found else "")


def _told_by(entry: Entry | None) -> dict[str, Any]:
    """What a record takes over from the entry that was applied."""
    match entry:
        case ResultEntry():
            return {"attempt": entry.attempt, "took": entry.took}
        case FailureEntry():
            error = f"{entry.error}: {entry.message}"
            return {"attempt": entry.attempt, "took": entry.took, "error": error, "inner": entry.inner}
        case EventEntry():
            return {"traceparent": entry.traceparent, "who": entry.who}
        case OrderEntry():
            return {"who": entry.who, "why": entry.why}
        case KeptEntry():
            told = {"attempt": entry.attempt, "took": entry.took, "inner": entry.name}
            return told | {"used": entry.used, "again": entry.again}
        case AskedEntry():
            return {"attempt": entry.attempt, "inner": entry.name, "why": entry.question}
        case AnswerEntry():
            return {"inner": entry.name, "who": entry.who}
        case QuestionEntry():
            return {"asker": entry.asker, "traceparent": entry.traceparent}
        case _:
            return {}


def _start(run: RunId, call: Pending) -> StartCall:
    return StartCall(run, call.id, call.step, call.input, call.attempt, call.since, call.kept, call.failures)


def _must(handler: Handler | None) -> Handler:
    assert handler is not None  # noqa: S101 - the definition was checked
    return handler


def _naming(entry: Entry, snap: Snapshot | None = None) -> tuple[Cause, str, str, str]:
    """(cause, name, id, source) of an entry, as its record tells it."""
    if isinstance(entry, _OF_CALLS):
        step, id_ = "", entry.call.removesuffix(spending.RESERVE)
        for call in snap.calls if snap is not None else ():
            if call.id == id_:
                step = call.step
        return _CAUSES[type(entry)], step, entry.call, ""
    if isinstance(entry, QuestionEntry):
        return "question", entry.type, "", f"{entry.asker.workflow}/{entry.asker.key}"
    if isinstance(entry, EventEntry):
        return "event", entry.type, entry.id, entry.source
    if isinstance(entry, OrderEntry):
        return "order", entry.order, "", ""
    return "timer", "tick", "", ""


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


def _check_target(handler: Handler, answer: State) -> None:
    if type(answer) not in handler.targets:
        raise TypeError(_not_allowed(handler, answer))


def _not_allowed(handler: Handler, part: Any) -> str:
    allowed = [t.__name__ for t in handler.order] + ["Call"] * handler.calls + ["Publish"] * handler.publishes
    answer = "nothing" if part is None else type(part).__name__
    return f"{handler.name} answered with {answer}, but its annotation says {' | '.join(allowed)}"


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
