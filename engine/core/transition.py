"""The fold: a run's stored bytes and one entry in, new bytes, commands and records out.

    transition(workflow, stored, entry, place) -> Reaction(stored, commands, records)

How an entry is applied. First every timer of the run that is due at or before the entry's time fires, in order of due
time, *at* its due time; then the entry itself; then whatever the new state takes up at once (events kept by `later`, a
`runs_each` over nothing). Each of these is one *application*: it makes one record, numbered by `index`.

The user's code runs only inside an application. When it raises, `HandlerFailed` leaves this function and nothing has
happened. The caller stores a `Verdict` under the entry's position and folds the entry again with it: then the same
application halts the run instead, in every later fold too. A halted run's time stands still; what comes is to be held by
the caller (`Reaction.hold`) and is handed back with the order that resumes it (`held`).

Pure: the time is the entry's, randomness is seeded, nothing is read or written.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw
from pydantic import ValidationError

from engine.core.context import Context, milliseconds, moment
from engine.core.definition import Handler, StateSpec, Workflow, WorkSpec, flat
from engine.core.entry import Entry, EventEntry, FailureEntry, OrderEntry, ResultEntry, TickEntry, write_entry
from engine.core.errors import HandlerFailed, UnreadableSnapshot
from engine.core.ids import CallId, Position, RunId
from engine.core.model import Event, Publish, State, StepFailed, key_of
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
    Stored,
    Timer,
    Tombstone,
    read_stored,
    write_stored,
)
from engine.core.steps import Call, Step

DAY = 86_400_000
MAX_SEEN = 1_000
MAX_HOPS = 100
MAX_SNAPSHOT = 4 << 20
MAX_AT_ONCE = 1_000
MAX_EARLY = 1_000
SHOWN_CALLS = 20


@dataclass(frozen=True)
class Rules:
    """What a log's settings say to the fold. Log ms."""

    early_hold: int = 3_600_000
    """How long an event waits for its run to start."""
    retention: int = 7 * DAY
    """How long a finished run is remembered; also how long event ids are."""


class Place(NamedTuple):
    """Where an entry stands."""

    partition: int
    position: Position
    at: int
    """Log time, ms; never less than the entry's before it in the partition."""
    lapse: float = 1.0


class Held(NamedTuple):
    """An entry that came while the run was halted."""

    position: Position
    at: int
    entry: Entry


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """That the application `index` of an entry halts the run, and why."""

    index: int
    error: str
    where: str = ""
    cause: str = ""


class StartCall(NamedTuple):
    """Run an attempt of a step. A second one for the same call is harmless: its result is dropped by its id."""

    run: RunId
    id: CallId
    step: str
    input: Raw
    attempt: int
    since: int


class CancelCall(NamedTuple):
    """Nobody waits for this call any longer."""

    run: RunId
    id: CallId


class PublishEvent(NamedTuple):
    """Hand an event to the outbox and to the application's workflows."""

    event: Event
    envelope: CloudEvent


Command = StartCall | CancelCall | PublishEvent | DeadLetter


@dataclass(slots=True)
class Reaction:
    """What a fold of one entry comes to."""

    stored: bytes | None
    """What to keep for the run; None: nothing."""
    commands: list[Command] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    hold: bool = False
    """Keep the entry behind those already held for this run."""
    release: int = 0
    """How many of the held entries, from the first, are done with."""
    wakes: int = 0
    """When the next timer is due, log ms; 0: never. Bring a `TickEntry` then."""
    running: bool = False
    """Whether calls are in flight: after a restart `running_calls` says which."""


_RULES = Rules()


def transition(
    workflow: Workflow[Any],
    stored: bytes | None,
    entry: Entry,
    place: Place,
    *,
    verdict: Verdict | None = None,
    held: Sequence[Held] = (),
    rules: Rules = _RULES,
) -> Reaction:
    """Fold one entry.

    Args:
        workflow: the definition that the entry names.
        stored: what the last fold of this run left; None: nothing is known of the run.
        entry: decoded; bytes that cannot be decoded never come here.
        place: where the entry stands and when.
        verdict: what stands under this position, if anything.
        held: with an order, the entries held back for this run, in order.
        rules: settings of the log.

    Raises:
        HandlerFailed: the user's code failed and there is no verdict yet; nothing has happened.
    """
    fold = _Fold(workflow, entry, place, verdict, rules)
    known: Stored | None = None
    if stored is not None:
        try:
            known = read_stored(stored)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return fold.broken(stored, f"{type(error).__name__}: {error}")
    if type(known) is Tombstone:
        if place.at < known.expires:
            return fold.over(known, stored)
        known = None
    if type(known) is Early:
        known = fold.expire(known)
    if known is None or type(known) is Early:
        return fold.begin(known)
    assert type(known) is Snapshot  # noqa: S101 - the only kind left
    if known.v > FORMAT:
        return fold.broken(stored or b"", f"written in form {known.v}, this code reads up to {FORMAT}")
    fold.snap = known
    return fold.run(held)


def running_calls(stored: bytes) -> list[StartCall]:
    """The attempts that a snapshot says are in flight."""
    known = read_stored(stored)
    if type(known) is not Snapshot or known.halted is not None:
        return []
    return [
        StartCall(known.run, c.id, c.step, c.input, c.attempt, c.since) for c in known.calls if c.status == "running"
    ]


def run_id(workflow: str, key: str, partition: int, position: Position) -> RunId:
    text = f"{workflow}\x1f{key}\x1f{partition}/{position}"
    return RunId(hashlib.blake2b(text.encode(), digest_size=8).hexdigest())


def event_hash(source: str, id: str) -> str:
    """8 bytes of (source, id), base64: how a run remembers an event."""
    digest = hashlib.blake2b(f"{source}\x1f{id}".encode(), digest_size=8).digest()
    return base64.b64encode(digest)[:11].decode()


def digest_of(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


class _BadEvent(Exception):
    pass


class _Fold:
    """One fold at work; thrown away after it."""

    __slots__ = (
        "_made",
        "_state",
        "at",
        "before",
        "behind",
        "changed",
        "commands",
        "early",
        "entry",
        "hold",
        "place",
        "published",
        "records",
        "release",
        "rules",
        "snap",
        "verdict",
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
        self.before: bytes | None = None
        self._state: State | None = None
        self._made = 0
        self.changed = False
        self.published: list[Published] = []

    # -- what is stored is no run at rest ------------------------------------------------------------------------

    def over(self, grave: Tombstone, stored: bytes | None) -> Reaction:
        entry = self.entry
        if isinstance(entry, TickEntry):
            return Reaction(stored, wakes=grave.expires)
        record = self._blank(
            grave.run, grave.seq + 1, grave.state, f"the run is finished ({grave.state})", prev=grave.prev
        )
        again = write_stored(msgspec.structs.replace(grave, seq=grave.seq + 1, prev=f"{self.place.position}/0"))
        return Reaction(again, records=[record], wakes=grave.expires)

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
        for at, position, event in early.events:
            self._dead(event, f"no run of {self.workflow.name!r} with this key began in time", at, Position(position))
        return None

    def begin(self, early: Early | None) -> Reaction:
        """No run stands under this key."""
        entry = self.entry
        if isinstance(entry, EventEntry) and entry.type in self.workflow.starts_on:
            run = run_id(self.workflow.name, entry.key, self.place.partition, self.place.position)
            self.snap = Snapshot(run=run, version=self.workflow.version, state="", data=Raw(b"null"))
            if early is not None:
                self.early = early
                self.snap.kept = tuple(event for _, _, event in early.events)
            return self.run(())
        if isinstance(entry, EventEntry):
            early = self._wait_for_start(entry, early)
        elif isinstance(entry, OrderEntry):
            self._dead(entry, f"there is no run {self.workflow.name}/{entry.key} to {entry.order}")
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

    def broken(self, stored: bytes, error: str) -> Reaction:
        """What is stored cannot be read: the run halts with its bytes kept, the others go on."""
        if self.verdict is None:
            raise HandlerFailed(0, f"the stored snapshot cannot be read ({error})", "", "snapshot")
        halted = Halted(self.verdict.error, self.verdict.where, self.verdict.cause, self.at)
        self.snap = Snapshot(
            run=RunId(""), version=0, state="", data=Raw(b"null"), broken=stored, halted=halted, held=1
        )
        self._record(*_naming(self.entry))
        self.hold = True
        return self._done()

    # -- a run ---------------------------------------------------------------------------------------------------

    def run(self, held: Sequence[Held]) -> Reaction:
        if self.snap.halted is not None:
            return self._halted(held)
        self.behind = 0 if isinstance(self.entry, TickEntry) else 1
        went = self._go(self.entry, self.place.position, self.place.at)
        self.hold = not went and self.behind == 1
        return self._done()

    def _go(self, entry: Entry, position: Position, at: int) -> bool:
        """Timers, the entry, and what follows at once. False: the run halted, and the entry is to be held."""
        if self.snap.state and not self._fire_due(at, position):
            return False
        self.at = at
        if isinstance(entry, TickEntry):
            return True
        try:
            went = self._apply(position, *_naming(entry, self.snap), partial(self._entry, entry), entry)
        except _BadEvent as error:
            self._dead(entry, str(error), at, position)
            return True
        return went and self._settle(position)

    def _done(self) -> Reaction:
        snap = self.snap
        if not snap.run and not snap.broken:  # the start event was no good: there is no run
            return self._waiting(self.early)
        if snap.ended and not snap.calls and snap.halted is None:
            expires = snap.ended + self.rules.retention
            grave = Tombstone(snap.run, snap.ended, expires, snap.seq, snap.state, snap.prev)
            return Reaction(write_stored(grave), self.commands, self.records, self.hold, self.release, expires)
        raw = self.before if self.before is not None else write_stored(snap)
        running = snap.halted is None and any(c.status == "running" for c in snap.calls)
        wakes = 0 if snap.halted is not None else _wakes(snap)
        return Reaction(raw, self.commands, self.records, self.hold, self.release, wakes, running)

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
        """Run one application and record it; `action` answers why it was ignored, or nothing. False: it halted the run."""
        before, old = copy.copy(self.snap), self.before
        state, commands, published = self._state, len(self.commands), self.published
        from_, index = before.state, len(self.records)
        self._made, self.changed, self.published = 0, False, []
        self.snap.seq += 1
        failure: HandlerFailed | None = None
        ignored = ""
        if self.verdict is not None and self.verdict.index == index:
            failure = HandlerFailed(index, self.verdict.error, self.verdict.where, self.verdict.cause)
        else:
            try:
                ignored = action()
                self._record(cause, name, id_, source, from_, ignored, position, entry, old)
            except _BadEvent:
                self.snap, self._state, self.published = before, state, published
                del self.commands[commands:]
                if not before.state:
                    before.run = RunId("")
                raise
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                failure = _failure(index, error, _words(before.state, cause, name, timer))
                if self.verdict is None:
                    raise failure from error
        if failure is None:
            return True
        self.snap, self._state, self.changed, self.published = before, state, False, []
        del self.commands[commands:]
        self.snap.seq += 1
        self.snap.halted = Halted(failure.error, failure.where, failure.cause, self.at)
        self.snap.halted_timer, self.snap.held = timer, self.behind
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
                base = Raw(old if old is not None else b"null")
            snap.code = workflow.code
        raw = write_stored(snap)
        if len(raw) > MAX_SNAPSHOT and snap.halted is None:
            message = f"the snapshot would have {len(raw)} bytes, the limit is {MAX_SNAPSHOT}; keep large data outside the run"
            raise ValueError(message)
        self.before = raw
        calls = tuple(PendingCall(c.id, c.step, c.attempt, c.due, c.status, c.error) for c in snap.calls[:SHOWN_CALLS])
        attempt = entry.attempt if isinstance(entry, ResultEntry | FailureEntry) else 0
        event = entry if isinstance(entry, EventEntry) else None
        order = entry if isinstance(entry, OrderEntry) else None
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
                attempt=attempt,
                took=entry.took if isinstance(entry, ResultEntry | FailureEntry) else 0,
                from_=from_,
                to=snap.state,
                visit=snap.visit,
                since=snap.entered,
                status=_status(snap),
                wakes=0 if snap.halted is not None or snap.ended else _wakes(snap),
                ignored=ignored,
                error=f"{entry.error}: {entry.message}" if isinstance(entry, FailureEntry) else "",
                halted=snap.halted,
                who=order.who if order else "",
                why=order.why if order else "",
                calls=calls,
                more_calls=max(0, len(snap.calls) - SHOWN_CALLS),
                timers=tuple(PendingTimer(f"{t.owner or snap.state}.{t.handler}", t.due) for t in snap.timers),
                published=tuple(self.published),
                data=data,
                fields=fields,
                traceparent=event.traceparent if event else "",
                snapshot=digest_of(raw),
                code=workflow.code,
                base=base,
            )
        )

    def _fire_due(self, until: int, position: Position) -> bool:
        """Every timer due at or before `until`, in order of due time. False: one of them halted the run."""
        while (due := _next_due(self.snap)) is not None and due[0] <= until:
            self.at = max(due[0], self.snap.entered)
            if isinstance(due[1], Pending):
                call = due[1]
                went = self._apply(position, "timer", f"retry {call.step}", call.id, "", partial(self._again, call))
            else:
                timer = due[1]
                name = f"{timer.owner or self.snap.state}.{timer.handler}"
                went = self._apply(position, "timer", name, "", "", partial(self._timer, timer), timer=timer)
            if not (went and self._settle(position)):
                return False
        return True

    def _settle(self, position: Position) -> bool:
        """What a state takes up at once: work over nothing, and events that were kept for it."""
        for _ in range(MAX_AT_ONCE):
            snap = self.snap
            if snap.works and (idle := next((w for w in snap.works if w.size == 0), None)) is not None:
                name = self._spec().works_by_name[idle.work].words
                if not self._apply(position, "result", name, "", "", partial(self._work_done, idle, ())):
                    return False
            elif snap.kept and (kept := self._takes()) is not None:
                if not self._apply(position, *_naming(kept), partial(self._take, kept), kept):
                    return False
            else:
                return True
        reason = f"more than {MAX_AT_ONCE} moves at once without a wait; add a state that waits"
        failure = HandlerFailed(len(self.records), reason, "", self.snap.state)
        if self.verdict is None:
            raise failure
        return self._apply(position, "event", "", "", "", lambda: "")

    def _takes(self) -> EventEntry | None:
        if self.snap.ended:
            return self.snap.kept[0]
        events = self._spec().events
        return next((e for e in self.snap.kept if e.type in events), None)

    def _take(self, entry: EventEntry) -> str:
        self.snap.kept = tuple(e for e in self.snap.kept if e is not entry)
        if self.snap.ended:
            return "no state took this event, which had been kept"
        return self._handle(entry)

    # -- entries -------------------------------------------------------------------------------------------------

    def _entry(self, entry: Entry) -> str:
        if isinstance(entry, ResultEntry):
            return self._result(entry)
        if isinstance(entry, EventEntry):
            return self._event(entry)
        if isinstance(entry, FailureEntry):
            return self._failed(entry)
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
        if snap.state:
            ignored = self._handle(entry)
        else:
            self._start(entry)
            ignored = ""
        self.snap.seen = (*seen[-(MAX_SEEN - 1) :], (self.at, mark))
        return ignored

    def _handle(self, entry: EventEntry) -> str:
        if self.snap.ended:
            return f"the run is finished ({self.snap.state})"
        spec = self._spec()
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
                raise _BadEvent(message)
            return f"{spec.name} does not know {entry.type}"
        event = self._read_event(entry, handler.event or Event)
        self.snap.hops = entry.hops
        self._answer(handler, self._call(handler, self.state(), event))
        return ""

    def _read_event(self, entry: EventEntry, kind: type[Event]) -> Event:
        try:
            return kind.model_validate_json(bytes(entry.data))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"{entry.type} does not fit its schema: {where}: {first['msg']}"
            raise _BadEvent(message) from None

    def _start(self, entry: EventEntry) -> None:
        snap = self.snap
        event = self._read_event(entry, self.workflow.starts_on[entry.type])
        snap.hops, snap.entered = entry.hops, self.at
        starting = self.workflow.starting
        answer = starting.function(event, self._context()) if starting.takes_context else starting.function(event)
        self._answer(starting, answer)

    def _pending(self, entry: ResultEntry | FailureEntry) -> Pending | None:
        if entry.run != self.snap.run:
            return None
        return next((c for c in self.snap.calls if c.id == entry.call), None)

    def _result(self, entry: ResultEntry) -> str:
        call = self._pending(entry)
        if call is None:
            return "late: nobody waits for this call any longer"
        self._drop(call)
        if not call.work:
            return ""
        progress = next(w for w in self.snap.works if w.work == call.work)
        results = (*progress.results, (call.slot, entry.output))
        if len(results) < progress.size:
            self._progress(msgspec.structs.replace(progress, results=results))
            self._start_queued(call.work)
            return ""
        self._work_done(progress, results)
        return ""

    def _drop(self, call: Pending) -> None:
        self.snap.calls = tuple(c for c in self.snap.calls if c is not call)

    def _progress(self, new: Progress) -> None:
        self.snap.works = tuple(new if w.work == new.work else w for w in self.snap.works)

    def _start_queued(self, work: str) -> None:
        queued = next((c for c in self.snap.calls if c.work == work and c.status == "queued"), None)
        if queued is not None:
            self._launch(msgspec.structs.replace(queued, status="running"))

    def _launch(self, call: Pending) -> None:
        """Put `call` in the place of the pending call of its id and have it run."""
        self.snap.calls = tuple(call if c.id == call.id else c for c in self.snap.calls)
        self.commands.append(StartCall(self.snap.run, call.id, call.step, call.input, call.attempt, call.since))

    def _work_done(self, progress: Progress, results: Sequence[tuple[int, Raw]]) -> str:
        spec = self._spec()
        work = spec.works_by_name[progress.work]
        self.snap.works = tuple(w for w in self.snap.works if w.work != progress.work)
        if work.each:
            read = work.steps[0].read_output
            outputs: list[Any] = [tuple(read(bytes(raw)) for _, raw in sorted(results, key=lambda r: r[0]))]
        else:
            outputs = [work.steps[slot].read_output(bytes(raw)) for slot, raw in sorted(results, key=lambda r: r[0])]
        handler = _must(work.done)
        self._answer(handler, self._call(handler, self.state(), *outputs))
        return ""

    def _failed(self, entry: FailureEntry) -> str:
        call = self._pending(entry)
        if call is None:
            return "late: nobody waits for this call any longer"
        if entry.attempt != call.attempt or call.status != "running":
            return f"late: attempt {entry.attempt} was given up before"
        step = self.workflow.steps.get(call.step)
        if step is not None and not entry.final and (wait := self._wait(step, call, entry)) is not None:
            waiting = msgspec.structs.replace(
                call, status="waiting", due=self.at + wait, error=f"{entry.error}: {entry.message}"
            )
            self.snap.calls = tuple(waiting if c is call else c for c in self.snap.calls)
            return ""
        if not call.work:
            gone = msgspec.structs.replace(call, status="failed", error=f"{entry.error}: {entry.message}")
            self.snap.calls = tuple(
                gone if c is call else c for c in self.snap.calls if c is not call or not self.snap.ended
            )
            return ""
        self._drop_work(call.work)
        work = self._spec().works_by_name[call.work]
        failure = StepFailed(
            step=call.step, error=entry.message or entry.error, type=entry.error, attempts=entry.attempt
        )
        handler = _must(work.failed)
        self._answer(handler, self._call(handler, self.state(), failure))
        return ""

    def _wait(self, step: Step[Any, Any], call: Pending, entry: FailureEntry) -> int | None:
        """Log ms until the next attempt; None: there is none."""
        if call.attempt >= step.retry.attempts:
            return None
        wait = int(max(step.retry.wait(call.attempt), entry.wait) * self.place.lapse)
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
        self.commands += [CancelCall(self.snap.run, c.id) for c in calls if c.status == "running"]

    def _again(self, call: Pending) -> str:
        self._launch(msgspec.structs.replace(call, status="running", attempt=call.attempt + 1, due=0))
        return ""

    def _timer(self, timer: Timer) -> str:
        spec = self._spec()
        handler = spec.timers_by_name.get((timer.owner, timer.handler))
        rest = tuple(t for t in self.snap.timers if t is not timer)
        delay = handler.delay if handler is not None and handler.repeats else 0
        again = (msgspec.structs.replace(timer, due=timer.due + delay),) if delay else ()
        self.snap.timers = (*rest, *again)
        self.snap.hops = 0
        if handler is None:
            return f"{spec.name} has no timer {timer.handler} of {timer.owner or spec.name}"
        self._answer(handler, self._call(handler, self.state()))
        return ""

    # -- orders and halts ----------------------------------------------------------------------------------------

    def _order(self, entry: OrderEntry) -> str:
        """An order for a run that is not halted."""
        if entry.order == "cancel":
            return self._end_by_order()
        if entry.order == "retry":
            return self._retry()
        return "the run is not halted"

    def _end_by_order(self) -> str:
        snap = self.snap
        if snap.ended:
            return f"the run is finished ({snap.state})"
        self._cancel(iter(snap.calls))
        snap.calls, snap.works, snap.timers = (), (), ()
        snap.ended = self.at
        snap.halted = snap.halted_timer = None
        snap.held = 0
        return ""

    def _retry(self) -> str:
        again = [c for c in self.snap.calls if c.status in ("waiting", "failed")]
        for call in again:
            self._launch(
                msgspec.structs.replace(call, status="running", attempt=call.attempt + 1, due=0, since=self.at)
            )
        return "" if again else "no call of this run waits for another attempt"

    def _halted(self, held: Sequence[Held]) -> Reaction:
        entry, snap = self.entry, self.snap
        if isinstance(entry, OrderEntry) and entry.order in ("resume", "skip"):
            return self._resume(entry, held)
        if isinstance(entry, OrderEntry) and entry.order == "cancel":
            self._apply(self.place.position, *_naming(entry), self._end_by_order, entry)
            self._leave_out(held, "the run was cancelled")
            return self._done()
        if isinstance(entry, TickEntry):
            return self._done()
        snap.held += 1
        self.hold = True
        self._apply(self.place.position, *_naming(entry, snap), lambda: "held: the run is halted", entry)
        return self._done()

    def _leave_out(self, held: Sequence[Held], why: str) -> None:
        for item in held:
            self._apply(item.position, *_naming(item.entry, self.snap), lambda: why, item.entry)
        self.release += len(held)

    def _resume(self, order: OrderEntry, held: Sequence[Held]) -> Reaction:
        if self.snap.broken:
            return self._mend(held)
        skipped = self.snap.halted_timer
        self._apply(self.place.position, *_naming(order), partial(self._lift, order), order)
        self._state = None
        if order.order == "skip" and skipped is None and held:
            self._leave_out(held[:1], "left out by an order")
            held = held[1:]
        for done, item in enumerate(held):
            self.behind = len(held) - done
            if not self._go(item.entry, item.position, item.at):
                return self._done()
            self.release += 1
        self.behind = 0
        self._fire_due(self.place.at, self.place.position)
        return self._done()

    def _lift(self, order: OrderEntry) -> str:
        snap = self.snap
        timer = snap.halted_timer
        snap.halted = snap.halted_timer = None
        snap.held = 0
        if order.order == "skip" and timer is not None:
            handler = self._spec().timers_by_name.get((timer.owner, timer.handler))
            again = handler.delay if handler is not None and handler.repeats else 0
            rest = tuple(t for t in snap.timers if t != timer)
            snap.timers = (*rest, msgspec.structs.replace(timer, due=timer.due + again)) if again else rest
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
        self.snap = known
        return self._resume(self.entry, held) if isinstance(self.entry, OrderEntry) else self._done()

    # -- states --------------------------------------------------------------------------------------------------

    def _spec(self) -> StateSpec:
        try:
            return self.workflow.specs[self.snap.state]
        except KeyError:
            if self.snap.state in self.workflow.migrate:
                self.state()
                return self.workflow.specs[self.snap.state]
            message = f"workflow {self.workflow.name!r} version {self.workflow.version} has no state {self.snap.state}"
            raise UnreadableSnapshot(message) from None

    def state(self) -> State:
        """The state as its class reads it; migrated when an older version wrote it."""
        if self._state is None:
            snap = self.snap
            if snap.version != self.workflow.version and snap.state in self.workflow.migrate:
                self._migrate()
            else:
                try:
                    self._state = self._spec().read(bytes(snap.data))
                except ValidationError as error:
                    message = f"state {snap.state} as version {snap.version} stored it does not fit this code: {error}"
                    raise UnreadableSnapshot(message) from None
                snap.version = self.workflow.version
        if self._state is None:
            message = f"migrate={self.snap.state!r} answered with no state"
            raise UnreadableSnapshot(message)
        return self._state

    def _migrate(self) -> None:
        snap = self.snap
        state = self.workflow.migrate[snap.state](json.loads(bytes(snap.data)))
        spec = self.workflow.specs[type(state).__name__]
        snap.state, snap.data, snap.version = spec.name, Raw(spec.write(state)), self.workflow.version
        self._state, self.changed = state, True

    def _context(self) -> Context:
        snap = self.snap
        return Context(self.entry.key, snap.run, self.at, snap.entered, snap.seq)

    def _call(self, handler: Handler, *arguments: Any) -> Any:
        if handler.takes_context:
            return handler.function(*arguments, self._context())
        return handler.function(*arguments)

    def _answer(self, handler: Handler, answer: Any) -> None:
        """Check an answer against its annotation and carry it out."""
        if isinstance(answer, State):
            _check_target(handler, answer)
            self._move(answer)
            return
        following: State | None = None
        others: list[Call[Any] | Publish] = []
        for part in flat((answer,)):
            if isinstance(part, State) and following is None:
                _check_target(handler, part)
                following = part
            elif (isinstance(part, Call) and handler.calls) or (isinstance(part, Publish) and handler.publishes):
                others.append(part)
            else:
                raise TypeError(_not_allowed(handler, part))
        for part in others:
            self._emit(part)
        if following is not None:
            self._move(following)

    def _emit(self, part: Call[Any] | Publish) -> None:
        if isinstance(part, Call):
            self._make(part.step, part.step.write_input(part.input))
        else:
            self._publish(part)

    def _make(self, step: Step[Any, Any], raw: bytes, work: str = "", slot: int = 0, *, queued: bool = False) -> None:
        snap = self.snap
        id_ = CallId(f"{snap.seq}.{self._made}")
        self._made += 1
        call = Pending(id_, step.name, Raw(raw), self.at, work, slot, status="queued" if queued else "running")
        snap.calls = (*snap.calls, call)
        if not queued:
            self.commands.append(StartCall(snap.run, id_, step.name, call.input, 1, self.at))

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
            self._state, snap.data, self.changed = new, Raw(spec.write(new)), True
            if spec.moments:
                self._set_moments(spec)
            return
        self._enter(spec, new)

    def _enter(self, spec: StateSpec, new: State) -> None:
        snap = self.snap
        if snap.calls:
            self._cancel(c for c in snap.calls if c.work)
            snap.calls = tuple(c for c in snap.calls if not c.work)
        snap.works = ()
        snap.state, snap.data, snap.entered = spec.name, Raw(spec.write(new)), self.at
        snap.visit += 1
        self._state, self.changed = new, True
        entered = self._regroup(spec)
        if spec.final:
            snap.timers, snap.ended = (), self.at
            snap.calls = tuple(c for c in snap.calls if c.status != "failed")
        for handler in spec.enters:
            if not handler.owner or handler.owner in entered:
                for part in flat((self._call(handler, new),)):
                    if not isinstance(part, Call | Publish):
                        raise TypeError(_not_allowed(handler, part))
                    self._emit(part)
        for work in spec.works:
            self._start_work(work, new)

    def _regroup(self, spec: StateSpec) -> frozenset[str]:
        """Leave the superstates that the state is not in, enter those that are new; answers with the new ones."""
        snap = self.snap
        if not (snap.groups or spec.groups or snap.timers or spec.timers or spec.moments):
            return frozenset()
        stayed = {g.name for g in snap.groups if g.name in spec.groups}
        entered = frozenset(g for g in spec.groups if g not in stayed)
        old = {g.name: g for g in snap.groups}
        snap.groups = tuple(old[g] if g in stayed else Group(g, snap.visit, self.at) for g in spec.groups)
        timers = [t for t in snap.timers if t.owner in stayed]
        for group in spec.groups:
            if group in entered:
                timers += [Timer(self.at + h.delay, h.name, group) for h in spec.group_timers[group]]
        timers += [Timer(self.at + h.delay, h.name) for h in spec.timers if not h.owner]
        snap.timers = tuple(timers)
        if spec.moments:
            self._set_moments(spec)
        return entered

    def _set_moments(self, spec: StateSpec) -> None:
        state = self.state()
        names = {(m.owner, m.name) for m in spec.moments}
        timers = [t for t in self.snap.timers if (t.owner, t.handler) not in names]
        for m in spec.moments:
            when = m.when(state, self._context()) if m.when_takes_context else m.when(state)
            if when is not None:
                timers.append(Timer(milliseconds(when), m.name, m.owner))
        self.snap.timers = tuple(timers)

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
        for slot, (step, value) in enumerate(zip(work.steps, inputs, strict=True)):
            self._make(step, step.write_input(value), work.name, slot)
        self.snap.works = (*self.snap.works, Progress(work.name, len(work.steps)))


def _must(handler: Handler | None) -> Handler:
    assert handler is not None  # noqa: S101 - the definition was checked
    return handler


def _naming(entry: Entry, snap: Snapshot | None = None) -> tuple[Cause, str, str, str]:
    """(cause, name, id, source) of an entry, as its record tells it."""
    if isinstance(entry, ResultEntry | FailureEntry):
        calls = snap.calls if snap is not None else ()
        step = next((c.step for c in calls if c.id == entry.call), "")
        return ("result" if isinstance(entry, ResultEntry) else "failure"), step, entry.call, ""
    if isinstance(entry, EventEntry):
        return "event", entry.type, entry.id, entry.source
    if isinstance(entry, OrderEntry):
        return "order", entry.order, "", ""
    return "timer", "tick", "", ""


def _words(state: str, cause: str, name: str, timer: Timer | None) -> str:
    return f"timer {name}" if timer else f"{cause} {name} in {state or 'start'}".replace("  ", " ")


def _failure(index: int, error: BaseException, cause: str) -> HandlerFailed:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "/engine/core/" not in f.filename.replace("\\", "/")), None)
    where = f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno} in {last.name}" if last else ""
    text = str(error)
    return HandlerFailed(index, f"{type(error).__name__}: {text}" if text else type(error).__name__, where, cause)


def _check_target(handler: Handler, answer: State) -> None:
    if type(answer) not in handler.targets:
        raise TypeError(_not_allowed(handler, answer))


def _not_allowed(handler: Handler, part: Any) -> str:
    allowed = [t.__name__ for t in handler.order] + ["Call"] * handler.calls + ["Publish"] * handler.publishes
    answer = "nothing" if part is None else type(part).__name__
    return f"{handler.name} answered with {answer}, but its annotation says {' | '.join(allowed)}"


def _status(snap: Snapshot) -> Status:
    if snap.halted is not None:
        return "halted"
    if snap.ended:
        return "finished"
    return "running" if any(c.status == "running" for c in snap.calls) else "waiting"


def _wakes(snap: Snapshot) -> int:
    due = _next_due(snap)
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
