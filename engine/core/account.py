"""A budget that many runs share: a run of its own on the same log, written as any workflow is.

Calls reserve before they begin and are settled when they are over. What cannot be granted waits here, in order, until
a settled call or a person makes room; then the account stands in the inbox `budgets`.

After a crash the askers' entries are folded again and their questions come once more. Positions rise within a
partition, so an account that remembers the last one of each knows what it was told before.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from engine.core.budget import Budget, euros, micro
from engine.core.context import Context
from engine.core.definition import Workflow
from engine.core.entry import Asker
from engine.core.ids import CallId, RunId
from engine.core.model import Answer, Event, Question, State, at, on

ACCOUNTS = "longwatch-accounts"
"""The workflow's name."""
MAX_REFUSED = 100


class Part(BaseModel):
    """Plain data of an account."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sum(Part):
    """Tokens and money."""

    tokens: int = 0
    cost: int = 0
    """Millionths of a euro."""

    def plus(self, other: Sum, sign: int = 1) -> Sum:
        return Sum(tokens=self.tokens + sign * other.tokens, cost=self.cost + sign * other.cost)

    def above(self, bound: Bound) -> bool:
        return (bound.tokens is not None and self.tokens > bound.tokens) or (
            bound.cost is not None and self.cost > bound.cost
        )


class Bound(Part):
    """What they may not go above; None: there is no bound."""

    tokens: int | None = None
    cost: int | None = None

    def plus(self, more: Sum) -> Bound:
        return Bound(
            tokens=None if self.tokens is None else self.tokens + more.tokens,
            cost=None if self.cost is None else self.cost + more.cost,
        )

    def words(self) -> str:
        """As people read it."""
        money = "" if self.cost is None else f"{euros(self.cost)} EUR"
        tokens = "" if self.tokens is None else f"{self.tokens} tokens"
        return " and ".join(part for part in (money, tokens) if part)


class Bounds(Part):
    """What the definition says now."""

    total: Bound = Bound()
    day: Bound = Bound()

    @classmethod
    def of(cls, budget: Budget) -> Bounds:
        """The shared part of a workflow's budget."""
        total, day = (Bound(tokens=a.tokens, cost=a.cost) if a else Bound() for a in (budget.total, budget.day))
        return cls(total=total, day=day)


class Origin(Part):
    """The entry whose fold asks, and the how manieth thing that it asked for."""

    partition: int
    position: str
    index: int

    def order(self) -> tuple[int, ...]:
        return (*(int(part) for part in self.position.split("-")), self.index)


class Granted(Part):
    """Whether the call may begin, and if not, why."""

    granted: bool
    why: str = ""


class Reserve(Question[Granted], key="account"):
    """Before a call. `waits`: the answer may come when there is room again, however long that takes."""

    account: str
    call: str
    origin: Origin
    waits: bool
    needs: Sum
    bounds: Bounds


class Settle(Question[Granted], key="account"):
    """After it. Nobody waits for the answer."""

    account: str
    call: str
    origin: Origin
    needs: Sum
    used: Sum


class BudgetRaised(Event, key="account"):
    """A person adds to an account: to the whole, and to the day that it is given on."""

    account: str
    eur: Decimal = Decimal(0)
    tokens: int = 0


class Waiting(Part):
    """A call that could not be granted."""

    call: str
    needs: Sum
    asker: tuple[str, str, str, str]

    def granted(self) -> Answer[Granted]:
        workflow, key, run, call = self.asker
        return Answer(Asker(workflow, key, RunId(run), CallId(call)), Granted(granted=True))


class Account(State):
    """Holds in both states."""

    account: str
    bounds: Bounds
    today: date
    spent: Sum = Sum()
    spent_today: Sum = Sum()
    reserved: Sum = Sum()
    more: Sum = Sum()
    more_today: Sum = Sum()
    waiting: tuple[Waiting, ...] = ()
    refused: tuple[str, ...] = ()
    """The calls refused last: one that is settled before it heard so has nothing to give back."""
    heard: tuple[Origin, ...] = ()

    @on
    def reserve(self, event: Reserve, ctx: Context) -> Served:
        if (now := self.on_day(ctx.now.date()).hear(event.origin)) is None:
            return (self.same(),)
        refused = tuple(r for r in now.refused if r != event.call)
        now = now.model_copy(update={"bounds": event.bounds, "refused": refused})
        asker = ctx.asker
        if asker is None:
            return (now.same(),)
        now, granted = now.granting()  # the bounds may have grown since
        if not now.waiting and not now.lacks(event.needs):
            new = now.model_copy(update={"reserved": now.reserved.plus(event.needs)})
            return new.same(), *granted, Answer(asker, Granted(granted=True))
        if not event.waits:
            new = now.model_copy(update={"refused": (*refused[1 - MAX_REFUSED :], event.call)})
            why = now.lacks(event.needs) or "others wait"
            return new.same(), *granted, Answer(asker, Granted(granted=False, why=why))
        names = (asker.workflow, asker.key, str(asker.run), str(asker.call))
        one = Waiting(call=event.call, needs=event.needs, asker=names)
        return now.model_copy(update={"waiting": (*now.waiting, one)}).same(), *granted

    @on
    def settle(self, event: Settle, ctx: Context) -> Served:
        if (now := self.on_day(ctx.now.date()).hear(event.origin)) is None:
            return (self.same(),)
        waiting = tuple(w for w in now.waiting if not event.call or w.call != event.call)
        reserved = len(waiting) == len(now.waiting) and event.call not in now.refused
        held = event.needs if reserved else Sum()
        return now.model_copy(
            update={
                "waiting": waiting,
                "refused": tuple(r for r in now.refused if r != event.call),
                "reserved": now.reserved.plus(held, -1),
                "spent": now.spent.plus(event.used),
                "spent_today": now.spent_today.plus(event.used),
            }
        ).serve()

    @on
    def raised(self, event: BudgetRaised, ctx: Context) -> Served:
        now, more = self.on_day(ctx.now.date()), Sum(tokens=event.tokens, cost=micro(event.eur))
        return now.model_copy(update={"more": now.more.plus(more), "more_today": now.more_today.plus(more)}).serve()

    def lacks(self, needs: Sum) -> str:
        """Why so much cannot be reserved; empty: it can."""
        wanted = self.reserved.plus(needs)
        for name, bound, spent in (
            ("whole", self.bounds.total.plus(self.more), self.spent),
            ("day's", self.bounds.day.plus(self.more_today), self.spent_today),
        ):
            if wanted.plus(spent).above(bound):
                used = f"{euros(spent.cost)} EUR and {spent.tokens} tokens are spent"
                held = f"{euros(self.reserved.cost)} EUR and {self.reserved.tokens} tokens reserved"
                return f"the {name} budget of account {self.account!r} is {bound.words()}: {used}, {held}"
        return ""

    def serve(self) -> Served:
        """Grant what waits, as far as there is room."""
        now, granted = self.granting()
        return now.same(), *granted

    def granting(self) -> tuple[Account, tuple[Answer[Granted], ...]]:
        """What is left when it has granted what waits, in order, as far as there is room; and the answers."""
        reserved, served = self.reserved, 0
        for one in self.waiting:
            if self.model_copy(update={"reserved": reserved}).lacks(one.needs):
                break
            reserved, served = reserved.plus(one.needs), served + 1
        now = self.model_copy(update={"reserved": reserved, "waiting": self.waiting[served:]})
        return now, tuple(one.granted() for one in self.waiting[:served])

    def on_day(self, today: date) -> Account:
        """A new day has a budget of its own."""
        if today == self.today:
            return self
        return self.model_copy(update={"today": today, "spent_today": Sum(), "more_today": Sum()})

    def hear(self, origin: Origin) -> Account | None:
        """None: this was heard before."""
        last = next((h for h in self.heard if h.partition == origin.partition), None)
        if last is not None and origin.order() <= last.order():
            return None
        others = (h for h in self.heard if h.partition != origin.partition)
        return self.model_copy(update={"heard": (*others, origin)})

    def same(self) -> Open | Spent:
        """The state that fits what waits."""
        kind = Spent if self.waiting else Open
        return kind.model_construct(**dict(self))


class Open(Account, endless=True):
    """There is room, or nobody waits."""


class Spent(Account, asks="budgets", endless=True):
    """Calls wait until somebody raises the budget, a call is settled, or a new day begins."""

    @at
    def midnight(self) -> datetime:
        return datetime.combine(self.today + timedelta(days=1), time(), UTC)

    @midnight.due
    def another_day(self, ctx: Context) -> Served:
        return self.on_day(ctx.now.date()).serve()


def open_account(first: Reserve | Settle | BudgetRaised, ctx: Context) -> Served:
    """An account begins with the first that is said to it."""
    bounds = first.bounds if isinstance(first, Reserve) else Bounds()
    empty = Open(account=first.account, bounds=bounds, today=ctx.now.date())
    if isinstance(first, Reserve):
        return empty.reserve(first, ctx)
    if isinstance(first, Settle):
        return empty.settle(first, ctx)
    return empty.raised(first, ctx)


Served = tuple[Open | Spent | Answer[Granted], ...]
"""The account as it is then, and the answers that can be given."""


accounts = Workflow(ACCOUNTS, start=open_account, states=[Open, Spent])
