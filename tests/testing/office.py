"""A travel office: a long step that keeps and asks, a customer's memory in a run of its own, and people."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from engine import (
    Answered,
    Context,
    Event,
    Final,
    Leave,
    NeverAgain,
    Publish,
    Question,
    Retry,
    State,
    StepContext,
    StepFailed,
    StepHalts,
    TryAgain,
    Workflow,
    after,
    answers,
    ask,
    enter,
    on,
    publish,
    runs,
    step,
)


class Trips(BaseModel, frozen=True):
    count: int = 0


class TripsAsked(Question[Trips], key="customer"):
    customer: str


class TripBooked(Event, key="customer"):
    customer: str
    trip: str


class Remembering(State, endless=True):
    count: int

    @on
    def booked(self, event: TripBooked) -> Remembering:
        return Remembering(count=self.count + 1)

    @answers
    def trips(self, question: TripsAsked) -> Trips:
        return Trips(count=self.count)


def remember(event: TripBooked) -> Remembering:
    return Remembering(count=1)


customer = Workflow("customer", start=remember, states=[Remembering])


class World:
    """What the long step does outside; tests put it among the resources."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails: dict[str, list[Exception]] = {}

    async def do(self, what: str) -> str:
        self.done.append(what)
        if self.fails.get(what):
            raise self.fails[what].pop(0)
        return f"{what} done"


class Wish(BaseModel, frozen=True):
    trip: str
    asks: bool = False


@step(retry=Retry(attempts=3, first_wait=timedelta(minutes=1)))
async def book(wish: Wish, context: StepContext) -> list[str]:
    world: World = context.resources["world"]

    async def flight() -> str:
        return await world.do("flight")

    async def hotel() -> str:
        return await world.do("hotel")

    async def car() -> str:
        return await world.do("car")

    found = [await context.once("flight", flight)]
    context.progress("the flight is booked")
    found.append(await context.once("hotel", hotel))
    if wish.asks:
        answer: Answered[Leave] = await context.ask("bookers", f"A car in {wish.trip}?", Leave)
        if not answer.answer.granted:
            return [*found, f"no car, said {answer.who}"]
    found.append(await context.once("car", car))
    return found


ask_trips = ask(TripsAsked, otherwise=Trips())


class TripWanted(Event, key="trip"):
    trip: str
    customer: str
    asks: bool = False


class Approved(Event):
    discount: int = 0


class Cancelled(Event):
    pass


class Looking(State):
    wanted: TripWanted

    @runs(ask_trips)
    def history(self) -> TripsAsked:
        return TripsAsked(customer=self.wanted.customer)

    @history.done
    def known(self, trips: Trips) -> Deciding:
        return Deciding(wanted=self.wanted, trips=trips.count)

    @history.failed
    def unknown(self, failure: StepFailed) -> Dropped:
        return Dropped(why=failure.type)


class Deciding(State, asks="bookers"):
    """May this trip be booked?"""

    wanted: TripWanted
    trips: int

    @on
    def approved(self, event: Approved, ctx: Context) -> Booking:
        return Booking(wanted=self.wanted, by=ctx.who)

    @on
    def cancelled(self, event: Cancelled) -> Dropped:
        return Dropped(why="cancelled")

    @after(days=7)
    def forgotten(self) -> Dropped:
        return Dropped(why="nobody decided")


class Booking(State):
    wanted: TripWanted
    by: str

    @runs(book)
    def booking(self) -> Wish:
        return Wish(trip=self.wanted.trip, asks=self.wanted.asks)

    @booking.done
    def booked(self, parts: list[str]) -> Booked:
        return Booked(wanted=self.wanted, parts=tuple(parts), by=self.by)

    @booking.failed
    def failed(self, failure: StepFailed) -> Dropped:
        return Dropped(why=f"{failure.type}: {failure.error}")

    @on
    def cancelled(self, event: Cancelled) -> Dropped:
        return Dropped(why="cancelled")


class Booked(Final):
    wanted: TripWanted
    parts: tuple[str, ...]
    by: str

    @enter
    def tell(self) -> Publish:
        return publish(TripBooked(customer=self.wanted.customer, trip=self.wanted.trip))


class Dropped(Final):
    why: str


def begin(event: TripWanted) -> Looking:
    return Looking(wanted=event)


trip = Workflow("trip", start=begin, states=[Looking, Deciding, Booking, Booked, Dropped])

ROME = TripWanted(trip="rome", customer="ann")
FAILURES: dict[str, Any] = {"again": TryAgain, "never": NeverAgain, "halts": StepHalts}
