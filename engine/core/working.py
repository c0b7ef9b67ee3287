"""The fold's side of steps: calls made, their results and failures, what a state's work comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from engine.core import episode, spending
from engine.core.definition import Handler, WorkSpec
from engine.core.entry import Asker, FailureEntry, ResultEntry
from engine.core.ids import CallId
from engine.core.model import State
from engine.core.reaction import AskRun, CancelCall, Forget, StartCall
from engine.core.record import PendingCall
from engine.core.snapshot import Pending, Progress, Snapshot
from engine.core.steps import Step, StepHalts

if TYPE_CHECKING:
    from engine.core.fold import Fold


MAX_FAILED = 100
NOBODY = ("NoRun", "RunFinished")
"""Why a question has no answer that `otherwise` stands in for."""


def must(handler: Handler | None) -> Handler:
    assert handler is not None  # noqa: S101 - the definition was checked
    return handler


def result(fold: Fold, entry: ResultEntry) -> str:
    call = fold.pending(entry.run, entry.call)
    if call is None:
        if entry.call.endswith(spending.RESERVE):
            return spending.granted(fold, entry)
        return "late: nobody waits for this call any longer"
    if call.status == "asked":
        fold.told = _of_the_asking(call)
    elif call.status != "running" or entry.attempt != call.attempt:
        fold.told = {"again": True}
        fold.dropped += episode.dropped(iter((call,)))
    return done_with(fold, call, entry.output)


def _of_the_asking(call: Pending) -> dict[str, Any]:
    """Who answers knows neither how often nor where in the trace this was asked."""
    return {"attempt": call.attempt, "traceparent": call.asked}


def done_with(fold: Fold, call: Pending, output: Raw) -> str:
    drop(fold, call)
    if not call.work:
        return ""
    progress = next(w for w in fold.snap.works if w.work == call.work)
    results = (*progress.results, (call.slot, output))
    if len(results) < progress.size:
        advance(fold, msgspec.structs.replace(progress, results=results))
        start_queued(fold, call.work)
        return ""
    work_done(fold, progress, results)
    return ""


def end(fold: Fold, call: Pending) -> None:
    """A call is done with: what it kept is not needed any more, what was reserved for it is settled."""
    if call.kept:
        fold.commands.append(Forget(fold.snap.run, call.id))
    if call.reserved:
        spending.settle(fold, call)
    if call.asks is not None:
        spending.unsay(fold, call)


def drop(fold: Fold, call: Pending) -> None:
    end(fold, call)
    fold.snap.calls = tuple([c for c in fold.snap.calls if c is not call])


def advance(fold: Fold, new: Progress) -> None:
    fold.snap.works = tuple(new if w.work == new.work else w for w in fold.snap.works)


def start_queued(fold: Fold, work: str) -> None:
    queued = next((c for c in fold.snap.calls if c.work == work and c.status == "queued"), None)
    if queued is not None:
        fold.pay(queued)


def work_done(fold: Fold, progress: Progress, results: Sequence[tuple[int, Raw]]) -> str:
    spec = fold.spec()
    work = spec.works_by_name[progress.work]
    fold.snap.works = tuple([w for w in fold.snap.works if w.work != progress.work])
    if work.each:
        read = work.steps[0].read_output
        outputs: list[Any] = [tuple(read(bytes(raw)) for _, raw in sorted(results, key=lambda r: r[0]))]
    else:
        ordered = results if len(results) == 1 else sorted(results, key=lambda r: r[0])
        outputs = [work.steps[slot].read_output(bytes(raw)) for slot, raw in ordered]
    handler = must(work.done)
    fold.answer(handler, fold.call_handler(handler, fold.state(), *outputs))
    return ""


def fail(fold: Fold, entry: FailureEntry) -> str:
    call = fold.pending(entry.run, entry.call)
    if call is None:
        if entry.call.endswith(spending.RESERVE):
            return spending.refused(fold, entry, f"{entry.error}: {entry.message}")
        return "late: nobody waits for this call any longer"
    if call.status != "asked" and (entry.attempt != call.attempt or call.status != "running"):
        return f"late: attempt {entry.attempt} was given up before"
    if call.status == "asked":
        fold.told = _of_the_asking(call)
    step = fold.workflow.steps.get(call.step)
    if entry.halts:
        if fold.resumed == "resume":
            fold.launch(msgspec.structs.replace(call, attempt=call.attempt + 1))
            return ""
        if fold.resumed != "skip":
            message = f"{call.step}: {entry.message}; mend it, then `longwatch resume`"
            raise StepHalts(message)
    elif step is not None and step.otherwise is not None and entry.error in NOBODY:
        return done_with(fold, call, Raw(step.write_output(step.otherwise)))
    elif step is not None and not entry.final and (wait := pause(fold, step, call, entry)) is not None:
        waiting = msgspec.structs.replace(
            call,
            status="waiting",
            due=fold.at + wait,
            error=f"{entry.error}: {entry.message}",
            failures=call.failures + (not entry.outage),
            outages=call.outages + entry.outage,
        )
        fold.put(waiting)
        return ""
    fold.lost(call, entry.error, entry.message)
    return ""


def give_up(fold: Fold, gone: Pending) -> None:
    """A call that nobody waits for has failed: it stays to be seen and retried, the last hundred of them."""
    spending.settle(fold, gone)
    gone = msgspec.structs.replace(spending.free(gone), tokens=0, cost=0)
    calls = [gone if c.id == gone.id else c for c in fold.snap.calls if c.id != gone.id or not fold.snap.ended]
    failed = [c for c in calls if c.status == "failed"]
    if len(failed) > MAX_FAILED:
        calls.remove(failed[0])
        end(fold, failed[0])
    if fold.snap.ended:
        end(fold, gone)
    fold.snap.calls = tuple(calls)


def pause(fold: Fold, step: Step[Any, Any], call: Pending, entry: FailureEntry) -> int | None:
    """Log ms until the next attempt; None: there is none."""
    if not entry.outage and call.failures + 1 >= step.retry.attempts:
        return None
    tried = call.failures + call.outages + 1
    wait = int(max(step.retry.wait(tried), entry.wait) * fold.place.lapse)
    if step.total is not None:
        whole = int(step.total.total_seconds() * 1000 * fold.place.lapse)
        if fold.at + wait - call.since > whole:
            return None
    return wait


def drop_work(fold: Fold, work: str) -> None:
    snap = fold.snap
    cancel(fold, (c for c in snap.calls if c.work == work))
    snap.calls = tuple(c for c in snap.calls if c.work != work)
    snap.works = tuple(w for w in snap.works if w.work != work)


def cancel(fold: Fold, calls: Iterator[Pending]) -> None:
    """Nobody waits for these any longer."""
    for call in calls:
        fold.dropped += episode.dropped(iter((call,)))
        if call.status == "running":
            fold.commands.append(CancelCall(fold.snap.run, call.id))
        end(fold, call)


def again(fold: Fold, call: Pending) -> str:
    fold.launch(msgspec.structs.replace(call, status="running", attempt=call.attempt + 1, due=0))
    return ""


def make(fold: Fold, step: Step[Any, Any], raw: bytes, work: str = "", slot: int = 0, *, queued: bool = False) -> None:
    snap = fold.snap
    id_ = CallId(f"{snap.seq}.{fold.made}")
    fold.made += 1
    call = Pending(id_, step.name, Raw(raw), fold.at, work, slot, status="queued" if queued else "running")
    if step.question is not None:
        snap.calls = (*snap.calls, call)
        ask_run(fold, step, call)
        return
    if step.spends is not None and not queued:
        call = spending.pay(fold, call, step)
    snap.calls = (*snap.calls, call)
    if call.status == "running":
        fold.commands.append(start_of(snap, call, fold.trace))


def ask_run(fold: Fold, step: Step[Any, Any], call: Pending) -> None:
    """Have another run asked; its answer is the call's result."""
    asker = Asker(fold.workflow.name, fold.entry.key, fold.snap.run, call.id)
    call = msgspec.structs.replace(call, status="asked", asked=fold.place_of(call))
    id_ = f"{fold.snap.run}.{fold.snap.seq}.{call.id}"
    question = step.read_input(bytes(call.input))
    fold.put(call)
    fold.asking.append(PendingCall(call.id, call.step, call.attempt))
    fold.commands.append(AskRun(question, asker, call.asked, id_, *fold.carried()))


def start_work(fold: Fold, work: WorkSpec, state: State) -> None:
    inputs = work.inputs(state, fold.context()) if work.inputs_take_context else work.inputs(state)
    if work.each:
        step, count = work.steps[0], 0
        for count, value in enumerate(inputs, 1):
            make(fold, step, step.write_input(value), work.name, count - 1, queued=count > work.limit)
        fold.snap.works = (*fold.snap.works, Progress(work.name, count))
        return
    if len(work.steps) == 1:
        inputs = (inputs,)
    elif not isinstance(inputs, tuple) or len(inputs) != len(work.steps):
        message = f"{fold.snap.state}.{work.name} must give {len(work.steps)} inputs, one for each of {work.words}"
        raise TypeError(message)
    for slot, step in enumerate(work.steps):
        make(fold, step, step.write_input(inputs[slot]), work.name, slot)
    fold.snap.works = (*fold.snap.works, Progress(work.name, len(work.steps)))


def start_of(snap: Snapshot, call: Pending, trace: str) -> StartCall:
    """The attempt of a call, in the trace of what goes on in its run."""
    return StartCall(
        snap.run,
        call.id,
        call.step,
        call.input,
        call.attempt,
        call.since,
        call.kept,
        call.failures,
        trace=episode.attempt(trace, snap.run, call.id, call.attempt),
        tracestate=snap.episode.tracestate if snap.episode else "",
        baggage=snap.episode.baggage if snap.episode else "",
    )
