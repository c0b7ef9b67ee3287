"""An insurance claim from its filing to its end: look-ups, a language model, people, deadlines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import Application
from workflows.insurance_claim.assessor import Assessor
from workflows.insurance_claim.memory import customer_memory
from workflows.insurance_claim.states import insurance_claim
from workflows.insurance_claim.world import World

__all__ = ["application", "customer_memory", "insurance_claim"]


@asynccontextmanager
async def claim_world() -> AsyncIterator[World]:
    yield World.from_environment()


@asynccontextmanager
async def claim_assessor() -> AsyncIterator[Assessor]:
    async with Assessor.from_environment() as made:
        yield made


application = Application(
    workflows=[insurance_claim, customer_memory],
    resources={"world": claim_world, "assessor": claim_assessor},
)
