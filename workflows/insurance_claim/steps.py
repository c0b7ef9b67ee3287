"""Everything an insurance claim does in the outside world.

The steps reach it through two resources of the application, by name: `world` (world.py) and `assessor` (assessor.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

from engine import Retry, StepContext, step
from workflows.insurance_claim.assessor import Assessor
from workflows.insurance_claim.data import Assessment, Dossier, Message, Policy, PolicyId
from workflows.insurance_claim.world import NotInRegisterError, World

T = TypeVar("T")

LOOKUP = Retry(attempts=5, never=(NotInRegisterError,))


@step(retry=LOOKUP, timeout=timedelta(seconds=10))
async def fetch_policy(policy_id: PolicyId, context: StepContext) -> Policy:
    return await visit(context, "fetch_policy", lambda world: world.policy(policy_id))


@step(retry=Retry(attempts=3), timeout=timedelta(minutes=5))
async def assess_risk(dossier: Dossier, context: StepContext) -> Assessment:
    """Ask the language model. The time allowed covers the queue at a small model that many claims ask at once."""
    await visit(context, "assess_risk", lambda _: None)
    assessor = cast("Assessor", context.resources["assessor"])
    return await assessor.assess(dossier, context.idempotency_key, context.attempt)


@step()
async def send_message(message: Message, context: StepContext) -> None:
    await visit(context, "send_message", lambda world: world.deliver(message, context.idempotency_key))


async def visit(context: StepContext, step: str, errand: Callable[[World], T]) -> T:
    """Run an errand in the world, in a thread: SQLite may wait for another writer."""
    world = cast("World", context.resources["world"])

    def there() -> T:
        world.note_visit(step, context.idempotency_key, context.attempt)
        return errand(world)

    return await asyncio.to_thread(there)
