"""The fold's side of halts and orders: what an operator says to a run, and what a halted one goes on with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from engine.core import asking, episode, moving, spending, working
from engine.core.entry import Entry, FailureEntry, KeptEntry, OrderEntry, QuestionEntry, TickEntry
from engine.core.errors import UnreadableSnapshot
from engine.core.ids import CallId
from engine.core.reaction import Forget, Held, Reaction, StartCall
from engine.core.snapshot import FORMAT, Snapshot, read_stored
from engine.core.telling import HELD, naming

if TYPE_CHECKING:
    from engine.core.fold import Fold


def obey(fold: Fold, entry: OrderEntry) -> str:
    """An order for a run that is not halted."""
    if entry.order == "cancel":
        return end_by_order(fold)
    if entry.order == "retry":
        return retry(fold)
    if entry.order == "take":
        return asking.take(fold, entry.who)
    if entry.order == "release":
        return asking.release(fold)
    return "the run is not halted"


def end_by_order(fold: Fold) -> str:
    snap = fold.snap
    if snap.ended and snap.halted is None:
        return f"the run is finished ({snap.state})"
    working.cancel(fold, iter(snap.calls))
    if snap.broken:
        fold.commands.append(Forget(snap.run, CallId("")))
    snap.calls, snap.works, snap.timers = (), (), ()
    snap.ended = snap.ended or fold.at
    snap.halted = snap.halted_timer = None
    snap.held = 0
    return ""


def retry(fold: Fold) -> str:
    again = [c for c in fold.snap.calls if c.status in ("waiting", "failed")]
    for call in again:
        new = msgspec.structs.replace(call, attempt=call.attempt + 1, due=0, since=fold.at)
        step = fold.workflow.steps.get(call.step)
        if step is not None and step.question is not None:
            working.ask_run(fold, step, msgspec.structs.replace(new, error=""))
        else:
            fold.pay(new)
    return "" if again else "no call of this run waits for another attempt"


def while_halted(fold: Fold, held: Sequence[Held]) -> Reaction:
    entry, snap = fold.entry, fold.snap
    if isinstance(entry, OrderEntry) and entry.order in ("resume", "skip"):
        return resume(fold, entry, held)
    if isinstance(entry, OrderEntry) and entry.order == "cancel":
        fold.apply(fold.place.position, *naming(entry), partial(end_by_order, fold), entry)
        leave_out(fold, held, "the run was cancelled")
        fold.settle(fold.place.position)
        return fold.done()
    if isinstance(entry, TickEntry):
        return fold.done()
    snap.held += 1
    fold.hold = True
    fold.apply(fold.place.position, *naming(entry, snap), lambda: HELD, entry)
    return fold.done()


def leave_out(fold: Fold, held: Sequence[Held], why: str) -> None:
    for item in held:
        fold.apply(item.position, *naming(item.entry, fold.snap), partial(left_out, fold, item.entry, why), item.entry)
        if isinstance(item.entry, QuestionEntry):
            asking.refuse(fold, item.entry, "RunFinished" if fold.snap.ended else "NotAnswered", why)
    fold.release += len(held)


def left_out(fold: Fold, entry: Entry, why: str) -> str:
    """What a model took was paid for all the same."""
    if isinstance(entry, KeptEntry):
        spending.use(fold, entry.used, None)
    return why


def resume(fold: Fold, order: OrderEntry, held: Sequence[Held]) -> Reaction:
    if fold.snap.broken or not fold.snap.run:
        return mend(fold, held)
    halted, timer = fold.snap.halted, fold.snap.halted_timer
    fold.behind = len(held)
    if not fold.apply(fold.place.position, *naming(order), partial(lift, fold, order), order):
        return fold.done()
    fold.known_state = None
    if timer is None and fold.at_once() is None:  # so the first of those held has halted the run
        fold.resumed = order.order
    if halted is not None:
        fold.at = halted.at
    if order.order == "skip" and timer is None:
        held = skip(fold, held)
    if fold.settle(fold.place.position):
        fold_held(fold, held)
    begin_again(fold)
    return fold.done()


def begin_again(fold: Fold) -> None:
    """Start what was in flight when the run halted: an engine that was started meanwhile has left it alone."""
    started = {c.id for c in fold.commands if isinstance(c, StartCall)}
    snap = fold.snap
    for call in snap.calls if snap.halted is None else ():
        if call.status == "running" and call.id not in started:
            again = working.start_of(snap, call, episode.trace_of(snap))
            fold.commands.append(msgspec.structs.replace(again, again=True))


def fold_held(fold: Fold, held: Sequence[Held]) -> None:
    for done, item in enumerate(held):
        fold.behind = len(held) - done
        fold.release += fold.go(item.entry, item.position, item.at)
        fold.resumed = ""
        if fold.snap.halted is not None:
            return
    fold.behind = 0
    fold.fire_due(fold.place.at, fold.place.position)


def skip(fold: Fold, held: Sequence[Held]) -> Sequence[Held]:
    """Leave out what halted the run; answers with what is still to be folded."""
    why = "left out by an order"
    if not fold.snap.state:
        kept, fold.snap.kept = fold.snap.kept, ()
        leave_out(fold, held[:1], why)
        for event in kept:
            fold.dead(event, "the run that it waited for was left out by an order")
        for item in held[1:]:
            if isinstance(item.entry, QuestionEntry):
                asking.refuse(fold, item.entry, "NoRun", "the run was left out by an order")
            else:
                lost = "the run that it waited for was left out by an order"
                fold.dead(item.entry, lost, item.at, item.position)
        fold.release = len(held)
        return ()
    if (move := fold.at_once()) is not None:
        fold.take_up(move, fold.place.position, why)
        return held
    if held and isinstance(held[0].entry, FailureEntry) and held[0].entry.halts:
        return held  # folded again as a call that is given up
    leave_out(fold, held[:1], why)
    fold.behind = len(held[1:])
    return held[1:]


def lift(fold: Fold, order: OrderEntry) -> str:
    snap = fold.snap
    timer = snap.halted_timer
    snap.halted = snap.halted_timer = None
    snap.held = 0
    if order.order != "skip":
        return ""
    if timer is not None:
        snap.timers = (*(t for t in snap.timers if t != timer), *moving.next_of(fold, timer))
    elif not snap.state:
        snap.ended = fold.at
    return ""


def mend(fold: Fold, held: Sequence[Held]) -> Reaction:
    """Try again to read what could not be read."""
    raw = fold.snap.broken
    try:
        known = read_stored(raw)
        if type(known) is not Snapshot or known.v > FORMAT:
            message = f"{type(known).__name__} of form {getattr(known, 'v', 0)}"
            raise UnreadableSnapshot(message)  # noqa: TRY301 - one place to say so
    except (msgspec.DecodeError, UnicodeDecodeError, UnreadableSnapshot) as error:
        why = f"the stored snapshot still cannot be read ({error})"
        fold.apply(fold.place.position, *naming(fold.entry), lambda: why, fold.entry)
        return fold.done()
    known.halted = fold.snap.halted
    if fold.snap.seq > known.seq:
        known.seq, known.prev = fold.snap.seq, fold.snap.prev
    fold.snap = known
    return resume(fold, fold.entry, held) if isinstance(fold.entry, OrderEntry) else fold.done()
