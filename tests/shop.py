"""A small application for tests of everything around the fold: orders that are paid, looked at, shipped or given up."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel

from engine.core.application import Application
from engine.core.definition import Workflow
from engine.core.model import Event, Final, Publish, Searchable, State, StepFailed, after, every, on, publish, runs
from engine.core.steps import Call, Retry, step

POISON = "poison"


class Order(BaseModel, frozen=True):
    order_id: str
    region: Annotated[str, Searchable]
    eur: int


class OrderPlaced(Event, key="order.order_id"):
    order: Order


class Decided(Event):
    approve: bool
    note: str = ""


class Shouted(Event):
    text: str


class OrderShipped(Event, key="order_id"):
    order_id: str


@step(retry=Retry(attempts=1))
async def charge(eur: int) -> str:
    if eur < 0:
        message = "card declined"
        raise ValueError(message)
    return f"receipt for {eur}"


@step(retry=Retry(attempts=1))
async def remind(text: str) -> None:
    if text == POISON:
        message = "no reminders for poison"
        raise ValueError(message)


class Open(State):
    order: Order

    @on
    def shouted(self, event: Shouted) -> Call[None]:
        return remind.call(event.text)


class Charging(Open):
    """The card is charged."""

    @runs(charge)
    def charging(self) -> int:
        return self.order.eur

    @charging.done
    def charged(self, receipt: str) -> Review:
        return Review(order=self.order, receipt=receipt)

    @charging.failed
    def declined(self, failure: StepFailed) -> GivenUp:
        return GivenUp(reason=failure.error)


class Review(Open):
    """Somebody looks at it."""

    receipt: str

    @on
    def decided(self, event: Decided) -> Shipped | GivenUp | tuple[Shipped, Publish]:
        if event.note == POISON:
            message = "this note [bold]cannot[/bold] be\x1b[31m read"
            raise RuntimeError(message)
        if event.approve:
            return Shipped(order=self.order), publish(OrderShipped(order_id=self.order.order_id))
        return GivenUp(reason=event.note)

    @every(days=3)
    def nudge(self) -> Call[None]:
        return remind.call(self.order.order_id)

    @after(days=14)
    def expire(self) -> GivenUp:
        return GivenUp(reason="nobody looked")


class Shipped(Final):
    order: Order


class GivenUp(Final):
    reason: str


def place(event: OrderPlaced) -> Charging:
    return Charging(order=event.order)


orders = Workflow("orders", start=place, states=[Charging, Review, Shipped, GivenUp])


class Counting(State):
    """Counts the days of an order beside it, under the same key."""

    order: Order

    @after(days=30)
    def over(self) -> Counted:
        return Counted()


class Counted(Final):
    pass


def count(event: OrderPlaced) -> Counting:
    return Counting(order=event.order)


ledger = Workflow("ledger", start=count, states=[Counting, Counted])

app = Application(workflows=[orders])
both = Application(workflows=[orders, ledger])
