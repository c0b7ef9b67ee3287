"""What an insurance claim is made of, and what happens to it."""

from __future__ import annotations

from typing import Annotated, Literal, NewType

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt

from engine import Event, Searchable

PolicyId = NewType("PolicyId", str)
CustomerId = NewType("CustomerId", str)
Documents = tuple[str, ...]
"""Names of what the customer sent, such as `photo` and `invoice`."""
Verdict = Literal["low risk", "needs a person", "documents missing"]
Outcome = Literal["approved", "rejected", "expired", "withdrawn"]
Amounts = Literal["small", "medium", "large", "above the limit"]


class Claim(BaseModel, frozen=True):
    """What the customer asks for."""

    claim_id: Annotated[str, Searchable]
    customer_id: Annotated[CustomerId, Searchable]
    policy_id: Annotated[PolicyId, Searchable]
    amount_eur: Annotated[PositiveInt, Searchable]
    what_happened: str = ""
    """The customer's own words: data, whatever they say."""


class Policy(BaseModel, frozen=True):
    """What the customer is insured for."""

    limit_eur: PositiveInt


class History(BaseModel, frozen=True):
    """What the customer claimed before."""

    claims_last_5_years: NonNegativeInt


class Dossier(BaseModel, frozen=True):
    """All that is known when the risk is assessed."""

    claim: Claim
    documents: Documents
    policy: Policy
    history: History


class Assessment(BaseModel, frozen=True):
    """What the language model says of a dossier."""

    verdict: Verdict
    reason: Annotated[str, Field(max_length=90)]
    """One sentence, for the customer or the reviewer."""


class Like(BaseModel, frozen=True):
    """Which claims from before are meant."""

    amount: Amounts


class Weather(BaseModel, frozen=True):
    """What is looked for in the weather register."""

    cause: Literal["hail", "storm"]


class Survey(BaseModel, frozen=True):
    """What a surveyor is to look at."""

    of: Literal["building", "belongings"]


class Message(BaseModel, frozen=True):
    """A letter to a customer, or a note to the reviewers."""

    to: str
    text: str


class ClaimFiled(Event, key="claim.claim_id"):
    """A customer filed a claim, perhaps with documents."""

    claim: Claim
    documents: Documents = ()


class CustomerKnown(Event, key="customer_id"):
    """What the insurer knew of a customer before his claims were remembered here."""

    customer_id: CustomerId
    claims_last_5_years: NonNegativeInt


class DocumentsReceived(Event):
    """The customer sent documents, asked or not."""

    documents: Documents


class ReviewDecided(Event):
    """A reviewer has read the claim and says yes or no."""

    reviewer: str = ""
    """Who it was, where another system sends it; an answer to the inbox says so by itself."""
    approve: bool
    note: str = ""


class ClaimWithdrawn(Event):
    """The customer takes the claim back."""

    note: str = ""


class ClaimDecided(Event, key="claim_id"):
    """Published when a claim is over, for whoever pays, books or counts."""

    claim_id: str
    customer_id: CustomerId
    amount_eur: int
    outcome: Outcome
    decided_by: str
    """The reviewer's name, `engine`, `customer` or `calendar`."""
