"""Workflows that a real engine is tried with: whatever can happen to a run, chosen by the event that begins it.

Every attempt of a step leaves a line in `effects.log`; a line names the call by its idempotency key. The folder, and
whether handlers that failed are mended, come from the environment of the engine's process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Literal

from engine import (
    Application,
    Call,
    Event,
    Final,
    Publish,
    Retry,
    State,
    StepContext,
    StepFailed,
    Workflow,
    after,
    every,
    on,
    publish,
    runs,
    runs_each,
    step,
)

FOLDER = "LONGWATCH_WORLD"
MENDED = "LONGWATCH_WORLD_MENDED"
EFFECTS = "effects.log"

QUICK = Retry(attempts=4, first_wait=timedelta(milliseconds=20))


def effect(context: StepContext, name: str) -> None:
    """Note an attempt; a short write to the end of a file is whole or not there."""
    context.resources["notebook"].write(f"{context.idempotency_key} {context.attempt} {name}\n".encode())


@asynccontextmanager
async def notebook() -> AsyncIterator[IO[bytes]]:
    with (Path(os.environ[FOLDER]) / EFFECTS).open("ab", buffering=0) as file:
        yield file


# An order: parallel steps, a step for each item, retries, reminders, an end that is published ------------------------


class OrderPlaced(Event, key="id"):
    id: str
    customer: str
    items: tuple[str, ...] = ()
    flaky: int = 0
    """So many attempts to ship it fail."""


class OrderTouched(Event, key="id"):
    id: str


class OrderClosed(Event, key="customer"):
    customer: str
    order: str


class Shipment(State):
    """What is known in all states of an order."""

    id: str
    customer: str
    items: tuple[str, ...]
    flaky: int


@step(retry=QUICK)
async def check_stock(id: str, context: StepContext) -> bool:
    effect(context, "check_stock")
    return bool(id)


@step(retry=QUICK)
async def check_customer(customer: str, context: StepContext) -> str:
    await asyncio.sleep(0.005)
    effect(context, "check_customer")
    return customer


@step(retry=QUICK)
async def pack(item: str, context: StepContext) -> int:
    effect(context, "pack")
    return len(item)


@step(retry=QUICK)
async def ship(flaky: int, context: StepContext) -> str:
    if context.attempt <= flaky:
        raise ConnectionError("no truck today")
    effect(context, "ship")
    return f"truck {context.attempt}"


@step(retry=QUICK)
async def remind(customer: str, context: StepContext) -> None:
    effect(context, "remind")


class Checking(Shipment):
    @runs(check_stock, check_customer)
    def checks(self) -> tuple[str, str]:
        return self.id, self.customer

    @checks.done
    def checked(self, stock: bool, customer: str) -> Packing:
        return Packing(id=self.id, customer=customer, items=self.items, flaky=self.flaky)

    @checks.failed
    def unchecked(self, failure: StepFailed) -> Refused:
        return Refused(reason=failure.error)


class Packing(Shipment):
    @runs_each(pack, limit=2)
    def parcels(self) -> tuple[str, ...]:
        return self.items

    @parcels.done
    def packed(self, weights: tuple[int, ...]) -> Shipping:
        return Shipping(id=self.id, customer=self.customer, items=self.items, flaky=self.flaky, weight=sum(weights))

    @parcels.failed
    def unpacked(self, failure: StepFailed) -> Refused:
        return Refused(reason=failure.error)


class Shipping(Shipment):
    weight: int

    @runs(ship)
    def shipment(self) -> int:
        return self.flaky

    @shipment.done
    def shipped(self, truck: str) -> Resting:
        return Resting(
            id=self.id, customer=self.customer, items=self.items, flaky=self.flaky, weight=self.weight, truck=truck
        )

    @shipment.failed
    def unshipped(self, failure: StepFailed) -> Refused:
        return Refused(reason=failure.error)


class Resting(Shipment):
    weight: int
    truck: str
    touched: int = 0

    @on
    def touch(self, event: OrderTouched) -> Resting:
        return Resting(**{**self.model_dump(), "touched": self.touched + 1})

    @every(hours=10)
    def remind(self) -> Call[None]:
        return remind.call(self.customer)

    @after(days=1)
    def close(self) -> tuple[Closed, Publish]:
        return Closed(weight=self.weight, touched=self.touched), publish(
            OrderClosed(customer=self.customer, order=self.id)
        )


class Closed(Final):
    weight: int
    touched: int


class Refused(Final):
    reason: str


def place(event: OrderPlaced) -> Checking:
    return Checking(id=event.id, customer=event.customer, items=event.items, flaky=event.flaky)


order = Workflow("order", start=place, states=[Checking, Packing, Shipping, Resting, Closed, Refused])


# An account: begun and moved by what orders publish ------------------------------------------------------------------


class Account(State):
    orders: tuple[str, ...]

    @on
    def closed(self, event: OrderClosed) -> Account:
        return Account(orders=(*self.orders, event.order))

    @after(days=3650)
    def forgotten(self) -> Settled:
        return Settled(orders=self.orders)


class Settled(Final):
    orders: tuple[str, ...]


def open_account(event: OrderClosed) -> Account:
    return Account(orders=(event.order,))


account = Workflow("account", start=open_account, states=[Account, Settled])


# Trouble: handlers that fail -----------------------------------------------------------------------------------------

How = Literal["fine", "raise", "wrong", "loop", "stubborn", "sleep", "exit", "deep", "odd words"]


class TroubleBegun(Event, key="id"):
    id: str
    how: How = "fine"


class Poked(Event, key="id"):
    id: str
    how: How = "fine"
    padding: str = ""


class TroubleEnded(Event, key="id"):
    id: str


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def misbehave(how: How) -> None:  # noqa: C901 - a list
    """Fail in some way, unless the code is mended."""
    if MENDED in os.environ or how in {"fine", "wrong"}:
        return
    if how == "raise":
        raise ValueError("this handler is broken")
    if how == "exit":
        raise SystemExit(3)
    if how == "odd words":
        raise OddError
    if how == "deep":
        misbehave(how)
    if how == "sleep":
        time.sleep(3600)
    while how == "loop":
        pass
    while how == "stubborn":
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001, S110 - that is the trouble with it
            pass


class Calm(State):
    pokes: int = 0

    @on
    def poked(self, event: Poked) -> Calm:
        misbehave(event.how)
        if event.how == "wrong" and MENDED not in os.environ:
            return "no state at all"  # type: ignore[return-value]  # that is the trouble with it
        return Calm(pokes=self.pokes + 1)

    @on
    def ended(self, event: TroubleEnded) -> Over:
        return Over(pokes=self.pokes)

    @after(days=3650)
    def forgotten(self) -> Over:
        return Over(pokes=self.pokes)


class Over(Final):
    pokes: int


def begin_trouble(event: TroubleBegun) -> Calm:
    misbehave(event.how)
    return Calm()


trouble = Workflow("trouble", start=begin_trouble, states=[Calm, Over])


# Trials: steps that fail ---------------------------------------------------------------------------------------------


class TrialBegun(Event, key="id"):
    id: str
    how: str


class Shown(Exception):
    """An error that is not tried again."""


NAPS = {"brief": 0.2, "slow": 3600.0}


class _Locked:
    """Cannot be pickled, copied or written."""

    def __reduce__(self) -> str:
        raise TypeError("locked")


@step(
    retry=Retry(attempts=2, first_wait=timedelta(milliseconds=10), never=(Shown,)),
    timeout=timedelta(seconds=1),
)
async def attempt(how: str, context: StepContext) -> str:
    effect(context, how)
    wrong: Any = {"type": 7, "object": _Locked(), "lambda": lambda: 0, "surrogate": "\ud800", "large": "x" * (2 << 20)}
    if how in wrong:
        return wrong[how]  # type: ignore[no-any-return]  # that is the trouble with it
    if how == "raise":
        raise RuntimeError("no luck")
    if how == "never":
        raise Shown("no use to try again")
    if how == "exit":
        raise SystemExit(4)
    if how in NAPS:
        await asyncio.sleep(NAPS[how])
    if how == "cancelled":
        raise asyncio.CancelledError
    if how == "block":
        time.sleep(2)  # noqa: ASYNC251 - that is the trouble with it
    while how == "stubborn":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    return f"{how} at {context.attempt}"


class Trying(State):
    how: str

    @runs(attempt)
    def trial(self) -> str:
        return self.how

    @trial.done
    def passed(self, answer: str) -> Passed:
        return Passed(answer=answer)

    @trial.failed
    def given_up(self, failure: StepFailed) -> GivenUp:
        return GivenUp(error=failure.error, type=failure.type, attempts=failure.attempts)


class Passed(Final):
    answer: str


class GivenUp(Final):
    error: str
    type: str
    attempts: int


def begin_trial(event: TrialBegun) -> Trying:
    return Trying(how=event.how)


trial = Workflow("trial", start=begin_trial, states=[Trying, Passed, GivenUp])


# Sleepers and forms: runs at rest ------------------------------------------------------------------------------------


class Slept(Event, key="id"):
    id: str


class Asleep(State):
    id: str

    @after(days=3)
    def overslept(self) -> Awake:
        return Awake(id=self.id)


class Awake(Final):
    id: str


def fall_asleep(event: Slept) -> Asleep:
    return Asleep(id=event.id)


sleeper = Workflow("sleeper", start=fall_asleep, states=[Asleep, Awake])


class Filled(Event, key="id"):
    id: str


class Signed(Event, key="id"):
    id: str
    by: str


class Form(State):
    id: str

    @on
    def signed(self, event: Signed) -> Filed:
        return Filed(by=event.by)

    @after(days=3650)
    def lapsed(self) -> Filed:
        return Filed(by="nobody")


class Filed(Final):
    by: str


def fill(event: Filled) -> Form:
    return Form(id=event.id)


form = Workflow("form", start=fill, states=[Form, Filed])

application = Application(workflows=[order, account, trouble, trial, sleeper, form], resources={"notebook": notebook})
