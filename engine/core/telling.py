"""How records tell of entries."""

from __future__ import annotations

from typing import Any

from engine.core import spending
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
)
from engine.core.record import Cause
from engine.core.snapshot import Snapshot

HELD = "held: the run is halted"
_CAUSES: dict[type[Entry], Cause] = {
    ResultEntry: "result",
    FailureEntry: "failure",
    KeptEntry: "kept",
    AskedEntry: "asked",
    AnswerEntry: "answer",
}
_OF_CALLS = (ResultEntry, FailureEntry, KeptEntry, AskedEntry, AnswerEntry)


def naming(entry: Entry, snap: Snapshot | None = None) -> tuple[Cause, str, str, str]:
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


def told_by(entry: Entry | None) -> dict[str, Any]:
    """What a record takes over from the entry that was applied."""
    match entry:
        case ResultEntry():
            return _timed(entry)
        case FailureEntry():
            error = f"{entry.error}: {entry.message}"
            return _timed(entry) | {"error": error, "inner": entry.inner}
        case EventEntry():
            return _carried(entry) | {"who": entry.who}
        case OrderEntry():
            return {"who": entry.who, "why": entry.why}
        case KeptEntry():
            told = _timed(entry) | {"inner": entry.name, "kind": entry.kind}
            return told | {"used": entry.used, "again": entry.again}
        case AskedEntry():
            return _timed(entry) | {"inner": entry.name, "why": entry.question}
        case AnswerEntry():
            return {"inner": entry.name, "who": entry.who}
        case QuestionEntry():
            return _carried(entry) | {"asker": entry.asker}
        case _:
            return {}


def _timed(entry: ResultEntry | FailureEntry | KeptEntry | AskedEntry) -> dict[str, Any]:
    return {"attempt": entry.attempt, "started": entry.started, "took": entry.took, "spans": entry.spans}


def _carried(entry: EventEntry | QuestionEntry) -> dict[str, Any]:
    return {"traceparent": entry.traceparent, "tracestate": entry.tracestate, "baggage": entry.baggage}
