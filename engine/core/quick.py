"""A short way through the fold for what nearly every entry is.

A start event, or the one result that a state waits for, that leads to a plain state: no timers, superstates, kept
events or halts, one step at most. `engine.core.fold` does the same for every case, and what it does is what counts:
whatever is not plain here, and whatever raises, is answered with None and goes there. So a handler may run twice, which
is harmless, since it is pure. `tests/core/test_quick.py` holds both ways together, byte for byte.

Most of the long way's time goes into cases that do not arise here: this is what makes a flood fast.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from engine.core.definition import StateSpec, Workflow
from engine.core.entry import EventEntry, ResultEntry
from engine.core.episode import begin
from engine.core.errors import HandlerTimeout
from engine.core.ids import CallId
from engine.core.model import State
from engine.core.reaction import MAX_SNAPSHOT, Command, Place, Reaction, Rules, StartCall, digest_of, event_hash, run_id
from engine.core.record import NOTHING, Cause, Group, PendingCall, Record
from engine.core.snapshot import Pending, Progress, Snapshot, grave_of, write_stored
from engine.core.trace import attempt_parent, episode_trace

_PASSED_ON = (HandlerTimeout, KeyboardInterrupt, GeneratorExit)


def quick_start(workflow: Workflow[Any], entry: EventEntry, place: Place, rules: Rules) -> Reaction | None:
    """The first entry of a run; None: take the long way."""
    kind, starting = workflow.starts_on.get(entry.type), workflow.starting
    if kind is None or starting.takes_context or workflow.content:
        return None
    try:
        answer = starting.function(kind.__pydantic_validator__.validate_json(bytes(entry.data)))
        spec = _plain_target(workflow, type(answer), starting.targets)
        if spec is None:
            return None
        snap = Snapshot(
            run=run_id(workflow.name, entry.key, place.partition, place.position),
            version=workflow.version,
            state="",
            data=NOTHING,
            hops=entry.hops,
            hopped=place.at if entry.hops else 0,
            seen=((place.at, event_hash(entry.source, entry.id)),),
            began=place.at,
        )
        return _moved(workflow, snap, spec, answer, entry, place, rules, "event", entry.type, entry.id)
    except _PASSED_ON:
        raise
    except BaseException:  # noqa: BLE001 - the long way raises it again, and makes a verdict of it
        return None


def quick_result(
    workflow: Workflow[Any], snap: Snapshot, entry: ResultEntry, place: Place, rules: Rules
) -> Reaction | None:
    """The result that a state waits for; None: take the long way."""
    if len(snap.calls) != 1 or len(snap.works) != 1 or workflow.content or not _at_rest(workflow, snap):
        return None
    call, progress = snap.calls[0], snap.works[0]
    if call.id != entry.call or snap.run != entry.run or call.status != "running" or call.attempt != entry.attempt:
        return None
    if call.kept or call.reserved:
        return None
    if progress.size != 1 or progress.work != call.work or workflow.steps[call.step].model:
        return None
    try:
        spec = workflow.specs[snap.state]
        work = spec.works_by_name[call.work]
        handler = work.done
        if handler is None or handler.takes_context or work.limit:
            return None
        output = work.steps[0].read_output(bytes(entry.output))
        answer = handler.function(spec.read(bytes(snap.data)), output)
        new = _plain_target(workflow, type(answer), handler.targets)
        if new is None or new is spec:
            return None
        return _moved(workflow, snap, new, answer, entry, place, rules, "result", call.step, call.id)
    except _PASSED_ON:
        raise
    except BaseException:  # noqa: BLE001 - the long way raises it again, and makes a verdict of it
        return None


def _at_rest(workflow: Workflow[Any], snap: Snapshot) -> bool:
    return not (
        snap.timers
        or snap.groups
        or snap.kept
        or snap.ended
        or snap.halted is not None
        or snap.held
        or snap.broken
        or snap.version != workflow.version
        or snap.code != workflow.code
        or snap.taken
        or snap.spent is not None
    )


def _plain_target(workflow: Workflow[Any], kind: type[Any], targets: frozenset[type[State]]) -> StateSpec | None:
    """The state that an answer of this class leads to, if the answer is allowed and the state is plain."""
    if kind not in targets:
        return None
    spec = workflow.specs[kind.__name__]
    return spec if spec.plain else None


def _moved(
    workflow: Workflow[Any],
    before: Snapshot,
    spec: StateSpec,
    state: State,
    entry: EventEntry | ResultEntry,
    place: Place,
    rules: Rules,
    cause: Cause,
    name: str,
    id_: str,
) -> Reaction | None:
    """Enter a plain state, and record it."""
    at, position, seq = place.at, place.position, before.seq + 1
    if isinstance(entry, EventEntry):
        source, attempt, started, took, spans = entry.source, 0, 0, 0, NOTHING
        traceparent, tracestate, baggage = entry.traceparent, entry.tracestate, entry.baggage
    else:
        source, attempt, started, took, spans = "", entry.attempt, entry.started, entry.took, entry.spans
        traceparent = tracestate = baggage = ""
    episode = before.episode or begin(before, at, cause, name, id_, source, entry)
    data = Raw(spec.write(state))
    commands: list[Command] = []
    calls: tuple[Pending, ...] = ()
    works: tuple[Progress, ...] = ()
    shown: tuple[PendingCall, ...] = ()
    for work in spec.works:
        step = work.steps[0]
        call, value = CallId(f"{seq}.0"), Raw(step.write_input(work.inputs(state)))
        calls = (Pending(call, step.name, value, at, work.name),)
        works = (Progress(work.name, 1),)
        shown = (PendingCall(call, step.name),)
        trace = attempt_parent(episode_trace(before.run, episode), before.run, call, 1)
        carried = episode.tracestate, episode.baggage
        commands.append(StartCall(before.run, call, step.name, value, 1, at, 0, 0, False, trace, *carried))
    snap = Snapshot(
        run=before.run,
        version=before.version,
        code=workflow.code,
        state=spec.name,
        data=data,
        visit=before.visit + 1,
        seq=seq,
        entered=at,
        ended=at if spec.final else 0,
        calls=calls,
        works=works,
        seen=before.seen,
        hops=before.hops,
        hopped=before.hopped,
        prev=f"{position}/0",
        began=before.began,
        episode=episode if calls else None,
    )
    raw = write_stored(snap)
    if len(raw) > MAX_SNAPSHOT:
        return None
    record = Record(
        workflow=workflow.name,
        key=entry.key,
        run=before.run,
        version=before.version,
        seq=seq,
        at=at,
        entry=position,
        prev=before.prev,
        cause=cause,
        name=name,
        id=id_,
        source=source,
        attempt=attempt,
        took=took,
        from_=before.state,
        to=spec.name,
        visit=snap.visit,
        since=at,
        status="finished" if spec.final else "running" if calls else "waiting",
        calls=shown,
        data=data,
        fields=spec.fields(state),
        traceparent=traceparent,
        snapshot=digest_of(raw),
        code=workflow.code,
        episode=episode,
        ends=not calls,
        began=(before.began or before.entered) if spec.final else 0,
        left=(Group(before.state, before.visit, before.entered),) if before.state else (),
        started=started,
        starts=len(calls),
    )
    if spans is not NOTHING or tracestate or baggage:  # rare, and every keyword of a struct takes time
        record = msgspec.structs.replace(record, spans=spans, tracestate=tracestate, baggage=baggage)
    if not spec.final:
        return Reaction(raw, commands, [record], running=bool(calls))
    grave = grave_of(snap, rules.retention)
    return Reaction(write_stored(grave), commands, [record], wakes=grave.expires)
