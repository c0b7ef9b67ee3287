"""What the client answers with: runs, their histories, and what would move them on. Times are datetimes in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from engine.core.context import moment
from engine.core.errors import LongwatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from engine.budgets import BudgetState
    from engine.core.definition import StateSpec
    from engine.core.entry import Used
    from engine.core.record import Halted, PendingCall, PendingTimer, Record
    from engine.inbox import InboxItem
    from engine.limits import GateState
    from engine.log.protocol import Receipt
    from engine.view.view import RunRow


class UnknownRun(LongwatchError, LookupError):
    """No run has this address."""


class AmbiguousKey(UnknownRun):
    """Runs of several workflows have this key; the message names them."""


class OrderRefused(LongwatchError):
    """An order that the run cannot take as it stands."""


class WaitTimeout(LongwatchError, TimeoutError):
    """What was waited for did not come in time. Nothing is taken back: it may still come."""


@dataclass(frozen=True)
class Sent:
    """An entry that the log has acknowledged, for one run."""

    workflow: str
    key: str
    id: str
    """The event's id, or the order's word."""
    receipt: Receipt


@dataclass(frozen=True)
class Run:
    """Where a run stands."""

    workflow: str
    key: str
    run_id: str
    version: int
    state: str
    status: str
    """`running` (a call is in flight), `waiting`, `halted` or `finished`."""
    since: datetime | None
    """When it entered its state."""
    wakes_at: datetime | None
    """When its next timer is due."""
    started_at: datetime | None
    updated_at: datetime | None
    ended_at: datetime | None
    error: str
    """Why it is halted."""
    fields: Mapping[str, str]
    """Its searchable fields."""

    @classmethod
    def of(cls, row: RunRow) -> Run:
        return cls(
            workflow=row.workflow,
            key=row.key,
            run_id=row.run_id,
            version=row.version,
            state=row.state,
            status=row.status,
            since=when(row.since),
            wakes_at=when(row.wakes_at),
            started_at=when(row.started),
            updated_at=when(row.updated),
            ended_at=when(row.ended),
            error=row.error,
            fields=row.fields,
        )

    @property
    def address(self) -> str:
        return f"{self.workflow}/{self.key}"


@dataclass(frozen=True)
class Line:
    """One line of a history: an entry, and what it did."""

    seq: int
    at: datetime | None
    entry: str
    """Kind and name: `event ReviewDecided`, `result assess_risk`, `timer HumanReview.expire`, `order resume`."""
    from_: str
    to: str
    ignored: str
    """Why nothing came of it; empty: something did."""
    status: str
    id: str
    source: str
    attempt: int
    took_ms: float
    """Wall duration of the attempt."""
    error: str
    halted: Halted | None
    who: str
    why: str
    published: tuple[str, ...]
    """Types of the events that it published."""
    data: Any
    """The state's fields, where they changed."""
    position: str
    """Of the entry on the log."""
    run_id: str
    traceparent: str
    inner: str = ""
    """Of a call that keeps results: the name of the one that this is about."""
    note: str = ""
    """How far a call says that it is."""
    used: Used | None = None
    """What a model took."""
    again: bool = False
    """An earlier attempt may have done it too."""
    asker: str = ""
    """Of a question: the run that asks."""
    body: Any = None
    """The entry itself, when it was asked for."""

    @classmethod
    def of(cls, record: Record, name: str = "") -> Line:
        """`name` is the step's, where the record has only the call's id."""
        return cls(
            seq=record.seq,
            at=when(record.at),
            entry=f"{record.cause} {record.name or name}".strip(),
            from_=record.from_,
            to=record.to,
            ignored=record.ignored,
            status=record.status,
            id=record.id,
            source=record.source,
            attempt=record.attempt,
            took_ms=record.took / 1000,
            error=record.error,
            halted=record.halted,
            who=record.who,
            why=record.why,
            published=tuple(each.type for each in record.published),
            data=plain_json(record.data),
            position=record.entry,
            run_id=record.run,
            traceparent=record.traceparent,
            inner=record.inner,
            note=_note(record),
            used=record.used,
            again=record.again,
            asker=f"{record.asker.workflow}/{record.asker.key}" if record.asker else "",
        )


@dataclass(frozen=True)
class Move:
    """What would move a run on: a row of the workflow's table."""

    trigger: str
    targets: tuple[str, ...]
    """The states that it may lead to; none: the run stays."""
    due: datetime | None = None
    """Of a timer."""


@dataclass(frozen=True)
class Detail:
    """A run, and all that is known of why it is where it is."""

    run: Run
    because: Line | None
    """What led into the state, or halted the run."""
    last: Line | None
    """The last entry of all, ignored ones too."""
    moves: tuple[Move, ...]
    """Empty when the application is not known."""
    calls: tuple[PendingCall, ...]
    more_calls: int
    timers: tuple[PendingTimer, ...]
    halted: Halted | None
    asks: tuple[InboxItem, ...]
    """What it asks people."""
    taken: str
    """Who has taken that upon himself."""
    budget: BudgetState | None
    """What it has used of its own budget."""
    data: Any
    """The state's fields."""
    as_of: datetime | None
    gates: tuple[GateState, ...] = ()
    """The limits and providers that its calls may wait for, where anything waits."""


def when(ms: int) -> datetime | None:
    """Log ms as a datetime; 0 is none."""
    return moment(ms) if ms else None


def _note(record: Record) -> str:
    """The words of a call that tells how far it is, and keeps nothing by that."""
    tells = record.cause == "kept" and not record.inner and not record.ignored
    return next((call.note for call in record.calls if tells and call.id == record.id), "")


def plain_json(raw: msgspec.Raw) -> Any:  # noqa: ANN401 - JSON is anything
    """JSON as Python's own types; None when there is none."""
    return msgspec.json.decode(raw) if raw else None


def lines(records: list[Record]) -> Iterator[Line]:
    """Records in order as a history; results are named by their steps, which an earlier record tells."""
    steps: dict[str, str] = {}
    for record in records:
        yield Line.of(record, steps.get(record.id, ""))
        steps.update((call.id, call.step) for call in record.calls)


def moves(spec: StateSpec, timers: tuple[PendingTimer, ...]) -> tuple[Move, ...]:
    """The rows of a state's table, with the times of its timers."""
    due = {timer.handler: timer.due for timer in timers}
    return tuple(
        Move(
            each.trigger,
            tuple(target.__name__ for target in each.order),
            when(due.get(f"{each.owner or spec.name}.{each.name}", 0)),
        )
        for each in spec.handlers()
        if each.trigger != "entry"
    )
