"""How a claim is put to a language model.

What stands in a dossier is told in bands ("medium (500 to 5,000 EUR)"), so claims that do not differ in what matters
are one question, and the model's server need answer it only once. The customer's own words are not told: they would
make almost every claim a question of its own. Code looks into them for what the weather register knows, nothing else.
"""

from __future__ import annotations

from workflows.insurance_claim.data import (
    Amounts,
    Assessment,
    Claim,
    CustomerId,
    Documents,
    Dossier,
    History,
    Policy,
    PolicyId,
)

INSTRUCTIONS = (
    "You assess insurance claims. Answer 'documents missing' when no documents were sent, 'needs a person' when the "
    "amount is large or above the limit or there are many claims, otherwise 'low risk'."
)
AMOUNTS: dict[Amounts, str] = {
    "small": "small (under 500 EUR)",
    "medium": "medium (500 to 5,000 EUR)",
    "large": "large (over 5,000 EUR)",
    "above the limit": "above the policy's limit",
}
NO_CLAIMS = "no claims in five years"
FEW_CLAIMS = "one or two claims in five years"
MANY_CLAIMS = "three or more claims in five years"
LARGEST_SMALL_EUR = 499
LARGEST_MEDIUM_EUR = 5_000
MANY_FROM = 3
STORMS = ("hail", "storm")
"""Causes of which the weather register knows."""


def question(dossier: Dossier) -> str:
    """What the model is asked: equal for like claims."""
    documents = "sent" if dossier.documents else "none"
    return f"Amount: {AMOUNTS[amounts_of(dossier)]}\nHistory: {history_band(dossier)}\nDocuments: {documents}"


def amounts_of(dossier: Dossier) -> Amounts:
    amount = dossier.claim.amount_eur
    if amount > dossier.policy.limit_eur:
        return "above the limit"
    if amount > LARGEST_MEDIUM_EUR:
        return "large"
    if amount > LARGEST_SMALL_EUR:
        return "medium"
    return "small"


def history_band(dossier: Dossier) -> str:
    match dossier.history.claims_last_5_years:
        case 0:
            return NO_CLAIMS
        case few if few < MANY_FROM:
            return FEW_CLAIMS
        case _:
            return MANY_CLAIMS


def is_stormy(dossier: Dossier) -> bool:
    """Whether the customer speaks of weather."""
    return any(word in dossier.claim.what_happened.lower() for word in STORMS)


def _example(amount_eur: int, documents: Documents) -> Dossier:
    claim = Claim(claim_id="example", customer_id=CustomerId("u-0"), policy_id=PolicyId("p-0"), amount_eur=amount_eur)
    policy, history = Policy(limit_eur=10_000), History(claims_last_5_years=0)
    return Dossier(claim=claim, documents=documents, policy=policy, history=history)


EXAMPLES = (
    (
        _example(300, ("photo",)),
        Assessment(verdict="low risk", reason="Small amount, documents sent, no claims before."),
    ),
    (
        _example(900, ()),
        Assessment(verdict="documents missing", reason="Please send documents for this amount."),
    ),
    (
        _example(8_000, ("photo",)),
        Assessment(verdict="needs a person", reason="Large amount, a person decides."),
    ),
)
"""A very small model follows these three best, in this order: more, longer or others make it say one thing of all."""
