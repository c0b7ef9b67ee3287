"""The fold's side of long calls: what they keep, what they ask people, and what runs ask each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from pydantic import TypeAdapter, ValidationError

from engine.core import spending
from engine.core.definition import Handler, StateSpec
from engine.core.entry import AnswerEntry, AskedEntry, KeptEntry, QuestionEntry
from engine.core.model import Answer, Question
from engine.core.reaction import Keep, Reply
from engine.core.record import Asks
from engine.core.snapshot import Pending, Snapshot
from engine.core.steps import BUDGET

if TYPE_CHECKING:
    from engine.core.fold import Fold

MAX_NOTE = 500


# -- what a call keeps -------------------------------------------------------------------------------------------------


def kept(fold: Fold, entry: KeptEntry) -> str:
    """A part of a call is done, or it says how far it is."""
    call = fold.pending(entry.run, entry.call)
    if call is None:
        spending.use(fold, entry.used, None)
        return "late: nobody waits for this call any longer"
    if entry.attempt != call.attempt:  # the one that runs does not know of it, and counts on
        spending.use(fold, entry.used, None)
        return f"late: attempt {entry.attempt} was given up before"
    if entry.kind == "progress":
        fold.put(msgspec.structs.replace(call, note=entry.note[:MAX_NOTE]))
        return ""
    if entry.index != call.kept:
        spending.use(fold, entry.used, None)
        return f"late: result {entry.index} of this call is kept already"
    paid = spending.use(fold, entry.used, call) or call
    _keep(fold, paid, entry.name, entry.output)
    return ""


def _keep(fold: Fold, call: Pending, name: str, output: Raw, **changes: Any) -> Pending:
    new = msgspec.structs.replace(call, kept=call.kept + 1, failures=0, outages=0, error="", **changes)
    fold.put(new)
    fold.commands.append(Keep(fold.snap.run, call.id, name, output))
    return new


# -- people ------------------------------------------------------------------------------------------------------------


def asked(fold: Fold, entry: AskedEntry) -> str:
    """A call waits for a person from now on."""
    call = fold.pending(entry.run, entry.call)
    if call is None:
        return "late: nobody waits for this call any longer"
    if call.status != "running" or call.attempt != entry.attempt:
        return f"late: attempt {entry.attempt} was given up before"
    asks = Asks(entry.group, call.id, entry.name, entry.question, fold.at, schema=entry.schema)
    fold.put(msgspec.structs.replace(call, status="asking", asks=asks))
    return ""


def answered(fold: Fold, entry: AnswerEntry) -> str:
    """A person's word to a call."""
    call = next((c for c in fold.snap.calls if c.id == entry.call and c.asks and c.asks.name == entry.name), None)
    if call is None:
        return "answered already, or no longer asked: nothing here waits for this answer"
    if why := taken_by_other(fold.snap, entry.who):
        return why
    if entry.name == BUDGET:
        if why := spending.raised(fold, call, entry):
            return why
        fold.snap.taken = ""
        return ""
    fold.snap.taken = ""
    output = Raw(msgspec.json.encode({"who": entry.who, "answer": entry.answer}))
    # The time that people took does not count towards the call's `total`.
    again = {"asks": None, "status": "running", "attempt": call.attempt + 1, "since": fold.at}
    fold.launch(_keep(fold, call, entry.name, output, **again))
    return ""


def taken_by_other(snap: Snapshot, who: str) -> str:
    """Why this person may not answer; empty: he may."""
    if who and snap.taken and snap.taken != who:
        return f"taken by {snap.taken}: to be released first"
    return ""


def take(fold: Fold, who: str) -> str:
    """Somebody takes upon himself what waits for people here."""
    snap = fold.snap
    if not waiting_for_people(snap, fold.workflow.specs.get(snap.state)):
        return "nothing here waits for people"
    if snap.taken and snap.taken != who:
        return f"taken by {snap.taken} already"
    snap.taken = who
    return ""


def release(fold: Fold) -> str:
    """It is anybody's again."""
    if not fold.snap.taken:
        return "nobody has taken it"
    fold.snap.taken = ""
    return ""


def waiting_for_people(snap: Snapshot, spec: StateSpec | None) -> tuple[Asks, ...]:
    """What of a run waits for people; nothing in one that is halted. In one that is over, calls may still ask."""
    if snap.halted is not None:
        return ()
    found = [c.asks for c in snap.calls if c.asks is not None]
    if spec is not None and spec.asks and not snap.ended:
        ends = [t.due for t in snap.timers if (h := spec.timers_by_name.get((t.owner, t.handler))) and h.order]
        found.insert(0, Asks(spec.asks, since=snap.entered, until=min(ends, default=0)))
    return tuple(found)


# -- other runs --------------------------------------------------------------------------------------------------------


def question(fold: Fold, entry: QuestionEntry) -> str:
    """Another run asks this one."""
    snap = fold.snap
    if snap.ended:
        return refuse(fold, entry, "RunFinished", f"the run is finished ({snap.state})")
    spec = fold.spec()
    handler = spec.answers.get(entry.type) or spec.events.get(entry.type)
    if handler is None:
        return refuse(fold, entry, "NotAnswered", f"{spec.name} does not answer {entry.type}")
    kind: Any = handler.event
    try:
        asked_ = kind.model_validate_json(bytes(entry.data))
    except ValidationError as error:
        return refuse(fold, entry, "NotAnswered", f"{entry.type} does not fit its schema: {error.errors()[0]['msg']}")
    if entry.type in spec.answers:
        answer = fold.call_handler(handler, fold.state(), asked_)
        fold.commands.append(Reply(entry.asker, _answer_in_words(kind, handler, answer)))
        return ""
    if (seen := fold.hear(entry.asker.workflow, entry.id) if entry.id else snap.seen) is None:
        return f"a repeat: this {entry.type} was taken before"
    fold.answer(handler, fold.call_handler(handler, fold.state(), asked_))
    snap.seen = seen
    return ""


def refuse(fold: Fold, entry: QuestionEntry, error: str, message: str) -> str:
    """No answer, for good."""
    fold.commands.append(Reply(entry.asker, error=error, message=message))
    return message


def reply(answer: Answer[Any]) -> Reply:
    """An answer that was given later than at once."""
    return Reply(answer.asker, Raw(answer.answer.__pydantic_serializer__.to_json(answer.answer, warnings="error")))


def _answer_in_words(kind: type[Question[Any]], handler: Handler, answer: Any) -> Raw:
    wanted = kind.answer_type()
    if type(answer) is not wanted:
        message = f"{handler.name} answered {kind.__name__} with {type(answer).__name__}; it wants {wanted.__name__}"
        raise TypeError(message)
    return Raw(TypeAdapter(wanted).dump_json(answer, warnings="error"))
