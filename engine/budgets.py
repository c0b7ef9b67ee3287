"""How much of the budgets is spent, reserved and left, and who waits for more. Money is in millionths of a euro."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from engine.core.account import ACCOUNTS, Account, Bound, Bounds, Sum, accounts
from engine.core.context import moment
from engine.core.record import Spent
from engine.core.spending import GROUP
from engine.view.history import record_at
from engine.view.inbox import InboxFilter
from engine.view.view import Filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.core.application import Application
    from engine.core.budget import Amount
    from engine.core.record import Record
    from engine.log.redis_log import RedisLog
    from engine.view.view import RunRow, View

SHOWN = 20
"""How many of those that wait are named."""


@dataclass(frozen=True)
class Balance:
    """One bound, and what stands against it."""

    period: str
    """`run`, `total` or `day`."""
    bound: Bound
    """With what people added."""
    spent: Sum
    reserved: Sum


@dataclass(frozen=True)
class BudgetState:
    """A budget: an account that workflows share, what each run of a workflow may use, or what one run has used."""

    kind: str
    """`account`, `workflow` or `run`."""
    name: str
    workflows: tuple[str, ...]
    balances: tuple[Balance, ...]
    waiting: tuple[str, ...]
    """Runs that wait for more, the first of them."""
    more_waiting: int = 0
    unpriced: int = 0
    """Model calls whose price is not known: they are not in what is spent."""


class Budgets:
    """Of one log, in the client's thread."""

    def __init__(self, log: RedisLog, view: View, application: Application | None) -> None:
        self._log, self._view, self._application = log, view, application

    def all(self) -> list[BudgetState]:
        """The accounts, then what the application gives each run."""
        return [*self._accounts(), *self._workflows()]

    def of_run(self, row: RunRow) -> BudgetState:
        """What one run has used."""
        record = record_at(self._log, row.partition, row.last)
        spent = record.spent if record and record.spent else Spent()
        bound = self._bound_of_run(row.workflow)
        more = Sum(tokens=spent.more_tokens, cost=spent.more_cost)
        balance = Balance(
            "run",
            bound.plus(more),
            Sum(tokens=spent.tokens, cost=spent.cost),
            Sum(tokens=spent.reserved_tokens, cost=spent.reserved_cost),
        )
        address = f"{row.workflow}/{row.key}"
        waits = (address,) if record and any(asks.group == GROUP for asks in record.asks) else ()
        return BudgetState("run", address, (row.workflow,), (balance,), waits, unpriced=spent.unpriced)

    def _accounts(self) -> Iterator[BudgetState]:
        shared = self._shared()
        rows = {row.key: row for row in self._view.every(Filter(workflow=ACCOUNTS))}
        for name in sorted({*shared, *rows}):
            yield self._account(name, tuple(shared.get(name, ())), rows.get(name))

    def _account(self, name: str, workflows: tuple[str, ...], row: RunRow | None) -> BudgetState:
        record = record_at(self._log, row.partition, row.data) if row else None
        if record is None:
            bounds, spent = self._bounds(workflows), Sum()
            return BudgetState("account", name, workflows, _balances(bounds, spent, spent, spent), ())
        now = self._today(record)
        bounds = Bounds(total=now.bounds.total.plus(now.more), day=now.bounds.day.plus(now.more_today))
        waiting = tuple(dict.fromkeys(f"{each.asker[0]}/{each.asker[1]}" for each in now.waiting))
        balances = _balances(bounds, now.spent, now.spent_today, now.reserved)
        return BudgetState("account", name, workflows, balances, waiting[:SHOWN], len(waiting[SHOWN:]))

    def _today(self, record: Record) -> Account:
        """The account as it stands on the day up to which the view has come."""
        state = cast("Account", accounts.specs[record.to].read(bytes(record.data)))
        return state.on_day(moment(self._view.as_of()).date())

    def _workflows(self) -> Iterator[BudgetState]:
        for workflow in self._application.workflows.values() if self._application else ():
            if workflow.budget and workflow.budget.run:
                wanted = InboxFilter(GROUP, workflow.name)
                rows = self._view.inbox(wanted, limit=SHOWN)
                count = sum(each.waiting for each in self._view.inbox_counts(wanted))
                waiting = tuple(dict.fromkeys(f"{row.workflow}/{row.key}" for row in rows))
                balance = Balance("run", self._bound_of_run(workflow.name), Sum(), Sum())
                yield BudgetState(
                    "workflow", workflow.name, (workflow.name,), (balance,), waiting, max(0, count - len(rows))
                )

    def _shared(self) -> dict[str, list[str]]:
        """The application's accounts, and the workflows of each."""
        found: dict[str, list[str]] = {}
        for workflow in self._application.workflows.values() if self._application else ():
            if workflow.account:
                found.setdefault(workflow.account, []).append(workflow.name)
        return found

    def _bounds(self, workflows: tuple[str, ...]) -> Bounds:
        known = self._application.workflows if self._application else {}
        found = [known[name].budget for name in workflows]
        return next((Bounds.of(budget) for budget in found if budget), Bounds())

    def _bound_of_run(self, name: str) -> Bound:
        workflow = self._application.workflows.get(name) if self._application else None
        amount: Amount | None = workflow.budget.run if workflow and workflow.budget else None
        return Bound(tokens=amount.tokens, cost=amount.cost) if amount else Bound()


def _balances(bounds: Bounds, spent: Sum, today: Sum, reserved: Sum) -> tuple[Balance, ...]:
    every = (Balance("total", bounds.total, spent, reserved), Balance("day", bounds.day, today, reserved))
    return tuple(each for each in every if each.bound != Bound() or each.period == "total")
