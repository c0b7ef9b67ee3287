"""Workflows whose steps are long: they keep what they have done, ask people, and ask other runs.

Every part of a step leaves a line in `effects.log`. What stands in the environment of the engine's process under
`LONGWATCH_WORLD_MENDED` lets the parts end that hang.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from engine import (
    Application,
    Event,
    Final,
    Leave,
    Question,
    State,
    StepContext,
    StepFailed,
    Workflow,
    answers,
    ask,
    on,
    runs,
    step,
)
from tests.flink.world import EFFECTS, FOLDER, MENDED

PARTS = 5
HANGS = 4
"""The part that does not end before the engine is mended."""


def effect(line: str) -> None:
    """A short write to the end of a file is whole or not there."""
    with (Path(os.environ[FOLDER]) / EFFECTS).open("a") as file:
        file.write(f"{line}\n")


class Over(Final):
    told: str


class Travelled(Event, key="id"):
    id: str


class Quick(Event, key="id"):
    id: str


@step()
async def travel(id: str, context: StepContext) -> int:
    """Five legs; the fourth is not over until the engine is mended."""

    async def leg(number: int) -> int:
        effect(f"{id} {number}")
        if number == HANGS and MENDED not in os.environ:
            await asyncio.Event().wait()
        return number * 100

    return sum([await context.once(f"leg {n}", partial(leg, n)) for n in range(1, PARTS + 1)])


@step()
async def walk(id: str) -> int:
    effect(f"{id} walks")
    return 1


class Travelling(State):
    id: str

    @runs(travel)
    def legs(self) -> str:
        return self.id

    @legs.done
    def arrived(self, miles: int) -> Over:
        return Over(told=f"{miles} miles")

    @legs.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(told=failure.error)


class Walking(State):
    id: str

    @runs(walk)
    def way(self) -> str:
        return self.id

    @way.done
    def arrived(self, miles: int) -> Over:
        return Over(told=f"{miles} miles")

    @way.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(told=failure.error)


def set_out(event: Travelled | Quick) -> Travelling | Walking:
    return Travelling(id=event.id) if isinstance(event, Travelled) else Walking(id=event.id)


trip = Workflow("trip", start=set_out, states=[Travelling, Walking, Over])


# A person's leave -----------------------------------------------------------------------------------------------------


class Wanted(Event, key="id"):
    id: str


@step()
async def buy(id: str, context: StepContext) -> str:
    async def look() -> str:
        effect(f"{id} looks")
        return "a boat"

    found = await context.once("look", look)
    leave = await context.ask("treasurers", f"May I buy {found}?", Leave)
    effect(f"{id} buys")
    return f"{found}: {leave.answer.granted} by {leave.who}"


class Buying(State):
    id: str

    @runs(buy)
    def thing(self) -> str:
        return self.id

    @thing.done
    def bought(self, what: str) -> Over:
        return Over(told=what)

    @thing.failed
    def refused(self, failure: StepFailed) -> Over:
        return Over(told=failure.error)


def want(event: Wanted) -> Buying:
    return Buying(id=event.id)


purchase = Workflow("purchase", start=want, states=[Buying, Over])


# What another run knows -----------------------------------------------------------------------------------------------


class History(BaseModel):
    visits: int = 0


class HistoryAsked(Question[History], key="customer"):
    customer: str


class PastAsked(Question[History], key="customer"):
    customer: str


class Visited(Event, key="customer"):
    customer: str


class Remembering(State, endless=True):
    visits: int

    @on
    def again(self, event: Visited) -> Remembering:
        return Remembering(visits=self.visits + 1)

    @answers
    def history(self, question: HistoryAsked) -> History:
        return History(visits=self.visits)

    @answers
    def past(self, question: PastAsked) -> History:
        return History(visits=self.visits)


def meet(event: Visited) -> Remembering:
    return Remembering(visits=1)


class Wondered(Event, key="id"):
    id: str
    customer: str


class Wondering(State):
    customer: str

    @runs(ask(HistoryAsked))
    def what(self) -> HistoryAsked:
        return HistoryAsked(customer=self.customer)

    @what.done
    def known(self, history: History) -> Over:
        return Over(told=f"{history.visits} visits")

    @what.failed
    def unknown(self, failure: StepFailed) -> Guessing:
        return Guessing(customer=self.customer, why=failure.type)


class Guessing(State):
    customer: str
    why: str

    @runs(ask(PastAsked, otherwise=History(visits=-1)))
    def what(self) -> PastAsked:
        return PastAsked(customer=self.customer)

    @what.done
    def known(self, history: History) -> Over:
        return Over(told=f"{self.why}, so {history.visits}")

    @what.failed
    def unknown(self, failure: StepFailed) -> Over:
        return Over(told=failure.error)


def wonder(event: Wondered) -> Wondering:
    return Wondering(customer=event.customer)


memory = Workflow("memory", start=meet, states=[Remembering])
curiosity = Workflow("curiosity", start=wonder, states=[Wondering, Guessing, Over])

application = Application(workflows=[trip, purchase, memory, curiosity])
