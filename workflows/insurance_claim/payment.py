"""What a decision comes to in money: a run of its own for each claim, begun by the event that the claim publishes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, PositiveInt

from engine import Final, Retry, Searchable, State, StepContext, StepFailed, Workflow, runs, step
from workflows.insurance_claim.data import ClaimDecided, CustomerId
from workflows.insurance_claim.steps import visit


class Payment(BaseModel, frozen=True):
    """What a customer gets, and for which claim."""

    claim_id: Annotated[str, Searchable]
    customer_id: Annotated[CustomerId, Searchable]
    amount_eur: PositiveInt


@step(retry=Retry(attempts=8), timeout=timedelta(seconds=10))
async def transfer(payment: Payment, context: StepContext) -> str:
    """Order it at the bank, which pays a key once however often it is asked; its number of the transfer."""
    key = context.idempotency_key
    return await visit(context, "transfer", lambda world: world.pay(payment.claim_id, payment.amount_eur, key))


class Paying(State):
    payment: Payment

    @runs(transfer)
    def order(self) -> Payment:
        return self.payment

    @order.done
    def paid(self, number: str) -> Paid:
        return Paid(payment=self.payment, number=number)

    @order.failed
    def refused(self, failure: StepFailed) -> Unpaid:
        return Unpaid(payment=self.payment, reason=failure.error)


class Paid(Final):
    payment: Payment
    number: str
    """The bank's."""


class Unpaid(Final):
    payment: Payment
    reason: str


class NothingDue(Final):
    """The claim was not approved."""

    claim_id: str


def settle(decided: ClaimDecided) -> Paying | NothingDue:
    if decided.outcome != "approved":
        return NothingDue(claim_id=decided.claim_id)
    payment = Payment(claim_id=decided.claim_id, customer_id=decided.customer_id, amount_eur=decided.amount_eur)
    return Paying(payment=payment)


payment = Workflow("payment", start=settle, states=[Paying, Paid, Unpaid, NothingDue])
