"""Small workflows, one for each thing that a fold must get right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel

from engine import (
    Call,
    Context,
    Event,
    Final,
    Publish,
    Retry,
    Searchable,
    State,
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
from engine.core.context import moment

# Steps ----------------------------------------------------------------------------------------------------------------


@step(retry=Retry(attempts=3, first_wait=timedelta(seconds=10), factor=3, longest_wait=timedelta(seconds=20)))
async def fetch(name: str) -> int:
    return len(name)


@step(retry=Retry(attempts=100, first_wait=timedelta(seconds=60)), total=timedelta(seconds=200))
async def patient(name: str) -> int:
    return len(name)


@step(retry=Retry(attempts=1))
async def tell(text: str) -> None: ...


@step(retry=Retry(attempts=2, first_wait=timedelta(seconds=5)))
async def check_item(item: int) -> int:
    return item * 10


# An order: events, timers, superstate, calls that nobody waits for ----------------------------------------------------


class Placed(Event, key="order"):
    order: str
    amount: int = 0


class Paid(Event):
    amount: int


class Shipped(Event):
    parcel: str


class Withdrawn(Event):
    why: str


class Gift(Event):
    text: str


class Noise(Event):
    pass


class Poked(Event):
    text: str = ""


class Sold(Event):
    order: str
    amount: int


class Open(State):
    """The whole order must be over in 30 days."""

    order: Annotated[str, Searchable]

    @on
    def withdrawn(self, event: Withdrawn) -> tuple[Dropped, Publish]:
        return Dropped(order=self.order, why=event.why), publish(Sold(order=self.order, amount=0))

    @after(days=30)
    def overdue(self) -> Dropped:
        return Dropped(order=self.order, why="overdue")

    @every(days=8)
    def weekly(self) -> Call[None]:
        return tell.call(f"{self.order} is open")


class Waiting(Open):
    """For the money; documents and parcels may come too early."""

    later = (Shipped,)
    ignores = (Noise,)
    pokes: int = 0
    seen: tuple[str, ...] = ()

    @on
    def paid(self, event: Paid) -> Packing | Waiting:
        if event.amount < 0:
            message = "a negative amount"
            raise ValueError(message)
        return Packing(order=self.order) if event.amount else self

    @on
    def poked(self, event: Poked, ctx: Context) -> Waiting | Call[None]:
        if event.text:
            return tell.call(event.text)
        line = f"{ctx.now:%H:%M} {ctx.key} {ctx.random.random():.6f} {ctx.uuid()}"
        return Waiting(order=self.order, pokes=self.pokes + 1, seen=(*self.seen, line))

    @every(days=3)
    def remind(self, ctx: Context) -> Waiting:
        line = f"reminded {ctx.now:%d %H:%M}"
        return Waiting(order=self.order, pokes=self.pokes, seen=(*self.seen, line))

    @after(days=14)
    def expire(self) -> Dropped:
        return Dropped(order=self.order, why="never paid")


class Packing(Open):
    ignores = (Poked, Paid)

    @enter
    def announce(self) -> Call[None]:
        return tell.call(f"pack {self.order}")

    @on
    def shipped(self, event: Shipped) -> Done:
        if event.parcel == "bad":
            message = "a bad parcel"
            raise ValueError(message)
        return Done(order=self.order, parcel=event.parcel)

    @on
    def heard(self, event: Noise) -> Packing:
        return self

    @after(days=7)
    def lost(self) -> Dropped:
        return Dropped(order=self.order, why="never shipped")


class Done(Final):
    order: str
    parcel: str

    @enter
    def thank(self) -> Call[None]:
        return tell.call("thanks")


class Dropped(Final):
    order: str
    why: str


def place(placed: Placed) -> Waiting:
    if placed.amount < 0:
        message = "no such order"
        raise ValueError(message)
    return Waiting(order=placed.order)


order = Workflow("order", start=place, states=[Waiting, Packing, Done, Dropped])


# Work: two steps at once, retries, fan-out ----------------------------------------------------------------------------


class Asked(Event):
    names: tuple[str, str] = ("ab", "abc")
    items: tuple[int, ...] = ()


class Fetching(State):
    names: tuple[str, str]
    items: tuple[int, ...] = ()

    @runs(fetch, patient)
    def lookups(self) -> tuple[str, str]:
        return self.names

    @lookups.done
    def found(self, first: int, second: int) -> Checking:
        return Checking(items=self.items, sizes=(first, second))

    @lookups.failed
    def lost(self, failure: StepFailed) -> Failed:
        return Failed(step=failure.step, error=failure.error, type=failure.type, attempts=failure.attempts)


class Checking(State):
    items: tuple[int, ...]
    sizes: tuple[int, int]

    @runs_each(check_item, limit=2)
    def checks(self) -> tuple[int, ...]:
        return self.items

    @checks.done
    def checked(self, results: tuple[int, ...], ctx: Context) -> Checked:
        return Checked(results=results, sizes=self.sizes, at=ctx.now)

    @checks.failed
    def unchecked(self, failure: StepFailed, ctx: Context) -> Failed:
        return Failed(step=failure.step, error=failure.error, type=ctx.key, attempts=failure.attempts)


class Checked(Final):
    results: tuple[int, ...]
    sizes: tuple[int, int]
    at: datetime


class Failed(Final):
    step: str
    error: str
    type: str
    attempts: int


def ask(asked: Asked) -> Fetching:
    return Fetching(names=asked.names, items=asked.items)


work = Workflow("work", start=ask, states=[Fetching, Checking, Checked, Failed])


# A time from data -----------------------------------------------------------------------------------------------------


class Booked(Event):
    when: datetime | None = None


class Moved(Event):
    when: datetime | None = None


class Noted(Event):
    note: str


class Trip(State):
    """A base class with a time from data of its own."""

    when: datetime | None
    notes: tuple[str, ...] = ()

    @at
    def eve(self) -> datetime | None:
        return self.when - timedelta(days=1) if self.when else None

    @eve.due
    def packed(self, ctx: Context) -> Call[None]:
        return tell.call(f"pack your bags {ctx.now:%d}")


class Planned(Trip):
    @at
    def departure(self, ctx: Context) -> datetime | None:
        return self.when if ctx.key else None

    @departure.due
    def left(self) -> Away | Planned:
        if "wait" in self.notes:
            return Planned(when=self.when, notes=(*self.notes, "waited"))
        return Away(when=self.when, notes=self.notes)

    @on
    def moved(self, event: Moved) -> Planned:
        return Planned(when=event.when, notes=self.notes)

    @on
    def noted(self, event: Noted) -> Planned | Away:
        if event.note == "go":
            return Away(when=self.when, notes=self.notes)
        return Planned(when=self.when, notes=(*self.notes, event.note))

    @after(days=300)
    def forgotten(self) -> Home:
        return Home()


class Away(Trip):
    @after(days=20)
    def back(self) -> Home:
        return Home()


class Home(Final):
    pass


def book(booked: Booked) -> Planned:
    return Planned(when=booked.when)


trip = Workflow("trip", start=book, states=[Planned, Away, Home])


# Things that go wrong -------------------------------------------------------------------------------------------------


class Began(Event):
    pass


class Do(Event):
    what: str = ""
    size: int = 0


class Rudeness(BaseException):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise Rudeness


class Fragile(State):
    log: tuple[str, ...] = ()
    number: float = 0.0

    @on
    def do(self, event: Do) -> Fragile | Fine | Nowhere | Publish | Call[None]:
        answer: Any = WRONG.get(event.what)
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            return answer(event)  # type: ignore[no-any-return]  # wrong on purpose
        return Fragile(log=(*self.log, event.what), number=self.number)

    @on
    def gift(self, event: Gift) -> Nowhere:
        return Nowhere()

    @after(days=10)
    def end(self, ctx: Context) -> Fine:
        if "break the timer" in self.log:
            message = "the timer broke"
            raise RuntimeError(message)
        return Fine()

    @every(days=2)
    def tock(self) -> Fragile:
        if "break the clock" in self.log:
            message = "the clock broke"
            raise RuntimeError(message)
        return Fragile(log=(*self.log, "tock"))


WRONG: dict[str, Any] = {
    "raise": ValueError("as told"),
    "exit": SystemExit(3),
    "rude": Rudeness("very"),
    "mute": Mute(),
    "surrogate": ValueError("\ud800 is half a letter"),
    "nothing": lambda _: None,
    "number": lambda _: 7,
    "started": lambda _: Began(),
    "unwritten": lambda _: Fragile.model_construct(log=(1, 2)),  # type: ignore[arg-type]  # wrong on purpose
    "unnamed": lambda _: Hidden(),
    "two": lambda _: (Fine(), Fine()),
    "large": lambda event: Fragile(log=("x" * event.size,)),
    "publish": lambda _: publish(Do(what="again")),
    "input": lambda _: Call(tell, 3),
    "nan": lambda _: Fragile(number=float("nan")),
    "fine": lambda _: Fine(),
    "nowhere": lambda _: Nowhere(),
}


class Nowhere(State):
    """Leads around in a circle without a wait."""

    @runs_each(check_item)
    def nothing(self) -> tuple[int, ...]:
        return ()

    @nothing.done
    def around(self, results: tuple[int, ...]) -> Elsewhere:
        return Elsewhere()

    @nothing.failed
    def out(self, failure: StepFailed) -> Fine:
        return Fine()


class Elsewhere(State):
    @runs_each(check_item)
    def nothing(self) -> tuple[int, ...]:
        return ()

    @nothing.done
    def around(self, results: tuple[int, ...]) -> Nowhere | Fine:
        return Nowhere()

    @nothing.failed
    def out(self, failure: StepFailed) -> Fine:
        return Fine()


class Hidden(State):
    @after(days=1)
    def gone(self) -> Fine:
        return Fine()

    @on
    def did(self, event: Do) -> Hidden:
        return self


class Fine(Final):
    pass


def begin(began: Began) -> Fragile | Hidden:
    return Fragile()


fragile = Workflow("fragile", start=begin, states=[Fragile, Nowhere, Elsewhere, Hidden, Fine])


def utc(ms: int) -> datetime:
    return moment(ms).astimezone(UTC)


class Pair(BaseModel, frozen=True):
    left: int
    right: int


# A run whose last state calls -----------------------------------------------------------------------------------------


class Closed(Final):
    @enter
    def audit(self) -> Call[int]:
        return check_item.call(1)


def close(began: Began) -> Closed:
    return Closed()


claim = Workflow("claim", start=close, states=[Closed])


# A time that is always over -------------------------------------------------------------------------------------------


class Restless(State):
    turns: int = 0

    @at
    def again(self) -> datetime:
        return utc(-self.turns)

    @again.due
    def turned(self) -> Restless | Fine:
        return Restless(turns=self.turns + 1)


def hurry(began: Began) -> Restless:
    return Restless()


restless = Workflow("restless", start=hurry, states=[Restless, Fine])


# A start without a state ----------------------------------------------------------------------------------------------


def idle(began: Began) -> Any:
    return tell.call("nothing began")


idle.__annotations__["return"] = Fine | Call[None]
stateless = Workflow("stateless", start=idle, states=[Fine])


# A step that is not tried again ---------------------------------------------------------------------------------------


@step(retry=Retry(never=(ValueError, KeyError)), name="strict_step")
async def strict_step(number: int) -> int:
    return number


class Trying(State):
    @runs(strict_step)
    def job(self, ctx: Context) -> int:
        return len(ctx.key)

    @job.done
    def worked(self, number: int) -> Fine:
        return Fine()

    @job.failed
    def broke(self, failure: StepFailed) -> Fallen:
        return Fallen(failure=failure)


class Fallen(Final):
    failure: StepFailed


def strictly(began: Began) -> Trying:
    return Trying()


strict = Workflow("strict", start=strictly, states=[Trying, Fine, Fallen])


# Handlers that do not keep to their annotations -----------------------------------------------------------------------


class Sloppy(State):
    what: str

    @enter
    def greet(self) -> Call[None]:
        return Fine() if self.what == "enter" else tell.call("hello")  # type: ignore[return-value]  # wrong on purpose

    @runs(fetch, patient)
    def lookups(self) -> tuple[str, str]:
        return ("one",) if self.what == "inputs" else ("one", "two")  # type: ignore[return-value]

    @lookups.done
    def found(self, first: int, second: int) -> Fine:
        return Fine()

    @lookups.failed
    def lost(self, failure: StepFailed) -> Fine:
        return Fine()


def slop(gift: Gift) -> Sloppy:
    return Sloppy(what=gift.text)


sloppy = Workflow("sloppy", start=slop, states=[Sloppy, Fine])


# A superstate's timers, overridden in one of its states ---------------------------------------------------------------


class Watched(State):
    @every(days=1)
    def watch(self) -> Call[None]:
        return tell.call("watched")

    @after(days=30)
    def end(self) -> Fine:
        return Fine()


class Asleep(Watched):
    @every(days=5)
    def watch(self) -> Call[None]:
        return tell.call("snored")

    @on
    def poked(self, event: Poked) -> Awake:
        return Awake()


class Awake(Watched):
    pass


def sleep(began: Began) -> Asleep:
    return Asleep()


watched = Workflow("watched", start=sleep, states=[Asleep, Awake, Fine])
