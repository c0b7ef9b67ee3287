"""A claim for the tests, and its run in memory."""

from __future__ import annotations

from engine.testing import Simulation
from workflows.insurance_claim.data import (
    Assessment,
    Claim,
    ClaimFiled,
    CustomerId,
    Documents,
    Dossier,
    History,
    Policy,
    PolicyId,
    Verdict,
)
from workflows.insurance_claim.memory import ask_history
from workflows.insurance_claim.states import insurance_claim
from workflows.insurance_claim.steps import assess_risk, fetch_policy, send_message

CLAIM = Claim(claim_id="c-1", customer_id=CustomerId("u-1"), policy_id=PolicyId("p-1"), amount_eur=900)
POLICY = Policy(limit_eur=1_000)
HISTORY = History(claims_last_5_years=1)


def dossier(
    *, amount_eur: int = 900, limit_eur: int = 10_000, earlier: int = 0, documents: Documents = (), words: str = ""
) -> Dossier:
    claim = CLAIM.model_copy(update={"amount_eur": amount_eur, "what_happened": words})
    return Dossier(
        claim=claim,
        documents=documents,
        policy=Policy(limit_eur=limit_eur),
        history=History(claims_last_5_years=earlier),
    )


def verdict(verdict: Verdict, reason: str = "because") -> Assessment:
    return Assessment(verdict=verdict, reason=reason)


def simulation() -> Simulation[ClaimFiled]:
    """A claim's run whose model sends it to a person."""
    run = Simulation(insurance_claim)
    run.fake(fetch_policy, lambda policy_id: POLICY)
    run.fake(ask_history, lambda question: HISTORY)
    run.fake(assess_risk, lambda dossier: verdict("needs a person", "large amount"))
    run.fake(send_message, lambda message: None)
    return run
