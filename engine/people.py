"""The client's part for people: what they are asked, their answers on their way to the log, and what came of them.

An answer is an entry as any other: two people may append one at once, and the fold takes the first. So what came of it
is read from the record of its own entry, and who was first from those before it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from msgspec import Raw
from pydantic import BaseModel

from engine.core.account import ACCOUNTS, BudgetRaised
from engine.core.entry import AnswerEntry, EventEntry, OrderEntry
from engine.core.errors import EventRefused
from engine.core.ids import CallId, Position
from engine.core.model import Event
from engine.core.record import read_record
from engine.inbox import (
    STATE,
    AlreadyAnswered,
    InboxItem,
    NothingAsked,
    Outcome,
    TakenByOther,
    checked,
    choice_of,
    chosen,
    items_of,
    narrowed,
)
from engine.log.protocol import last_output, order_of, output_id
from engine.reports import OrderRefused, when
from engine.view.history import backwards, record_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from engine.core.application import Application
    from engine.core.entry import Order
    from engine.core.record import Record
    from engine.log.redis_log import RedisLog
    from engine.reports import Sent
    from engine.view.view import RunRow

    Personal = EventEntry | AnswerEntry | OrderEntry

LOOK_BACK = 200
"""Records that are read to find who was first."""
SOURCE = "longwatch-people"


class People:
    """One log's, in the client's thread."""

    def __init__(self, log: RedisLog, application: Application | None) -> None:
        self._log, self._application = log, application

    def asked(self, row: RunRow) -> list[InboxItem]:
        """What the run asks now."""
        record = record_at(self._log, row.partition, row.last)
        return list(items_of(record, self._application)) if record else []

    def answer(
        self,
        row: RunRow,
        value: Any,  # noqa: ANN401 - JSON is anything
        *,
        who: str,
        kind: str = "",
        call: str = "",
        name: str = "",
        visit: int = 0,
    ) -> Personal:
        """The entry of an answer that fits what is asked.

        Raises:
            EventRefused: it does not fit; field and rule.
            OrderRefused: it is not asked (any more), or somebody else was first, or has taken it.
        """
        _check_who(who)
        items = self.asked(row)
        address = f"{row.workflow}/{row.key}"
        if row.status == "halted":
            raise OrderRefused(
                f"{address} is halted ({row.error}); it takes answers after `longwatch resume {address}`"
            )
        try:
            item = chosen(narrowed(items, call), address, "" if call == STATE else call, name)
        except NothingAsked:
            self._tell_who(row, row.last, visit)
            raise
        if visit and item.of_state and visit != item.visit:
            self._tell_who(row, row.last, visit)
            raise NothingAsked(f"{address} has moved on, and asks something else in {item.state} now")
        if item.taken and item.taken != who:
            raise TakenByOther(address, item.taken)
        return self._entry(item, value, who, kind)

    def _entry(self, item: InboxItem, value: Any, who: str, kind: str) -> Personal:  # noqa: ANN401 - JSON is anything
        choice = choice_of(item, kind or (type(value).__name__ if isinstance(value, Event) else ""))
        raw = checked(item, choice, value.model_dump(mode="json") if isinstance(value, BaseModel) else value)
        if choice.event is None:
            return AnswerEntry(item.workflow, item.key, CallId(item.call), item.name, who, Raw(raw))
        return _event(item.workflow, item.key, choice.name, raw, who, item.visit)

    def raise_account(self, account: str, eur: Decimal, tokens: int, who: str) -> EventEntry:
        """More money or tokens for an account.

        Raises:
            EventRefused: nothing is added.
        """
        _check_who(who)
        if eur < 0 or tokens < 0 or not (eur or tokens):
            raise EventRefused("nothing is added; say how much more: eur, tokens or both, above 0", "eur")
        data = BudgetRaised(account=account, eur=eur, tokens=tokens)
        return _event(ACCOUNTS, account, BudgetRaised.__name__, data.model_dump_json().encode(), who)

    def order(self, row: RunRow, order: Order, who: str, why: str) -> Personal:
        """To take or to release what a run asks.

        Raises:
            OrderRefused: nothing is asked, somebody else has taken it, or nobody has.
        """
        _check_who(who)
        record = record_at(self._log, row.partition, row.last)
        address, taken = f"{row.workflow}/{row.key}", record.taken if record else ""
        if order == "take" and record is not None and not record.asks:
            raise NothingAsked(f"{address} asks people nothing; `longwatch inbox` lists what waits")
        if order == "take" and taken not in ("", who):
            raise TakenByOther(address, taken)
        if order == "release" and not taken:
            raise OrderRefused(f"{address} is taken by nobody")
        return OrderEntry(row.workflow, row.key, order, who, why)

    def outcome(self, row: RunRow, entry: Personal, sent: Sent) -> Outcome:
        """What came of an entry whose records are in the view.

        Raises:
            AlreadyAnswered: somebody else was first.
            TakenByOther: somebody else has taken it.
            NothingAsked: the run has moved on by itself.
            OrderRefused: it was ignored for another reason.
        """
        record = self._record(entry, sent)
        if record is None:
            return Outcome(sent, entry.who, None, row.state, row.status, "it is put off until the run goes on")
        if record.ignored.startswith("held: "):
            return Outcome(sent, entry.who, when(record.at), record.to, record.status, record.ignored)
        if record.ignored:
            self._refuse(row, entry, record)
        held = f"the run halted over it: {record.halted.error}" if record.halted else ""
        return Outcome(sent, entry.who, when(record.at), record.to, record.status, held)

    def _refuse(self, row: RunRow, entry: Personal, record: Record) -> None:
        address = f"{record.workflow}/{record.key}"
        if record.taken and record.taken != entry.who:
            raise TakenByOther(address, record.taken)
        if not isinstance(entry, OrderEntry):
            call = entry.call if isinstance(entry, AnswerEntry) else ""
            visit = entry.visit if isinstance(entry, EventEntry) else 0
            self._tell_who(row, _place(record), visit, call)
        raise NothingAsked(f"{address}: {record.ignored}. Your {_word(entry)} changed nothing")

    def _tell_who(self, row: RunRow, place: str, visit: int, call: str = "") -> None:
        """Raise what is known of who was first, before the record at `place` (that one too); return if nobody was."""
        address = f"{row.workflow}/{row.key}"
        mover = self._mover(row, place, visit, call)
        if mover is None:
            return
        if mover.who:
            raise AlreadyAnswered(address, mover.who, when(mover.at), mover.to)
        moved = f"{mover.cause} {mover.name}".strip()
        raise NothingAsked(f"{address} has moved on to {mover.to}: {moved} came first. Your answer changed nothing")

    def _mover(self, row: RunRow, place: str, visit: int, call: str) -> Record | None:
        """The record that ended the visit; without a visit the last answer (to this call)."""
        edge = order_of(place)
        before = (r for r in self._back(row) if order_of(_place(r)) <= edge and not r.ignored)
        if visit:
            later = list(takewhile(lambda r: r.visit > visit, before))
            return later[-1] if later else None
        return next((r for r in before if r.cause in ANSWERS and r.who and call in ("", r.id)), None)

    def _back(self, row: RunRow) -> Iterator[Record]:
        for count, record in enumerate(backwards(self._log, row)):
            if count == LOOK_BACK:
                return
            yield record

    def _record(self, entry: Personal, sent: Sent) -> Record | None:
        """The record of the entry itself, behind those of timers that came due before it."""
        partition, position = sent.receipt
        found = self._log.scan("journal", partition, before_output(position), last_output(position))
        records = [read_record(item.payload) for item in found]
        mine = [r for r in records if r.entry == position and r.cause == entry.cause]
        return mine[-1] if mine else None


ANSWERS = ("event", "answer")


def _event(workflow: str, key: str, type: str, data: bytes, who: str, visit: int = 0) -> EventEntry:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    id = str(uuid4())
    return EventEntry(workflow, key, id, SOURCE, type, Raw(data), time, who=who, visit=visit)


def _place(record: Record) -> str:
    return output_id(record.entry, record.index)


def before_output(position: str) -> str:
    """The greatest output id below those of an entry."""
    head, rest = order_of(output_id(Position(position), 0))
    return f"{head}-{rest - 1}" if rest else f"{head - 1}-{(1 << 64) - 1}"


def _word(entry: Personal) -> str:
    return "order" if isinstance(entry, OrderEntry) else "answer"


def _check_who(who: str) -> None:
    if not who.strip():
        raise EventRefused("is empty; say whose word it is", "who")
