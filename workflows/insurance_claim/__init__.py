"""An insurance claim from its filing to its end: look-ups, a language model, people, deadlines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine import Application, Limit, Model, Price
from workflows.insurance_claim.memory import customer_memory
from workflows.insurance_claim.payment import payment
from workflows.insurance_claim.states import insurance_claim
from workflows.insurance_claim.world import World

__all__ = ["application", "customer_memory", "insurance_claim", "payment"]


@asynccontextmanager
async def claim_world() -> AsyncIterator[World]:
    yield World.from_environment()


assessor = Model("embedded", price=Price("0.10", "0.40"), limits=Limit(calls=2))
"""The small model on this machine, at a small one's price; the variable LONGWATCH_MODEL_CLAIMS_ASSESSOR names another.

Two questions at a time: its server works on one, and a kill then cuts off few.
"""
application = Application(
    workflows=[insurance_claim, customer_memory, payment],
    resources={"world": claim_world},
    models={"claims-assessor": assessor},
)
