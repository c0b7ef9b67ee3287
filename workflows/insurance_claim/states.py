"""Insurance claim: gather the facts, assess the risk, decide, with people in the loop."""

from __future__ import annotations

from typing import assert_never

from engine import (
    Amount,
    Budget,
    Call,
    Context,
    Final,
    Publish,
    State,
    StepFailed,
    Workflow,
    after,
    enter,
    every,
    on,
    publish,
    runs,
)
from workflows.insurance_claim.data import (
    Assessment,
    Claim,
    ClaimDecided,
    ClaimFiled,
    ClaimWithdrawn,
    Documents,
    DocumentsReceived,
    Dossier,
    History,
    Message,
    Outcome,
    Policy,
    PolicyId,
    ReviewDecided,
)
from workflows.insurance_claim.memory import HistoryAsked, ask_history
from workflows.insurance_claim.steps import assess_risk, fetch_policy, send_message


class Open(State):
    """Holds until the claim is decided: the customer may withdraw it, and nothing stays open for ever."""

    claim: Claim
    documents: Documents = ()

    @on
    def withdrawn(self, event: ClaimWithdrawn) -> Withdrawn:
        return Withdrawn(claim=self.claim, note=event.note)

    @after(days=60)
    def overdue(self) -> Expired:
        return Expired(claim=self.claim)


class Gathering(Open):
    """The policy is fetched, and what is remembered of the customer asked, in parallel."""

    # Documents that come now are kept for the state that reads them.
    later = (DocumentsReceived,)

    @runs(fetch_policy, ask_history)
    def lookups(self) -> tuple[PolicyId, HistoryAsked]:
        return self.claim.policy_id, HistoryAsked(customer_id=self.claim.customer_id)

    @lookups.done
    def gathered(self, policy: Policy, history: History) -> Assessing:
        return Assessing(claim=self.claim, documents=self.documents, policy=policy, history=history)

    @lookups.failed
    def incomplete(self, failure: StepFailed) -> HumanReview:
        return HumanReview(claim=self.claim, documents=self.documents, reason=f"{failure.step}: {failure.error}")


class Assessing(Open):
    """A language model reads the dossier, and looks things up."""

    later = (DocumentsReceived,)

    policy: Policy
    history: History

    @runs(assess_risk)
    def question(self) -> Dossier:
        return Dossier(claim=self.claim, documents=self.documents, policy=self.policy, history=self.history)

    @question.done
    def assessed(self, assessment: Assessment) -> Approved | HumanReview | AwaitingDocuments:
        claim, documents, reason = self.claim, self.documents, assessment.reason
        match assessment.verdict:
            case "low risk":
                return Approved(claim=claim, approved_by="engine")
            case "documents missing" if not documents:
                return AwaitingDocuments(claim=claim, documents=documents, reason=reason)
            case "needs a person" | "documents missing":  # who has sent documents is not asked again by a machine
                return HumanReview(claim=claim, documents=documents, reason=reason)
        assert_never(assessment.verdict)

    @question.failed
    def unassessed(self, failure: StepFailed) -> HumanReview:
        """No answer in the form that is wanted, too many tokens, a refusal, ...: a person is told what it was."""
        reason = f"{failure.type}: {failure.error}" if failure.type else failure.error
        return HumanReview(claim=self.claim, documents=self.documents, reason=reason)


class HumanReview(Open, asks="claims-reviewers"):
    """A reviewer decides; reminded every 3 days, expired after 14."""

    reason: str

    @on
    def decided(self, event: ReviewDecided, ctx: Context) -> Approved | Rejected:
        by = ctx.who or event.reviewer
        if event.approve:
            return Approved(claim=self.claim, approved_by=by)
        return Rejected(claim=self.claim, rejected_by=by, note=event.note)

    @on
    def received(self, event: DocumentsReceived) -> HumanReview:
        return HumanReview(claim=self.claim, documents=self.documents + event.documents, reason=self.reason)

    @every(days=3)
    def remind(self) -> Call[None]:
        return send_message.call(Message(to="reviewers", text=f"{self.claim.claim_id}: {self.reason}"))

    @after(days=14)
    def expire(self) -> Expired:
        return Expired(claim=self.claim)


class AwaitingDocuments(Open):
    """The customer is asked for documents; what comes is added and assessed again."""

    reason: str

    @enter
    def ask(self) -> Call[None]:
        return send_message.call(Message(to=self.claim.customer_id, text=self.reason))

    @on
    def received(self, event: DocumentsReceived) -> Gathering:
        return Gathering(claim=self.claim, documents=self.documents + event.documents)

    @after(days=30)
    def expire(self) -> Expired:
        return Expired(claim=self.claim)


class Decided(Final):
    """Holds for every end of a claim: it is told to the world, and what comes after it is too late."""

    ignores = (DocumentsReceived, ReviewDecided, ClaimWithdrawn)

    claim: Claim


class Approved(Decided):
    approved_by: str

    @enter
    def tell(self) -> Publish:
        return decision(self.claim, "approved", self.approved_by)


class Rejected(Decided):
    rejected_by: str
    note: str

    @enter
    def tell(self) -> Publish:
        return decision(self.claim, "rejected", self.rejected_by)


class Expired(Decided):
    @enter
    def tell(self) -> Publish:
        return decision(self.claim, "expired", "calendar")


class Withdrawn(Decided):
    note: str

    @enter
    def tell(self) -> Publish:
        return decision(self.claim, "withdrawn", "customer")


BUDGET = Budget(run=Amount(tokens=2_500), day=Amount(eur="5.00"))
"""A claim that is to be assessed again is asked about: the people of `budgets` say whether it is worth more."""


def decision(claim: Claim, outcome: Outcome, decided_by: str) -> Publish:
    return publish(
        ClaimDecided(
            claim_id=claim.claim_id,
            customer_id=claim.customer_id,
            amount_eur=claim.amount_eur,
            outcome=outcome,
            decided_by=decided_by,
        )
    )


def open_claim(filed: ClaimFiled) -> Gathering:
    return Gathering(claim=filed.claim, documents=filed.documents)


insurance_claim = Workflow(
    "insurance-claim",
    start=open_claim,
    states=[
        Gathering,
        Assessing,
        HumanReview,
        AwaitingDocuments,
        Approved,
        Rejected,
        Expired,
        Withdrawn,
    ],
    budget=BUDGET,
)
