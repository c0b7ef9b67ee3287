"""Right in every way that a workflow may be written: the type checker must say nothing, and the definition neither."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel

from engine import (
    Application,
    Call,
    Context,
    Event,
    Final,
    Publish,
    Retry,
    Searchable,
    Secret,
    State,
    StepContext,
    StepFailed,
    Workflow,
    after,
    at,
    enter,
    every,
    on,
    publish,
    runs,
    runs_each,
    step,
)


class Item(BaseModel, frozen=True):
    name: str
    price: int = 0


class Ordered(Event, key="order"):
    order: str
    items: tuple[Item, ...]
    due: datetime


class Reordered(Event, key="order"):
    order: str


class Paid(Event):
    amount: int


class Withdrawn(Event):
    why: str = ""


class Sold(Event, key="order"):
    order: str


@step()
async def one(text: str) -> int:
    return len(text)


@step(retry=Retry(attempts=3, never=(ValueError,)), timeout=timedelta(seconds=3), total=timedelta(minutes=1))
async def two(number: int) -> str:
    return str(number)


@step(name="third")
async def three(item: Item, context: StepContext) -> Item:
    return Item(name=f"{item.name} {context.idempotency_key} {context.attempt}", price=len(context.resources))


async def lookup(item: Item) -> float | None:
    return None if item.price else 1.0


@step(reconcile=lookup)
async def four(item: Item) -> float:
    return item.price / 2


@step()
async def five(pair: tuple[int, str]) -> tuple[str, ...]:
    return (pair[1],)


class Open(State):
    order: Annotated[str, Searchable]
    card: Annotated[str, Secret] = ""

    @on
    def withdrawn(self, event: Withdrawn, ctx: Context) -> tuple[Closed, Publish]:
        return Closed(order=self.order, why=f"{event.why} {ctx.now}"), publish(Sold(order=self.order))

    @after(days=90)
    def overdue(self) -> Closed:
        return Closed(order=self.order, why="overdue")


class Everything(Open):
    """Five steps at once."""

    items: tuple[Item, ...]
    due: datetime

    @runs(one, two, three, four, five)
    def work(self, ctx: Context) -> tuple[str, int, Item, Item, tuple[int, str]]:
        return ctx.key, 2, self.items[0], self.items[1], (5, "five")

    @work.done
    def worked(self, a: int, b: str, c: Item, d: float, e: tuple[str, ...], ctx: Context) -> Each:
        return Each(order=f"{a}{b}{d}{e}{ctx.run_id}", items=(c, *self.items), due=self.due)

    @work.failed
    def broke(self, failure: StepFailed, ctx: Context) -> Closed:
        return Closed(order=self.order, why=f"{failure.step} {failure.error} {ctx.entered_at}")


class Each(Open):
    items: tuple[Item, ...]
    due: datetime

    @runs_each(four, limit=3)
    def prices(self, ctx: Context) -> Sequence[Item]:
        return [item for item in self.items if item.price and ctx.key]

    @prices.done
    def priced(self, prices: tuple[float, ...]) -> Waits:
        return Waits(order=self.order, total=sum(prices), due=self.due)

    @prices.failed
    def unpriced(self, failure: StepFailed) -> Closed | Waits:
        if failure.attempts > 1:
            return Waits(order=self.order, total=0, due=self.due)
        return Closed(order=self.order, why=failure.type)


class Waits(Open):
    later = (Reordered,)
    total: float
    due: datetime

    @enter
    def greet(self) -> Call[int]:
        return one.call("hello")

    @enter
    def tell(self, ctx: Context) -> tuple[Call[str], Publish]:
        return two.call(ctx.random.randint(1, 6)), publish(Sold(order=str(ctx.uuid())), key=ctx.key)

    @on
    def paid(self, event: Paid) -> tuple[Paying, Call[int], Publish]:
        return Paying(order=self.order, paid=event.amount), one.call("paid"), publish(Sold(order=self.order))

    @every(hours=12)
    def remind(self, ctx: Context) -> Call[int] | Publish:
        return one.call("pay") if ctx.now < self.due else publish(Sold(order=self.order))

    @at
    def deadline(self) -> datetime | None:
        return self.due

    @deadline.due
    def missed(self, ctx: Context) -> Closed:
        return Closed(order=self.order, why=str(ctx.now))

    @at
    def eve(self, ctx: Context) -> datetime:
        return max(self.due - timedelta(days=1), ctx.entered_at)

    @eve.due
    def warned(self) -> tuple[Waits, Call[int]]:
        return Waits(order=self.order, total=self.total, due=self.due), one.call("tomorrow")


class Paying(Open):
    ignores = (Paid,)
    paid: int

    @on
    def reordered(self, event: Reordered) -> Paying | Closed:
        return self if event.order == self.order else Closed(order=event.order, why="another")

    @after(hours=1)
    def closed(self, ctx: Context) -> Closed:
        return Closed(order=self.order, why=ctx.key)


class Closed(Final):
    order: str
    why: str


def start(event: Ordered | Reordered, ctx: Context) -> Everything | Closed:
    if isinstance(event, Reordered):
        return Closed(order=event.order, why="too early")
    return Everything(order=ctx.key, items=event.items, due=event.due)


good = Workflow(
    "good",
    start=start,
    states=[Everything, Each, Waits, Paying, Closed],
    on_key={Reordered: "order"},
    content=True,
)


@asynccontextmanager
async def connection() -> AsyncIterator[str]:
    yield "connected"


app = Application(workflows=[good], resources={"db": connection})
