"""An application for tests of people's side: claims that somebody decides, and steps that ask for leave and money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, Field

from engine.core.application import Application
from engine.core.budget import Amount, Budget
from engine.core.context import Context
from engine.core.definition import Workflow
from engine.core.model import Event, Final, State, StepFailed, after, on, runs
from engine.core.steps import Leave, Retry, Spends, Step, StepContext, step

POISON = "poison"


class ClaimFiled(Event, key="claim"):
    claim: str
    text: str = "hail"


class ReviewDecided(Event, key="claim"):
    claim: str
    approve: bool
    note: str = Field(default="", max_length=40)


class MoreWanted(Event):
    """What else is needed."""

    what: str


class Colour(BaseModel):
    """An answer of a step's own."""

    colour: Literal["red", "green"]
    depth: int = Field(default=1, ge=1)


class HumanReview(State, asks="claims-reviewers"):
    """Somebody reads the claim and decides.

    The deadline is a fortnight.
    """

    claim: str
    text: str
    wanted: int = 0

    @on
    def decided(self, event: ReviewDecided, ctx: Context) -> Decided:
        if event.note == POISON:
            message = "no decision by poison"
            raise RuntimeError(message)
        return Decided(approve=event.approve, by=ctx.who)

    @on
    def more(self, event: MoreWanted) -> Asking:
        return Asking(claim=self.claim, text=event.what, wanted=self.wanted + 1)

    @after(days=14)
    def expire(self) -> Decided:
        return Decided(approve=False, by="nobody")


@step(retry=Retry(attempts=1))
async def survey(text: str, ctx: StepContext) -> str:
    assert ctx.runner is not None
    ctx.progress(f"thinks about {text}")
    leave = await ctx.ask("adjusters", f"Order a survey for {text}?", Leave, name="survey")
    if not leave.answer.granted:
        return f"no survey, says {leave.who}: {leave.answer.note}"
    colour = await ctx.ask("painters", "Which colour?", Colour, name="colour")
    return f"{colour.answer.colour} survey, says {leave.who}"


class Asking(State):
    claim: str
    text: str
    wanted: int

    @runs(survey)
    def surveying(self) -> str:
        return self.text

    @surveying.done
    def surveyed(self, report: str) -> HumanReview:
        return HumanReview(claim=self.claim, text=report, wanted=self.wanted)

    @surveying.failed
    def lost(self, failure: StepFailed) -> HumanReview:
        return HumanReview(claim=self.claim, text=failure.error, wanted=self.wanted)


class Decided(Final):
    approve: bool
    by: str


def file(event: ClaimFiled) -> HumanReview:
    return HumanReview(claim=event.claim, text=event.text)


claims = Workflow("claims", start=file, states=[HumanReview, Asking, Decided])


class Dreamt(Event):
    text: str


async def _dream(text: str, ctx: StepContext) -> str:
    assert ctx.runner is not None
    leave = await ctx.ask("parents", f"May {text} be dreamt of?", Leave)
    return f"a dream of {text}" if leave.answer.granted else "nothing"


async def _doze(text: str) -> str:
    return f"a doze with {text}"


def _costly(name: str, function: Callable[..., Awaitable[str]]) -> Step[str, str]:
    """Thirty cents at most."""
    return Step(name, function, Retry(attempts=1), timedelta(seconds=1), None, spends=Spends(10, 300_000))


dream, doze = _costly("dream", _dream), _costly("doze", _doze)


class Dreaming(State):
    """Sleeps, which costs: both cannot be paid for at once."""

    text: str

    @runs(dream, doze)
    def dreaming(self) -> tuple[str, str]:
        return self.text, self.text

    @dreaming.done
    def dreamt(self, dreamt: str, dozed: str) -> Awake:
        return Awake(text=f"{dreamt}, {dozed}")

    @dreaming.failed
    def lost(self, failure: StepFailed) -> Awake:
        return Awake(text=f"{failure.type}: {failure.error}")


class Awake(State):
    """Waits for the next night."""

    text: str

    @on
    def again(self, event: Dreamt) -> Dreaming:
        return Dreaming(text=event.text)

    @after(days=100)
    def over(self) -> Over:
        return Over()


class Over(Final):
    pass


def sleep(event: Dreamt) -> Dreaming:
    return Dreaming(text=event.text)


dreams = Workflow(
    "dreams",
    start=sleep,
    states=[Dreaming, Awake, Over],
    budget=Budget(run=Amount(eur="0.50", tokens=1000), day=Amount(eur="0.70"), account="nights"),
)

app = Application(workflows=[claims, dreams])
