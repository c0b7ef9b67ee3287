"""The fold's side of states: entered and left, with their timers; brought up from an older version."""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from pydantic import ValidationError

from engine.core import working
from engine.core.context import milliseconds
from engine.core.definition import Handler, MomentSpec, StateSpec, flat
from engine.core.errors import UnreadableSnapshot
from engine.core.model import Publish, State
from engine.core.record import Group
from engine.core.snapshot import Timer
from engine.core.steps import Call

if TYPE_CHECKING:
    from engine.core.fold import Fold


def move(fold: Fold, new: State) -> None:
    spec = fold.workflow.specs[type(new).__name__]
    snap = fold.snap
    if snap.state == spec.name:
        old, fold.known_state = fold.known_state, new
        snap.data, fold.changed = Raw(spec.write(new)), True
        if spec.moments:
            set_moments(fold, spec, new, old, {"", *spec.groups})
        return
    enter(fold, spec, new)


def enter(fold: Fold, spec: StateSpec, new: State) -> None:
    snap = fold.snap
    if snap.calls:
        working.cancel(fold, (c for c in snap.calls if c.work))
        snap.calls = tuple([c for c in snap.calls if not c.work])
    snap.works, snap.taken = (), ""
    snap.state, snap.data, snap.entered = spec.name, Raw(spec.write(new)), fold.at
    snap.visit += 1
    old, fold.known_state, fold.changed = fold.known_state, new, True
    entered = regroup(fold, spec, new, old)
    if spec.final:
        snap.timers, snap.ended = (), fold.at
        for call in snap.calls:
            if call.status == "failed":
                working.end(fold, call)
        snap.calls = tuple(c for c in snap.calls if c.status != "failed")
    for handler in spec.enters:
        if not handler.owner or handler.owner in entered:
            for part in flat((fold.call_handler(handler, new),)):
                if not isinstance(part, Call | Publish):
                    raise TypeError(not_allowed(handler, part))
                fold.emit(part)
    for work in spec.works:
        working.start_work(fold, work, new)


def regroup(fold: Fold, spec: StateSpec, new: State, old: State | None) -> frozenset[str]:
    """Leave the superstates that the state is not in, enter those that are new; answers with the new ones."""
    snap = fold.snap
    if not (snap.groups or spec.groups or snap.timers or spec.timers or spec.moments):
        return frozenset()
    stayed = {g.name for g in snap.groups if g.name in spec.groups}
    entered = frozenset(g for g in spec.groups if g not in stayed)
    known = {g.name: g for g in snap.groups}
    snap.groups = tuple(known[g] if g in stayed else Group(g, snap.visit, fold.at) for g in spec.groups)
    timers = [t for t in snap.timers if t.owner in stayed]
    for group in spec.groups:
        if group in entered:
            timers += [Timer(fold.at + h.delay, h.name, group) for h in spec.group_timers[group]]
    timers += [Timer(fold.at + h.delay, h.name) for h in spec.timers if not h.owner]
    snap.timers = tuple(timers)
    if spec.moments:
        set_moments(fold, spec, new, old, stayed)
    return entered


def set_moments(fold: Fold, spec: StateSpec, new: State, old: State | None, stayed: AbstractSet[str]) -> None:
    """The `@at` timers of new data. One that is over and says what it said before has fired: it is left alone."""
    timers = list(fold.snap.timers)
    for m in spec.moments:
        due = due_at(fold, m, new)
        known = old is not None and m.owner in stayed
        if old is not None and known and due is not None and due <= fold.at and due == due_at(fold, m, old):
            continue
        timers = [t for t in timers if (t.owner, t.handler) != (m.owner, m.name)]
        if due is not None:
            timers.append(Timer(max(due, fold.at), m.name, m.owner))
    fold.snap.timers = tuple(timers)


def due_at(fold: Fold, moment: MomentSpec, state: State) -> int | None:
    """What an `@at` method says, log ms."""
    when = moment.when(state, fold.context()) if moment.when_takes_context else moment.when(state)
    return None if when is None else milliseconds(when)


def fire(fold: Fold, timer: Timer) -> str:
    bring_up_to_date(fold)
    spec = fold.spec()
    handler = spec.timers_by_name.get((timer.owner, timer.handler))
    rest = tuple(t for t in fold.snap.timers if t is not timer)
    fold.snap.timers = (*rest, *next_of(fold, timer))
    if timer.due > fold.snap.hopped:  # an `@at` that is due at once goes on with a circle of events
        fold.snap.hops = fold.snap.hopped = 0
    if handler is None:
        return f"{spec.name} has no timer {timer.handler} of {timer.owner or spec.name}"
    fold.answer(handler, fold.call_handler(handler, fold.state()))
    return ""


def next_of(fold: Fold, timer: Timer) -> tuple[Timer, ...]:
    """The same timer again, when it repeats; a superstate's goes on in a state that overrides it."""
    spec = fold.workflow.specs.get(fold.snap.state)
    found = spec.timers_by_name.get((timer.owner, timer.handler)) if spec else None
    if found is None and spec is not None:
        found = next((h for h in spec.group_timers.get(timer.owner, ()) if h.name == timer.handler), None)
    if found is None or not found.repeats:
        return ()
    return (msgspec.structs.replace(timer, due=timer.due + found.delay),)


def bring_up_to_date(fold: Fold) -> None:
    """Bring what another version stored up to this one, before anything looks at the state."""
    snap, now = fold.snap, fold.workflow.version
    if snap.version == now or not snap.state or snap.ended:
        return
    before = snap.state
    if snap.version < now and before in fold.workflow.migrate:
        new = fold.workflow.migrate[before](json.loads(bytes(snap.data)))
        spec = fold.workflow.specs.get(type(new).__name__)
        if spec is None or spec.type is not type(new):
            message = f"migrate[{before!r}] answered with {type(new).__name__}, which is not in states="
            raise UnreadableSnapshot(message)
        snap.state, snap.data = spec.name, Raw(spec.write(new))
        fold.known_state, fold.changed = new, True
    else:
        fold.known_state = read_state(fold)
    snap.version = now
    carry_over(fold, before, fold.known_state)


def carry_over(fold: Fold, before: str, state: State) -> None:
    """Timers and work of a state that another version entered, as this one would have them.

    What is still there goes on. A timer that is new is set, counted from when the state was entered; one that is
    missing may have fired already, so it is set only when it repeats, leads on or is not due yet.
    """
    snap, spec = fold.snap, fold.spec()
    known = {g.name: g for g in snap.groups}
    snap.groups = tuple(known.get(g) or Group(g, snap.visit, snap.entered) for g in spec.groups)
    entered = {g.name: g.entered for g in (*known.values(), *snap.groups)}
    due = {(h.owner, h.name): (h, entered.get(h.owner, snap.entered) + h.delay) for h in spec.timers}
    due |= {
        (m.owner, m.name): (m.due, at) for m in spec.moments if m.due and (at := due_at(fold, m, state)) is not None
    }
    timers = {(t.owner, t.handler): t for t in snap.timers if (t.owner, t.handler) in due}
    for name, (handler, at) in due.items():
        if handler.repeats:
            at += max(0, -((at - fold.at) // handler.delay)) * handler.delay  # noqa: PLW2901 - the next one
        if name not in timers and (at > fold.at or handler.repeats or handler.targets - {spec.type}):
            timers[name] = Timer(max(at, fold.at), name[1], name[0])
    snap.timers = tuple(timers.values())
    for work in snap.works:
        if work.work not in spec.works_by_name:
            working.drop_work(fold, work.work)
    if before != spec.name:
        going = {w.work for w in snap.works}
        for new in spec.works:
            if new.name not in going:
                working.start_work(fold, new, state)


def read_state(fold: Fold) -> State:
    snap = fold.snap
    try:
        return fold.spec().read(bytes(snap.data))
    except ValidationError as error:
        message = f"state {snap.state} as version {snap.version} stored it does not fit this code: {error}"
        raise UnreadableSnapshot(message) from None


def check_target(handler: Handler, answer: State) -> None:
    if type(answer) not in handler.targets:
        raise TypeError(not_allowed(handler, answer))


def not_allowed(handler: Handler, part: Any) -> str:
    allowed = [t.__name__ for t in handler.order] + ["Call"] * handler.calls + ["Publish"] * handler.publishes
    answer = "nothing" if part is None else type(part).__name__
    return f"{handler.name} answered with {answer}, but its annotation says {' | '.join(allowed)}"
