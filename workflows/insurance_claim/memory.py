"""What is known of a customer: a run of its own that never ends, folds what his claims come to, and is asked by them.

It is on the same log as the claims, so an answer has a definite place there: a replay gives the same one again, without
a database that has moved on since.
"""

from __future__ import annotations

from engine import Question, State, Workflow, answers, ask, on
from workflows.insurance_claim.data import ClaimDecided, CustomerId, CustomerKnown, History


class HistoryAsked(Question[History], key="customer_id"):
    """What did this customer claim before?"""

    customer_id: CustomerId


class Remembering(State, endless=True):
    """All that a claim may ask of its customer."""

    customer_id: CustomerId
    claims_before: int
    """From before the first claim that is remembered here."""
    decided: int = 0
    paid_eur: int = 0

    @on
    def known(self, event: CustomerKnown) -> Remembering:
        return self.model_copy(update={"claims_before": event.claims_last_5_years})

    @on
    def claimed(self, event: ClaimDecided) -> Remembering:
        paid = event.amount_eur if event.outcome == "approved" else 0
        return self.model_copy(update={"decided": self.decided + 1, "paid_eur": self.paid_eur + paid})

    @answers
    def history(self, _: HistoryAsked) -> History:
        return History(claims_last_5_years=self.claims_before + self.decided)


def remember(first: CustomerKnown | ClaimDecided) -> Remembering:
    if isinstance(first, CustomerKnown):
        return Remembering(customer_id=first.customer_id, claims_before=first.claims_last_5_years)
    return Remembering(customer_id=first.customer_id, claims_before=0).claimed(first)


customer_memory = Workflow(
    "customer-memory", start=remember, states=[Remembering], on_key={ClaimDecided: "customer_id"}
)
ask_history = ask(HistoryAsked, otherwise=History(claims_last_5_years=0))
"""A customer of whom nothing is known has claimed nothing."""
