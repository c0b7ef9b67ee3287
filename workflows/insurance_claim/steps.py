"""Everything an insurance claim does in the outside world: its steps, and the tools of the one that thinks.

They reach it through the application's resource `world` (world.py) and its model `claims-assessor`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

from engine import Limits, Retry, Step, StepContext, asking_leave, llm_step, step
from workflows.insurance_claim.data import Assessment, Dossier, Like, Message, Policy, PolicyId, Survey, Weather
from workflows.insurance_claim.question import EXAMPLES, INSTRUCTIONS, amounts_of, is_stormy, question
from workflows.insurance_claim.world import NotInRegisterError, World

T = TypeVar("T")

LOOKUP = Retry(attempts=5, never=(NotInRegisterError,))


@step(retry=LOOKUP, timeout=timedelta(seconds=10))
async def fetch_policy(policy_id: PolicyId, context: StepContext) -> Policy:
    return await visit(context, "fetch_policy", lambda world: world.policy(policy_id))


@step()
async def send_message(message: Message, context: StepContext) -> None:
    await visit(context, "send_message", lambda world: world.deliver(message, context.idempotency_key))


@step(retry=LOOKUP, timeout=timedelta(seconds=10))
async def find_similar_claims(like: Like, context: StepContext) -> str:
    """What claims of such an amount came to before."""
    return await visit(context, "find_similar_claims", lambda world: world.similar(like.amount))


@step(retry=LOOKUP, timeout=timedelta(seconds=10))
async def weather_on(weather: Weather, context: StepContext) -> str:
    """Whether the weather register has hail or a storm on the day of the damage."""
    return await visit(context, "weather_on", lambda world: world.weather(weather.cause))


@step()
async def order_survey(survey: Survey, context: StepContext) -> str:
    """Have a surveyor look at the damage."""
    return await visit(context, "order_survey", lambda world: world.survey(survey.of, context.idempotency_key))


def ask_for_survey(survey: Survey) -> str:
    """What a person is asked before it is paid for."""
    return f"The assessor wants a survey of the {survey.of}, for 400 EUR. Is it worth that?"


def offers(dossier: Dossier) -> list[Step[Like, str] | Step[Weather, str] | Step[Survey, str]]:
    """What helps with such a claim."""
    stormy = is_stormy(dossier)
    match amounts_of(dossier):
        case "large":
            return [weather_on, order_survey] if stormy else [order_survey]
        case "medium" if stormy:
            return [weather_on]
        case _:
            return [find_similar_claims]


assess_risk = llm_step(
    "assess_risk",
    model="claims-assessor",
    instructions=INSTRUCTIONS,
    takes=Dossier,
    gives=Assessment,
    tools=[
        find_similar_claims,
        weather_on,
        asking_leave(order_survey, group="claims-surveys", question=ask_for_survey),
    ],
    offers=offers,
    limits=Limits(calls=8, tokens=2_000, eur="0.01"),
    examples=EXAMPLES,
    prompt=question,
    retry=Retry(attempts=3),
    timeout=timedelta(minutes=5),  # covers the queue at a small model that many claims ask at once
)


async def visit(context: StepContext, step: str, errand: Callable[[World], T]) -> T:
    """Run an errand in the world, in a thread: SQLite may wait for another writer."""
    world = cast("World", context.resources["world"])

    def there() -> T:
        world.note_visit(step, context.idempotency_key, context.attempt)
        return errand(world)

    return await asyncio.to_thread(there)
