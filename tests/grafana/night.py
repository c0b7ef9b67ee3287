"""An application whose runs fare badly on order, so that alerts have something to tell."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

from engine import (
    Amount,
    Application,
    Budget,
    Call,
    Event,
    Final,
    Limits,
    Model,
    Price,
    Retry,
    State,
    StepFailed,
    Workflow,
    after,
    every,
    llm_step,
    on,
    runs,
    step,
)

PURSE, CALL = 10_000, 9_500
"""Tokens that all runs may use together, and that one call uses."""

How = Literal["ticking", "failing"]


class Begun(Event, key="id"):
    id: str
    how: How = "ticking"


class Poked(Event, key="id"):
    id: str


class Broken(Event, key="id"):
    """Its handler fails."""

    id: str


@step()
async def note(text: str) -> str:
    return text


@step(retry=Retry(attempts=1_000, first_wait=timedelta(milliseconds=300), factor=1))
async def ask_provider(text: str) -> str:
    message = f"the provider is away: {text}"
    raise ConnectionError(message)


class Ticking(State):
    """It is woken every second."""

    id: str

    @every(seconds=1)
    def tick(self) -> Call[str]:
        return note.call(self.id)

    @after(days=1)
    def end(self) -> Over:
        return Over(answer="morning")

    @on
    def poked(self, event: Poked) -> Call[str]:
        return note.call(event.id)

    @on
    def broken(self, event: Broken) -> Over:
        message = f"{event.id} is broken"
        raise RuntimeError(message)


class Failing(State):
    """It asks a provider that is away."""

    id: str

    @runs(ask_provider)
    def asking(self) -> str:
        return self.id

    @asking.done
    def asked(self, answer: str) -> Over:
        return Over(answer=answer)

    @asking.failed
    def given_up(self, failure: StepFailed) -> Over:
        return Over(answer=failure.error)


class Over(Final):
    answer: str


def begin(event: Begun) -> Ticking | Failing:
    return Ticking(id=event.id) if event.how == "ticking" else Failing(id=event.id)


class Priced(Event, key="id"):
    id: str


class Verdict(BaseModel, frozen=True):
    score: int


value = llm_step(
    "value",
    model="valuer",
    instructions="What is it worth?",
    takes=str,
    gives=Verdict,
    limits=Limits(tokens=CALL),
)


class Valuing(State):
    """A model says what it is worth."""

    id: str

    @runs(value)
    def question(self) -> str:
        return self.id

    @question.done
    def valued(self, verdict: Verdict) -> Over:
        return Over(answer=str(verdict.score))

    @question.failed
    def unvalued(self, failure: StepFailed) -> Over:
        return Over(answer=failure.error)


def appraise(event: Priced) -> Valuing:
    return Valuing(id=event.id)


nights = Workflow("night", start=begin, states=[Ticking, Failing, Over])
prices = Workflow(
    "price", start=appraise, states=[Valuing, Over], budget=Budget(total=Amount(tokens=PURSE), account="purse")
)
application = Application(
    workflows=[nights, prices], models={"valuer": Model("openai-chat:valuer", price=Price("0.10", "0.40"))}
)
