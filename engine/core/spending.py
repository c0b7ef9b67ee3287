"""The fold's side of budgets: a call is paid for before it begins, and settled when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from pydantic import ValidationError

from engine.core import account
from engine.core.budget import lacking, micro
from engine.core.entry import AnswerEntry, Asker, EventEntry, FailureEntry, ResultEntry, Used
from engine.core.ids import CallId, RunId
from engine.core.model import BudgetSpent, Raise
from engine.core.reaction import AskRun
from engine.core.record import Asks, Spent
from engine.core.snapshot import Pending
from engine.core.steps import BUDGET, Step
from engine.core.trace import span_id, traceparent

if TYPE_CHECKING:
    from engine.core.fold import Fold

GROUP = "budgets"
RESERVE = ".budget"
"""Behind a call's id: the reservation for it, whose answer must not be taken for the call's."""
LATE = "late: no call waits for this reservation any longer"


def pay(fold: Fold, call: Pending, step: Step[Any, Any]) -> Pending:
    """Reserve what the call may use. Its status says whether it may run now, or what it waits for."""
    budget, needs = fold.workflow.budget, step.spends
    if budget is None or needs is None or call.reserved:
        return msgspec.structs.replace(call, status="running", asks=None)
    if budget.run is not None:
        spent = fold.snap.spent or Spent()
        if why := lacking(budget.run, spent, needs):
            return broke(fold, call, "run", why)
        fold.snap.spent = spent
    held_tokens, held_cost = needs.tokens or 0, needs.cost or 0
    call = msgspec.structs.replace(
        call, reserved=True, held_tokens=held_tokens, held_cost=held_cost, asks=None, status="running"
    )
    _hold(fold, call, 1)
    if not budget.shared:
        return call
    reserve = account.Reserve(
        account=fold.workflow.account,
        call=_name(fold, call),
        origin=_origin(fold),
        waits=not _handled(fold),
        needs=_needs(call),
        bounds=account.Bounds.of(budget),
    )
    asker = Asker(fold.workflow.name, fold.entry.key, fold.snap.run, CallId(f"{call.id}{RESERVE}"))
    fold.commands.append(AskRun(reserve, asker, _place(fold), "", *fold.carried()))
    return msgspec.structs.replace(call, status="reserving", account=fold.workflow.account)


def granted(fold: Fold, entry: ResultEntry) -> str:
    """What the account answered."""
    answer = account.Granted.model_validate_json(bytes(entry.output))
    if not answer.granted:
        return refused(fold, entry, answer.why)
    if (call := _reserving(fold, entry)) is None:
        return LATE
    fold.launch(msgspec.structs.replace(call, status="running"))
    return ""


def _reserving(fold: Fold, entry: ResultEntry | FailureEntry) -> Pending | None:
    id_ = entry.call.removesuffix(RESERVE)
    waiting = (c for c in fold.snap.calls if c.id == id_ and c.status == "reserving")
    return next(waiting, None) if entry.run == fold.snap.run else None


def refused(fold: Fold, entry: ResultEntry | FailureEntry, why: str) -> str:
    """The account has nothing left for it, or cannot answer: it may be over, or left out what halted it."""
    if (call := _reserving(fold, entry)) is None:
        return LATE
    _hold(fold, call, -1)
    fold.put(broke(fold, free(call), call.account, why))
    return ""


def broke(fold: Fold, call: Pending, budget: str, why: str) -> Pending:
    """It cannot be paid for: the state is told that handles `BudgetSpent`, and the call waits for people."""
    if _handled(fold):
        event = BudgetSpent(budget=budget, step=call.step, reason=why)
        data = Raw(event.model_dump_json().encode())
        id_, source = f"{_name(fold, call)}{RESERVE}", f"longwatch/{fold.workflow.name}"
        entry = EventEntry(fold.workflow.name, fold.entry.key, id_, source, BudgetSpent.__name__, data)
        fold.snap.kept = (*fold.snap.kept, entry)
    whose = "this run" if budget == "run" else f"account {budget!r}"
    asks = Asks(GROUP, call.id, BUDGET, f"{call.step}: the budget of {whose} is spent: {why}", fold.at)
    return msgspec.structs.replace(call, status="asking", asks=asks)


def unsay(fold: Fold, call: Pending) -> None:
    """It is over before its state heard that it cannot be paid for: no later state is to hear so."""
    id_ = f"{_name(fold, call)}{RESERVE}"
    if any(e.id == id_ for e in fold.snap.kept):
        fold.snap.kept = tuple(e for e in fold.snap.kept if e.id != id_)


def raised(fold: Fold, call: Pending, entry: AnswerEntry) -> str:
    """A person says how much more, for this call and others of the run that wait for the same; or no more."""
    try:
        more = Raise.model_validate_json(bytes(entry.answer))
    except ValidationError as error:
        return f"the answer is no Raise: {error.errors()[0]['msg']}"
    if more.eur <= 0 and more.tokens <= 0:
        fold.lost(call, "BudgetRefused", f"{entry.who} gave no more")
        return ""
    spent = fold.snap.spent or Spent()
    fold.snap.spent = msgspec.structs.replace(
        spent, more_tokens=spent.more_tokens + more.tokens, more_cost=spent.more_cost + micro(more.eur)
    )
    for one in fold.snap.calls:
        if one.asks is not None and one.asks.name == BUDGET:
            fold.pay(one)
    return ""


def settle(fold: Fold, call: Pending) -> None:
    """It is over: what it used is spent, what else was reserved for it is free."""
    if not call.reserved:
        return
    _hold(fold, call, -1)
    if (spent := fold.snap.spent) is not None:
        tokens, cost = spent.tokens + call.tokens, spent.cost + call.cost
        fold.snap.spent = msgspec.structs.replace(spent, tokens=tokens, cost=cost)
    if call.account:
        used = account.Sum(tokens=call.tokens, cost=call.cost)
        _tell(fold, call.account, fold.snap.run, _name(fold, call), _needs(call), used)


def free(call: Pending) -> Pending:
    """With nothing reserved for it."""
    return msgspec.structs.replace(call, reserved=False, held_tokens=0, held_cost=0, account="")


def use(fold: Fold, used: Used | None, call: Pending | None) -> Pending | None:
    """Count what a model call took: in its call until that is settled, at once where nothing was reserved.

    A result that comes too late was paid for all the same.
    """
    if used is None or fold.workflow.budget is None:
        return call
    held = call is not None and call.reserved
    if fold.workflow.budget.run is not None:
        spent = fold.snap.spent or Spent()
        fold.snap.spent = msgspec.structs.replace(
            spent,
            tokens=spent.tokens + (0 if held else used.tokens),
            cost=spent.cost + (0 if held else used.cost or 0),
            unpriced=spent.unpriced + (used.cost is None),
        )
    if call is not None and held:
        return msgspec.structs.replace(call, tokens=call.tokens + used.tokens, cost=call.cost + (used.cost or 0))
    took(fold, fold.snap.run, used)
    return call


def took(fold: Fold, run: RunId, used: Used | None) -> None:
    """Tell the account what a model call took for which nothing was reserved, or not any more."""
    if used is not None and (key := fold.workflow.account):
        spent = account.Sum(tokens=used.tokens, cost=used.cost or 0)
        _tell(fold, key, run, "", account.Sum(), spent)


def _hold(fold: Fold, call: Pending, sign: int) -> None:
    """Reserve what is held for a call in the run's own budget, or give it back."""
    if (spent := fold.snap.spent) is not None:
        fold.snap.spent = msgspec.structs.replace(
            spent,
            reserved_tokens=spent.reserved_tokens + sign * call.held_tokens,
            reserved_cost=spent.reserved_cost + sign * call.held_cost,
        )


def _needs(call: Pending) -> account.Sum:
    return account.Sum(tokens=call.held_tokens, cost=call.held_cost)


def _handled(fold: Fold) -> bool:
    spec = fold.workflow.specs.get(fold.snap.state)
    return spec is not None and BudgetSpent.__name__ in spec.events


def _name(fold: Fold, call: Pending) -> str:
    return f"{fold.snap.run}.{call.id}"


def _tell(fold: Fold, key: str, run: RunId, call: str, needs: account.Sum, used: account.Sum) -> None:
    settle = account.Settle(account=key, call=call, origin=_origin(fold), needs=needs, used=used)
    asker = Asker(fold.workflow.name, fold.entry.key, run)
    fold.commands.append(AskRun(settle, asker, _place(fold), "", *fold.carried()))


def _place(fold: Fold) -> str:
    """Accounts are asked by the episode, not by an attempt: one that cannot be paid for never begins."""
    span = span_id("episode", fold.snap.run, fold.episode.seq if fold.episode is not None else 0)
    return traceparent(fold.trace, span)


def _origin(fold: Fold) -> account.Origin:
    """Where it is asked: rises within a partition, so an account knows what it was told before a crash."""
    return account.Origin(partition=fold.place.partition, position=fold.place.position, index=len(fold.commands))
