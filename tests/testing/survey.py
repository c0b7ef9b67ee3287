"""An agent with a tool that looks up, one that a person must allow, a budget, and people."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from engine import (
    Amount,
    Budget,
    Event,
    Final,
    Limits,
    Retry,
    State,
    StepContext,
    StepFailed,
    Workflow,
    asking_leave,
    llm_step,
    runs,
    step,
)


class Place(BaseModel, frozen=True):
    town: str


class Weather(BaseModel, frozen=True):
    rain_mm: int


class Verdict(BaseModel, frozen=True):
    plausible: bool
    reason: str


@step(retry=Retry(attempts=2, first_wait=timedelta(seconds=5)))
async def weather_on(place: Place) -> Weather:
    """The weather at a place."""
    raise NotImplementedError(place)


@step()
async def order_survey(place: Place, context: StepContext) -> str:
    """Send a surveyor."""
    return f"{context.resources['surveyor']} goes to {place.town}"


assess = llm_step(
    "assess",
    model="assessor",
    instructions="Judge whether the damage is plausible.",
    takes=Place,
    gives=Verdict,
    tools=[weather_on, asking_leave(order_survey, group="reviewers", question=lambda place: f"Survey {place.town}?")],
    limits=Limits(calls=30, tokens=20_000, eur="0.02"),
    retry=Retry(attempts=3, first_wait=timedelta(seconds=10)),
)


class Reported(Event, key="town"):
    town: str


class Assessing(State):
    town: str

    @runs(assess)
    def question(self) -> Place:
        return Place(town=self.town)

    @question.done
    def assessed(self, verdict: Verdict) -> Assessed:
        return Assessed(verdict=verdict)

    @question.failed
    def failed(self, failure: StepFailed) -> Unassessed:
        return Unassessed(why=failure.type, words=failure.error)


class Assessed(Final):
    verdict: Verdict


class Unassessed(Final):
    why: str
    words: str


def begin(event: Reported) -> Assessing:
    return Assessing(town=event.town)


def again(event: Reported) -> Assessing:
    return Assessing(town=event.town)


damage = Workflow("damage", start=begin, states=[Assessing, Assessed, Unassessed])
paid = Workflow(
    "paid",
    start=again,
    states=[Assessing, Assessed, Unassessed],
    budget=Budget(run=Amount(eur="0.02"), total=Amount(eur="0.03")),
)
tight = Workflow(
    "tight", start=begin, states=[Assessing, Assessed, Unassessed], budget=Budget(total=Amount(eur="0.03"))
)

YES = Verdict(plausible=True, reason="it rained")


class Comparing(State):
    """Two opinions at once, which the budget of a run does not pay for."""

    town: str

    @runs(assess, assess)
    def opinions(self) -> tuple[Place, Place]:
        return Place(town=self.town), Place(town=self.town)

    @opinions.done
    def compared(self, one: Verdict, other: Verdict) -> Assessed:
        return Assessed(verdict=other)

    @opinions.failed
    def failed(self, failure: StepFailed) -> Unassessed:
        return Unassessed(why=failure.type, words=failure.error)


def compare(event: Reported) -> Comparing:
    return Comparing(town=event.town)


poor = Workflow("poor", start=compare, states=[Comparing, Assessed, Unassessed], budget=Budget(run=Amount(eur="0.03")))
