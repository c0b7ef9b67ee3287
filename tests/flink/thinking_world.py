"""An application that asks language models: agents of ten turns, questions by the thousand, budgets and people.

| workflow | what it does | model | what bounds it |
| --- | --- | --- | --- |
| `seek` | an agent with tools; one asks leave, and few runs are offered it | `thinker` | a run's budget, an account |
| `ask` | one question | `judge` or `shared` | a limit that all workers keep to; `shared` has one a minute, too |
| `open` | one question to a model whose key may be bad | `keyed` | nothing |
| `price` | one question | `valuer` | an account that is soon spent |

Where the models are is not said here: `environment` makes the variables. Each tool leaves a line in `effects.log`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel

from engine import (
    Amount,
    Application,
    Budget,
    Event,
    Final,
    Limit,
    Limits,
    Model,
    Price,
    State,
    Step,
    StepContext,
    StepFailed,
    Workflow,
    asking_leave,
    llm_step,
    runs,
    step,
)
from tests.flink.long_calls import effect

TURNS = 10
INSTRUCTIONS = "Find out what it is worth."
SURVEYORS = "surveyors"
AT_ONCE = 20
"""Questions of `judge`."""
SHARED_AT_ONCE, SHARED_A_MINUTE = 3, 24
MOST_TOKENS = 200_000
"""Of one agent; reserved while it thinks."""
DEAR_TOKENS, PURSE = 400_000, 1_000_000
"""What one `price` may use, and what all together may."""
INPUT_PRICE, OUTPUT_PRICE = 1, 2
"""Millionths of a euro a token."""


def environment(url: str, **more: str) -> dict[str, str]:
    """What a process needs to ask the models of a server that speaks OpenAI's protocol."""
    urls = {f"LONGWATCH_MODEL_{name.upper()}_URL": url for name in application.models}
    return {"OPENAI_API_KEY": "none", **urls, **more}


class Verdict(BaseModel, frozen=True):
    """What models give."""

    score: int
    reason: str = ""


class Brief(BaseModel, frozen=True):
    """What an agent is asked."""

    id: str
    text: str = ""
    survey: bool = False


class Over(Final):
    score: int
    reason: str


class Failed(Final):
    type: str
    reason: str


# Agents ---------------------------------------------------------------------------------------------------------------


class Sought(Event, key="id"):
    id: str
    text: str = ""
    survey: bool = False


@step()
async def look_up(what: str, context: StepContext) -> str:
    """Look something up."""
    effect(context.idempotency_key)
    return f"nothing is known of {what}"


@step()
async def weigh(grams: int, context: StepContext) -> int:
    """Weigh something."""
    effect(context.idempotency_key)
    return grams * 2


@step()
async def order_survey(address: str, context: StepContext) -> str:
    """Have a surveyor look at it."""
    effect(context.idempotency_key)
    return f"surveyed: {address}"


def offered(brief: Brief) -> Collection[Step[Any, Any]]:
    return [look_up, weigh, order_survey] if brief.survey else [look_up, weigh]


seek = llm_step(
    "seek",
    model="thinker",
    instructions=INSTRUCTIONS,
    takes=Brief,
    gives=Verdict,
    tools=[look_up, weigh, asking_leave(order_survey, group=SURVEYORS, question=lambda where: f"Survey {where}?")],
    offers=offered,
    limits=Limits(calls=3 * TURNS, turns=TURNS + 1, tokens=MOST_TOKENS, eur="1"),
    timeout=timedelta(seconds=60),
)


class Seeking(State):
    brief: Brief

    @runs(seek)
    def search(self) -> Brief:
        return self.brief

    @search.done
    def found(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score, reason=verdict.reason)

    @search.failed
    def lost(self, failure: StepFailed) -> Failed:
        return Failed(type=failure.type, reason=failure.error)


def begin(event: Sought) -> Seeking:
    return Seeking(brief=Brief(id=event.id, text=event.text, survey=event.survey))


agents = Workflow(
    "seek",
    start=begin,
    states=[Seeking, Over, Failed],
    budget=Budget(run=Amount(eur="2", tokens=2 * MOST_TOKENS), total=Amount(eur="1000"), account="thoughts"),
)


# One question ---------------------------------------------------------------------------------------------------------


class Asked(Event, key="id"):
    id: str
    of: Literal["judge", "shared"] = "judge"


judge = llm_step("judge", model="judge", instructions=INSTRUCTIONS, takes=str, gives=Verdict)
share = llm_step("share", model="shared", instructions=INSTRUCTIONS, takes=str, gives=Verdict)


class Judging(State):
    id: str

    @runs(judge)
    def question(self) -> str:
        return self.id

    @question.done
    def judged(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score, reason=verdict.reason)

    @question.failed
    def unjudged(self, failure: StepFailed) -> Failed:
        return Failed(type=failure.type, reason=failure.error)


class Sharing(State):
    id: str

    @runs(share)
    def question(self) -> str:
        return self.id

    @question.done
    def shared(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score, reason=verdict.reason)

    @question.failed
    def unshared(self, failure: StepFailed) -> Failed:
        return Failed(type=failure.type, reason=failure.error)


def put(event: Asked) -> Judging | Sharing:
    return Judging(id=event.id) if event.of == "judge" else Sharing(id=event.id)


questions = Workflow("ask", start=put, states=[Judging, Sharing, Over, Failed])


# A key that may be bad ------------------------------------------------------------------------------------------------


class Opened(Event, key="id"):
    id: str


unlock = llm_step("unlock", model="keyed", instructions=INSTRUCTIONS, takes=str, gives=Verdict)


class Opening(State):
    id: str

    @runs(unlock)
    def question(self) -> str:
        return self.id

    @question.done
    def unlocked(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score, reason=verdict.reason)

    @question.failed
    def locked(self, failure: StepFailed) -> Failed:
        return Failed(type=failure.type, reason=failure.error)


def open_(event: Opened) -> Opening:
    return Opening(id=event.id)


doors = Workflow("open", start=open_, states=[Opening, Over, Failed])


# An account that is soon spent ----------------------------------------------------------------------------------------


class Priced(Event, key="id"):
    id: str


value = llm_step(
    "value",
    model="valuer",
    instructions=INSTRUCTIONS,
    takes=str,
    gives=Verdict,
    limits=Limits(tokens=DEAR_TOKENS, eur="1"),
)


class Valuing(State):
    id: str

    @runs(value)
    def question(self) -> str:
        return self.id

    @question.done
    def valued(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score, reason=verdict.reason)

    @question.failed
    def unvalued(self, failure: StepFailed) -> Failed:
        return Failed(type=failure.type, reason=failure.error)


def appraise(event: Priced) -> Valuing:
    return Valuing(id=event.id)


prices = Workflow(
    "price",
    start=appraise,
    states=[Valuing, Over, Failed],
    budget=Budget(total=Amount(tokens=PURSE), account="purse"),
)

_PRICE = Price(INPUT_PRICE, OUTPUT_PRICE)

application = Application(
    workflows=[agents, questions, doors, prices],
    models={
        "thinker": Model("openai-chat:thinker", price=_PRICE),
        "judge": Model("openai-chat:judge", price=_PRICE, limits=Limit(calls=AT_ONCE)),
        "shared": Model(
            "openai-chat:shared", price=_PRICE, limits=Limit(calls=SHARED_AT_ONCE, requests=SHARED_A_MINUTE)
        ),
        "keyed": Model("openai-chat:keyed", price=_PRICE),
        "valuer": Model("openai-chat:valuer", price=_PRICE),
    },
)
