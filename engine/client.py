"""What one can ask of an engine and tell it, from Python; the command line is made of this.

    async with Client(application, data=Path(".longwatch")) as client:
        sent = await client.send(ClaimFiled(claim=claim))
        run = await client.until_rest(sent)

Everything is one of three things: an entry appended to the log, a question to the run view, or a walk through the
journal. So the client works beside an engine, and without one: what is sent waits on the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import msgspec

from engine.budgets import Budgets, BudgetState
from engine.carrier import carried
from engine.core.entry import AnswerEntry, EventEntry, Order, OrderEntry, write_entry
from engine.core.errors import EventRefused
from engine.core.model import Event
from engine.core.partition import partition_of
from engine.core.record import CloudEvent, Record, read_letter
from engine.inbox import InboxItem, Outcome, item_of, items_of
from engine.intake import carrying, entries, envelope_of, read_envelope
from engine.letters import Letter, Letters
from engine.limits import read_gates
from engine.log.protocol import last_output, order_of, output_id
from engine.log.redis_log import RedisLog
from engine.outbox import OutboxReader, Published
from engine.people import People, before_output
from engine.reports import (
    AmbiguousKey,
    Detail,
    Line,
    OrderRefused,
    Run,
    Sent,
    UnknownRun,
    WaitTimeout,
    lines,
    moves,
    plain_json,
    when,
)
from engine.session import Session
from engine.settings import Settings, load
from engine.view.history import backwards, history, record_at
from engine.view.inbox import InboxCount, InboxFilter
from engine.view.view import ALL, After, Count, Filter, RunRow, View

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from engine.core.application import Application
    from engine.limits import GateState
    from engine.log.protocol import Receipt
    from engine.people import Personal
    from engine.view.inbox import Place

P = ParamSpec("P")
T = TypeVar("T")

POLL_SECONDS = 0.03
SLOW_POLL_SECONDS = 1.0
"""How often the costlier question is asked, whether the engine has passed an entry without a record."""
SEND_AT_ONCE = 500
"""Entries of one round trip."""

Sendable = Event | CloudEvent | Mapping[str, Any] | bytes
Target = str | Filter


class Client:
    """One engine's log and view. Its methods may be called from any task; they take turns."""

    def __init__(
        self,
        application: Application | None = None,
        *,
        data: Path | str | None = None,
        log: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Name the engine by its data folder, or its log's URL, or whole settings; by default the project's.

        The application is needed to send, and to say what would move a run on.
        """
        flags = {name: value for name, value in {"data": data, "log": log}.items() if value is not None}
        self.application = application
        self.settings = settings or load(flags).settings
        self._session = Session(self.settings)
        self._thread = ThreadPoolExecutor(1, "longwatch-client")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._do(self._session.close)
        self._thread.shutdown()

    # -- sending

    async def send(
        self,
        *events: Sendable,
        key: str = "",
        wait: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[Sent]:
        """Append events, all or none of them: each is checked before the first is appended.

        Args:
            events: of the application, or CloudEvents (a value, a dictionary or their JSON).
            key: of the run, for events whose class names no `key=`.
            wait: seconds to wait until they are in the view; None does not wait.
            headers: with `traceparent`, `tracestate` and `baggage`, or Jaeger's `uber-trace-id`, as a tracer injects
                them: the trace that events come from which name none of their own.

        Raises:
            EventRefused: one cannot be taken; field and reason.
            WaitTimeout: they are appended, and not in the view yet.
        """
        found = [each for event in events for each in self.check(event, key=key, headers=headers)]
        sent = await self._do(self._append, found)
        if wait is not None:
            await self.wait_for(sent, timeout=wait)
        return sent

    def check(self, event: Sendable, *, key: str = "", headers: Mapping[str, str] | None = None) -> list[EventEntry]:
        """The entries that an event becomes, one for each workflow that takes it; nothing is appended.

        Raises:
            EventRefused: it cannot be taken; field and reason.
        """
        if self.application is None:
            raise EventRefused("events are checked by the application, and this client was opened without one")
        return entries(carrying(_envelope(event, key), carried(headers or {})), self.application)

    def _append(self, found: Sequence[EventEntry | AnswerEntry | OrderEntry]) -> list[Sent]:
        log = self._session.log
        count = log.header.partitions
        payloads = [(partition_of(each.workflow, each.key, count), write_entry(each)) for each in found]
        receipts: list[Receipt] = []
        for start in range(0, len(payloads), SEND_AT_ONCE):
            receipts += log.append_many(payloads[start : start + SEND_AT_ONCE])
        return [
            Sent(each.workflow, each.key, _name_of(each), receipt)
            for each, receipt in zip(found, receipts, strict=True)
        ]

    # -- waiting

    async def wait_for(self, sent: Iterable[Sent], *, timeout: float = 30) -> None:  # noqa: ASYNC109 - says so when it ran out
        """Return when the records of these entries are in the view.

        An entry that makes no record (an event held until its run begins) counts when the engine has passed it.

        Raises:
            EventRefused: one became a dead letter; the reason is the letter's.
            WaitTimeout: not within `timeout` seconds.
        """
        left = [each.receipt for each in sent]
        end, slow = time.monotonic() + timeout, time.monotonic() + SLOW_POLL_SECONDS
        while left:
            thorough = time.monotonic() >= slow
            left = await self._do(self._not_in_view, left, thorough)
            slow = time.monotonic() + SLOW_POLL_SECONDS if thorough else slow
            if left and time.monotonic() >= end:
                words = ", ".join(f"{partition}/{position}" for partition, position in left[:3])
                raise WaitTimeout(
                    f"{len(left)} entries are not in the view after {timeout:g} s ({words}): they stand on the log; "
                    "does an engine run? (`longwatch status`)"
                )
            if left:
                await asyncio.sleep(POLL_SECONDS)

    async def until_rest(self, target: str | Iterable[Sent], *, timeout: float = 30) -> list[Run]:  # noqa: ASYNC109
        """Return the runs when none of their calls is running any more: they wait, are halted or finished.

        Args:
            target: `[WORKFLOW/]KEY`, or what `send` answered, whose entries are waited for first.
            timeout: seconds.

        Raises:
            WaitTimeout: not within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        if isinstance(target, str):
            names = [target]
        else:
            sent = list(target)
            await self.wait_for(sent, timeout=timeout)
            names = list(dict.fromkeys(f"{each.workflow}/{each.key}" for each in sent))
        while True:
            runs = [await self._do(self._fresh_run, name) for name in names]
            busy = [name for name, run in zip(names, runs, strict=True) if run is None or run.status == "running"]
            if not busy:
                return [run for run in runs if run is not None]
            if time.monotonic() >= end:
                raise WaitTimeout(f"{len(busy)} runs are not at rest after {timeout:g} s ({', '.join(busy[:3])})")
            await asyncio.sleep(POLL_SECONDS)

    def _fresh_run(self, name: str) -> Run | None:
        try:
            return Run.of(self._row(name))
        except AmbiguousKey:
            raise
        except UnknownRun:
            return None

    def _not_in_view(self, receipts: Sequence[Receipt], thorough: bool) -> list[Receipt]:  # noqa: FBT001
        cursors = self._session.view.cursors()
        left = [each for each in receipts if not _reached(cursors.get(each.partition), each)]
        for each in left:
            self._check_alive(each)
        return self._not_passed(left) if thorough and left else left

    def _check_alive(self, receipt: Receipt) -> None:
        partition, position = receipt
        for item in self._session.log.scan("dead", partition, before_output(position), last_output(position)):
            raise EventRefused(f"it became a dead letter: {read_letter(item.payload).reason}")

    def _not_passed(self, receipts: list[Receipt]) -> list[Receipt]:
        """Those that the engine has not passed, or that made a record which is on its way into the view."""
        log = self._session.log
        passed: dict[int, str] = {}
        for publication in log.publications():
            passed.update(publication.positions)
        return [
            each
            for each in receipts
            if order_of(passed.get(each.partition, "0-0")) < order_of(each.position)
            or any(log.scan("journal", each.partition, before_output(each.position), last_output(each.position)))
        ]

    # -- asking

    async def counts(self, wanted: Filter = ALL) -> list[Count]:
        """How many runs stand where."""
        return await self._do(lambda: self._session.view.counts(wanted))

    async def as_of(self) -> datetime | None:
        """Log time of the newest record in the view."""
        return when(await self._do(lambda: self._session.view.as_of()))  # noqa: PLW0108 - opens it in the thread

    async def show(self, target: str) -> Detail:
        """Where a run is, why, and what would move it on.

        Raises:
            UnknownRun, AmbiguousKey: `[WORKFLOW/]KEY` names no run, or several.
        """
        return await self._do(self._detail, target)

    async def history(self, target: str, *, bodies: bool = False) -> list[Line]:
        """Every entry and transition of a run, finished ones from the archive; with `bodies` the entries themselves.

        Raises:
            UnknownRun, AmbiguousKey: `[WORKFLOW/]KEY` names no run, or several.
        """
        return await self._do(self._history, target, bodies)

    async def halted(self, wanted: Filter = ALL, *, limit: int = 1000) -> list[Run]:
        """The runs that stand still, and why."""
        return await self.list(Filter(wanted.workflow, wanted.state, "halted", wanted.where), limit=limit)

    def _rows(self, wanted: Filter, limit: int, after: After | None) -> list[RunRow]:
        try:
            return self._session.view.runs(wanted, limit=limit, after=after)
        except LookupError as error:
            raise UnknownRun(str(error)) from None

    def _row(self, target: str) -> RunRow:
        return find_row(self._session.view, target)

    def _detail(self, target: str) -> Detail:
        self._session.refresh(start=True)
        row = self._row(target)
        log = self._session.log
        newest = record_at(log, row.partition, row.last)
        told = _because(backwards(log, row))
        spec = None
        if self.application and row.workflow in self.application.workflows:
            spec = self.application.workflows[row.workflow].specs.get(row.state)
        data = record_at(log, row.partition, row.data) if row.data else None
        return Detail(
            run=Run.of(row),
            because=told[0] if told else None,
            last=told[-1] if told else None,
            moves=moves(spec, newest.timers) if spec and newest and row.status != "finished" else (),
            calls=newest.calls if newest else (),
            more_calls=newest.more_calls if newest else 0,
            timers=newest.timers if newest else (),
            halted=newest.halted if newest else None,
            asks=tuple(items_of(newest, self.application)) if newest else (),
            taken=newest.taken if newest else "",
            budget=self._budget(row, newest),
            data=plain_json(data.data) if data else None,
            as_of=when(self._session.view.as_of()),
            gates=self._gates(newest),
        )

    def _gates(self, newest: Record | None) -> tuple[GateState, ...]:
        """What the calls that run may wait for; the models are the application's to tell."""
        names = {call.step for call in newest.calls if call.status == "running"} if newest else set()
        steps = self.application.steps if self.application else {}
        gates = {f"step:{name}" for name in names}
        gates |= {f"model:{steps[name].model}" for name in names if name in steps and steps[name].model}
        found = read_gates(self._session.url) if gates else []
        return tuple(gate for gate in found if gate.name in gates and (gate.waiting or gate.is_shut))

    def _budget(self, row: RunRow, newest: Record | None) -> BudgetState | None:
        if newest is None or newest.spent is None:
            return None
        return Budgets(self._session.log, self._session.view, self.application).of_run(row)

    def _history(self, target: str, bodies: bool) -> list[Line]:  # noqa: FBT001
        self._session.refresh(start=True)
        row = self._row(target)
        found = list(lines(history(self._session.log, row)))
        return [self._with_body(row, line) for line in found] if bodies else found

    def _with_body(self, row: RunRow, line: Line) -> Line:
        item = self._session.log.get("log", row.partition, line.position)
        return line if item is None else replace(line, body=msgspec.json.decode(item.payload))

    # -- orders

    async def resume(self, target: Target, *, who: str, why: str = "") -> list[Sent]:
        """Have halted runs go on from the entry or timer that halted them.

        Raises:
            UnknownRun, AmbiguousKey, OrderRefused: a single run that is not there, or not halted.
        """
        return await self._do(self._order, target, "resume", who, why)

    async def skip(self, target: Target, *, who: str, why: str = "") -> list[Sent]:
        """Have halted runs go on without what halted them."""
        return await self._do(self._order, target, "skip", who, why)

    async def cancel(self, target: Target, *, who: str, why: str = "") -> list[Sent]:
        """End runs where they stand."""
        return await self._do(self._order, target, "cancel", who, why)

    async def retry(self, target: Target, *, who: str, why: str = "") -> list[Sent]:
        """Try failed calls again, and those that wait for another attempt at once."""
        return await self._do(self._order, target, "retry", who, why)

    def _order(self, target: Target, order: Order, who: str, why: str) -> list[Sent]:
        self._session.refresh(start=True)
        if isinstance(target, Filter):
            wanted = Filter(target.workflow, target.state, "halted", target.where) if order in HALTED_ONLY else target
            rows = [row for row in self._session.view.every(wanted) if not self._refusal(row, order)]
        else:
            rows = [self._row(target)]
            if refusal := self._refusal(rows[0], order):
                raise OrderRefused(f"{rows[0].workflow}/{rows[0].key} cannot take {order!r}: {refusal}")
        return self._append([OrderEntry(row.workflow, row.key, order, who, why) for row in rows])

    def _refusal(self, row: RunRow, order: Order) -> str:
        if row.status == "finished":
            return f"the run is finished ({row.state})"
        if order in HALTED_ONLY and row.status != "halted":
            return f"the run is not halted, it is {row.status} in {row.state}"
        if order == "retry":
            record = record_at(self._session.log, row.partition, row.last)
            if record and not record.more_calls and not any(c.status in RETRIED for c in record.calls):
                return "no call of it has failed or waits for another attempt"
        return ""

    # -- people

    async def inbox(
        self,
        group: str | None = None,
        *,
        mine: str = "",
        workflow: str = "",
        limit: int = 100,
        after: Place | None = None,
        newest: bool = False,
    ) -> list[InboxItem]:
        """What waits for people, the longest first (or the newest).

        Args:
            group: only what this group is asked.
            mine: only what this person has taken.
            workflow: only of runs of this workflow.
            limit: how many at most.
            after: the `place` of the last item of the page before.
            newest: the other way round.
        """
        wanted = InboxFilter(group or "", workflow, mine)
        rows = await self._do(lambda: self._session.view.inbox(wanted, limit=limit, after=after, newest=newest))
        return [item_of(row, self.application) for row in rows]

    async def inbox_counts(self, *, mine: str = "", workflow: str = "") -> list[InboxCount]:
        """How much waits for each group."""
        wanted = InboxFilter("", workflow, mine)
        return await self._do(lambda: self._session.view.inbox_counts(wanted))

    async def asked(self, target: str) -> list[InboxItem]:
        """What a run asks people now.

        Raises:
            UnknownRun, AmbiguousKey: `[WORKFLOW/]KEY` names no run, or several.
        """
        return await self._do(lambda: self._people().asked(self._fresh_row(target)))

    async def answer(
        self,
        run: str | InboxItem,
        answer: Any,  # noqa: ANN401 - an event, a model, or JSON
        *,
        who: str,
        type: str = "",
        call: str = "",
        name: str = "",
        visit: int = 0,
        timeout: float = 30,  # noqa: ASYNC109 - says so when it ran out
    ) -> Outcome:
        """Answer what a run asks, and wait for what comes of it.

        Args:
            run: `[WORKFLOW/]KEY`, or an item of the inbox, which also says what of the run is answered.
            answer: an event of the state, the model that a call asks for, or their fields.
            who: whose answer it is. It is believed.
            type: the event, where the answer is only its fields and the state takes several.
            call: the call that asks, where the run asks several things; `state` for what its state asks.
            name: what of the call.
            visit: of the state, as an inbox showed it; it may have been left since, and entered again. 0: as it is now.
            timeout: seconds.

        Raises:
            UnknownRun, AmbiguousKey: there is no such run, or there are several.
            EventRefused: the answer does not fit; field and rule.
            AlreadyAnswered, TakenByOther, NothingAsked, OrderRefused: it came too late, or is not this person's.
            WaitTimeout: it stands on the log, and what came of it is not known yet.
        """
        if isinstance(run, InboxItem):
            call, name, visit = run.call or "state", run.name, run.visit if run.of_state else 0
        address = run.address if isinstance(run, InboxItem) else run
        row = await self._do(self._fresh_row, address)
        entry = await self._do(
            lambda: self._people().answer(row, answer, who=who, kind=type, call=call, name=name, visit=visit)
        )
        return await self._outcome(row.workflow, row.key, entry, timeout)

    async def take(self, run: str | InboxItem, who: str, *, why: str = "", timeout: float = 30) -> Outcome:  # noqa: ASYNC109
        """Take what a run asks upon oneself: until it is released nobody else can answer.

        Raises:
            TakenByOther, NothingAsked: somebody else has it, or there is nothing to take.
            UnknownRun, AmbiguousKey, WaitTimeout: as with `answer`.
        """
        return await self._order_of(run, "take", who, why, timeout)

    async def release(self, run: str | InboxItem, who: str, *, why: str = "", timeout: float = 30) -> Outcome:  # noqa: ASYNC109
        """Give back what was taken, by whomever.

        Raises:
            OrderRefused: nobody has taken it.
            UnknownRun, AmbiguousKey, WaitTimeout: as with `answer`.
        """
        return await self._order_of(run, "release", who, why, timeout)

    async def raise_budget(
        self,
        account: str,
        *,
        who: str,
        eur: Decimal | str | int = 0,
        tokens: int = 0,
        timeout: float = 30,  # noqa: ASYNC109
    ) -> Outcome:
        """Add to an account that workflows share: to its whole, and to the day's.

        Raises:
            EventRefused: nothing is added.
            WaitTimeout: as with `answer`.
        """
        entry = await self._do(lambda: self._people().raise_account(account, Decimal(eur), tokens, who))
        return await self._outcome(entry.workflow, entry.key, entry, timeout)

    async def budgets(self, name: str = "") -> list[BudgetState]:
        """What is spent, reserved and left, and who waits: of every account and workflow, or only of this one or run.

        Raises:
            UnknownRun, AmbiguousKey: it is no account, no workflow with a budget, and no run.
        """
        return await self._do(self._budgets_of, name)

    def _budgets_of(self, name: str) -> list[BudgetState]:
        self._session.refresh()
        budgets = Budgets(self._session.log, self._session.view, self.application)
        every = budgets.all()
        found = [each for each in every if not name or each.name == name]
        return found if found or not name else [budgets.of_run(self._row(name))]

    async def _order_of(
        self,
        run: str | InboxItem,
        order: Order,
        who: str,
        why: str,
        timeout: float,  # noqa: ASYNC109
    ) -> Outcome:
        row = await self._do(self._fresh_row, run.address if isinstance(run, InboxItem) else run)
        entry = await self._do(lambda: self._people().order(row, order, who, why))
        return await self._outcome(row.workflow, row.key, entry, timeout)

    async def _outcome(self, workflow: str, key: str, entry: Personal, timeout: float) -> Outcome:  # noqa: ASYNC109
        (sent,) = await self._do(self._append, [entry])
        await self.wait_for([sent], timeout=timeout)
        return await self._do(lambda: self._people().outcome(self._row(f"{workflow}/{key}"), entry, sent))

    def _people(self) -> People:
        return People(self._session.log, self.application)

    def _fresh_row(self, target: str) -> RunRow:
        self._session.refresh(start=True)
        return self._row(target)

    # -- dead letters and outbox

    async def dead_letters(self, *, done: bool = False) -> list[Letter]:
        """What could not be read or belongs to no run; with `done` also what was resent or dropped."""
        return await self._do(lambda: list(self._letters().all(done=done)))

    async def dead_letter(self, name: str) -> Letter:
        """One dead letter by its id.

        Raises:
            UnknownLetter: there is none.
        """
        return await self._do(lambda: self._letters().find(name))

    async def resend(self, name: str, *, who: str = "", why: str = "") -> list[Receipt]:
        """Append a dead letter's entry again.

        Raises:
            UnknownLetter: there is none.
            EventRefused: it would be a dead letter again.
        """
        return await self._do(
            lambda: self._letters().resend(self._letters().find(name), self.application, who=who, why=why)
        )

    async def drop(self, name: str, *, who: str = "", why: str = "") -> None:
        """List a dead letter no more.

        Raises:
            UnknownLetter: there is none.
        """
        await self._do(lambda: self._letters().drop(self._letters().find(name), who=who, why=why))

    async def outbox(self, after: Mapping[int, str] | None = None, *, follow: bool = True) -> AsyncIterator[Published]:
        """Published events, each once: those there are, then (with `follow`) those that come.

        `after` holds the last id of each partition that was read before (`OutboxReader.places`).
        """
        log = await self._do(lambda: RedisLog.open(self._session.url, self._session.archive, log_id=self._log_id()))
        reader = OutboxReader(log, after)
        try:
            while True:
                found = await asyncio.to_thread(lambda: list(reader.read(200 if follow else 0)))
                for each in found:
                    yield each
                if not found and not follow:
                    return
        finally:
            log.close()

    def _letters(self) -> Letters:
        return Letters(self._session.log, self.settings.data / "dead-letters.jsonl")

    def _log_id(self) -> str:
        return self._session.log.header.log_id

    async def _do(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In the client's one thread: log and view are one thread's at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *args, **kwargs))

    # The last one: behind it the name hides the builtin.
    async def list(self, wanted: Filter = ALL, *, limit: int = 100, after: After | None = None) -> list[Run]:
        """Runs that match, the newest first; `after` (workflow, key, run id) is the last run of the page before.

        Raises:
            UnknownRun: there is no such run as `after`.
        """
        return [Run.of(row) for row in await self._do(self._rows, wanted, limit, after)]


HALTED_ONLY: tuple[Order, ...] = ("resume", "skip")
RETRIED = ("failed", "waiting")


def find_row(view: View, target: str) -> RunRow:
    """The run of an address; the whole text may be the key too, since keys may hold a slash.

    Raises:
        UnknownRun, AmbiguousKey: `[WORKFLOW/]KEY` names no run, or several.
    """
    workflow, slash, key = target.partition("/")
    found = view.of_key(target) + (view.of_key(key, workflow) if slash else [])
    if len(found) > 1:
        names = [f"{row.workflow}/{row.key}" for row in found]
        raise AmbiguousKey(f"{target!r} names {len(found)} runs: {', '.join(names)}; write one of these")
    if not found:
        raise UnknownRun(f"there is no run {target!r}; `longwatch list` shows those there are")
    return found[0]


def _name_of(entry: EventEntry | AnswerEntry | OrderEntry) -> str:
    match entry:
        case EventEntry():
            return entry.id
        case AnswerEntry():
            return entry.call
        case OrderEntry():
            return entry.order


def _envelope(event: Sendable, key: str) -> CloudEvent:
    if isinstance(event, CloudEvent):
        said = {name: value for name, value in msgspec.structs.asdict(event).items() if value}
        return read_envelope(msgspec.json.encode(said))
    if isinstance(event, Event):
        return envelope_of(event, key=key)
    return read_envelope(event if isinstance(event, bytes) else msgspec.json.encode(event))


def _reached(cursor: str | None, receipt: Receipt) -> bool:
    return cursor is not None and order_of(cursor) >= order_of(output_id(receipt.position, 0))


def _because(records: Iterable[Record]) -> list[Line]:
    """What led into the state (or halted the run), and what came after, in order; the first is the answer."""
    found: list[Record] = []
    for record in records:
        found.append(record)
        moved = record.from_ != record.to and not record.ignored
        if moved or _halts(record):
            break
    return list(lines(found[::-1]))


def _halts(record: Record) -> bool:
    return record.halted is not None and not record.ignored and record.halted.at == record.at
