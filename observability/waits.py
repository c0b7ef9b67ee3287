"""What a run waits for, in words, as its last record tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.core.record import Record

MOST: Final = 20
WAITS: Final = {
    "running": "runs",
    "waiting": "waits for another attempt",
    "queued": "waits for its turn",
    "failed": "has failed",
    "asking": "asks people",
    "asked": "waits for another run",
    "reserving": "waits for its budget",
}
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def waits_of(record: Record) -> tuple[str, ...]:
    """What a run waits for: what halted it, people, calls, timers; with none of these an event."""
    if record.halted is not None:
        return (f"an operator: {record.halted.error}",)
    people = [f"people: {each.group}" for each in record.asks]
    calls = [f"call {call.step}: {WAITS.get(call.status, call.status)}" for call in record.calls]
    timers = [
        f"timer {timer.handler} at {moment_of(timer.due)}" for timer in sorted(record.timers, key=lambda t: t.due)
    ]
    found = [*dict.fromkeys([*people, *calls, *timers])]
    if not found:
        return ("an event",)
    rest = len(found) - MOST + record.more_calls
    return (*found[:MOST], f"and {rest} more") if rest > 0 else tuple(found)


def until_of(record: Record) -> str:
    """When time alone moves it on (RFC 3339); empty: never."""
    return moment_of(record.wakes) if record.wakes else ""


def moment_of(ms: int) -> str:
    """A log time in RFC 3339; a number beyond the calendar as it is."""
    try:
        when = _BEGINNING + timedelta(milliseconds=ms)
    except OverflowError:
        return f"{ms} ms"
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
