from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic_ai.messages import ModelResponse, ToolCallPart
from pydantic_ai.usage import RequestUsage

from engine import NeverAgain, Raise
from engine.testing import Simulation
from tests.workflows.claims import CLAIM, HISTORY, POLICY, simulation, verdict
from workflows.insurance_claim import application
from workflows.insurance_claim.data import (
    Assessment,
    ClaimDecided,
    ClaimFiled,
    ClaimWithdrawn,
    CustomerKnown,
    DocumentsReceived,
    Dossier,
    History,
    Like,
    Message,
    Outcome,
    Policy,
    PolicyId,
    ReviewDecided,
    Survey,
    Verdict,
)
from workflows.insurance_claim.memory import HistoryAsked, Remembering, customer_memory, remember
from workflows.insurance_claim.payment import NothingDue, Paid, Payment, Unpaid, payment, transfer
from workflows.insurance_claim.states import (
    Approved,
    Assessing,
    AwaitingDocuments,
    Expired,
    Gathering,
    HumanReview,
    Rejected,
    Withdrawn,
    insurance_claim,
)
from workflows.insurance_claim.steps import (
    ask_for_survey,
    assess_risk,
    fetch_policy,
    find_similar_claims,
    order_survey,
    send_message,
)
from workflows.insurance_claim.world import NotInRegisterError

TABLE = Path(__file__).with_name("insurance_claim.table.txt")
YES = ReviewDecided(reviewer="ann", approve=True)
PHOTO = DocumentsReceived(documents=("photo",))


@pytest.fixture
def run() -> Simulation[ClaimFiled]:
    return simulation()


def decided(outcome: Outcome, by: str) -> ClaimDecided:
    return ClaimDecided(
        claim_id="c-1", customer_id=CLAIM.customer_id, amount_eur=CLAIM.amount_eur, outcome=outcome, decided_by=by
    )


def final(answer: dict[str, str], *, tokens: int) -> ModelResponse:
    """A model's verdict that took so much."""
    call = ToolCallPart("final_result", answer, tool_call_id="end")
    return ModelResponse(parts=[call], usage=RequestUsage(input_tokens=tokens))


def test_the_table_is_the_golden_file() -> None:
    """After a wanted change: `python -m tests.workflows.test_states` writes it again."""
    assert insurance_claim.table() + "\n" == TABLE.read_text()


def test_the_application_knows_the_claims_events() -> None:
    assert sorted(insurance_claim.events) == ["ClaimFiled", "ClaimWithdrawn", "DocumentsReceived", "ReviewDecided"]
    assert sorted(customer_memory.events) == ["ClaimDecided", "CustomerKnown"]
    assert list(application.workflows)[:3] == ["insurance-claim", "customer-memory", "payment"]
    assert list(application.models) == ["claims-assessor"]


def test_what_is_remembered_of_a_customer_grows_with_every_claim() -> None:
    known = remember(CustomerKnown(customer_id=CLAIM.customer_id, claims_last_5_years=2))
    more = known.claimed(decided("approved", "ann")).claimed(decided("rejected", "bo"))

    assert more.history(HistoryAsked(customer_id=CLAIM.customer_id)) == History(claims_last_5_years=4)
    assert more.paid_eur == CLAIM.amount_eur
    assert remember(decided("expired", "calendar")) == Remembering(
        customer_id=CLAIM.customer_id, claims_before=0, decided=1
    )


def test_a_review_stands_in_the_inbox_until_somebody_answers(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM))
    assert [(asks.group, asks.call) for asks in run.inbox()] == [("claims-reviewers", "")]

    run.take("bo")
    run.answer(ReviewDecided(approve=True), who="bo")

    assert run.state() == Approved(claim=CLAIM, approved_by="bo")
    assert run.inbox() == []


def test_what_somebody_has_taken_nobody_else_answers(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM))
    run.take("bo")
    run.answer(ReviewDecided(approve=True), who="ann")

    assert isinstance(run.state(), HumanReview)
    assert len(run.ignored) == 1


def test_the_reviewer_of_an_event_has_the_last_word(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM))
    run.send(YES)

    assert run.state() == Approved(claim=CLAIM, approved_by="ann")


def test_a_rejection_keeps_who_and_why(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM))
    run.answer(ReviewDecided(approve=False, note="not covered"), who="bo")

    assert run.state() == Rejected(claim=CLAIM, rejected_by="bo", note="not covered")


@pytest.mark.parametrize(
    ("said", "documents", "state"),
    [
        ("low risk", (), Approved),
        ("needs a person", (), HumanReview),
        ("documents missing", (), AwaitingDocuments),
        ("documents missing", ("photo",), HumanReview),
    ],
)
def test_the_models_verdict_leads_on(said: Verdict, documents: tuple[str, ...], state: type) -> None:
    assessing = Assessing(claim=CLAIM, documents=documents, policy=POLICY, history=HISTORY)

    assert type(assessing.assessed(verdict(said))) is state


def test_every_verdict_leads_on() -> None:
    assessing = Assessing(claim=CLAIM, policy=POLICY, history=HISTORY)

    assert [assessing.assessed(verdict(said)) for said in get_args(Verdict)]


def test_a_claim_without_risk_is_paid_at_once(run: Simulation[ClaimFiled]) -> None:
    run.fake(assess_risk, lambda dossier: verdict("low risk"))
    run.send(ClaimFiled(claim=CLAIM))

    assert run.state() == Approved(claim=CLAIM, approved_by="engine")
    assert run.published == [decided("approved", "engine")]
    assert run.finished


def test_a_forgotten_review_is_reminded_four_times_and_expires(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(days=15)

    assert run.state() == Expired(claim=CLAIM)
    assert run.calls(send_message) == [Message(to="reviewers", text="c-1: large amount")] * 4
    assert run.published == [decided("expired", "calendar")]


def test_a_claim_that_cannot_be_looked_up_goes_to_a_person(run: Simulation[ClaimFiled]) -> None:
    def nowhere(policy_id: PolicyId) -> Policy:
        message = "policy 'p-1' is not in the register"
        raise NotInRegisterError(message)

    run.fake(fetch_policy, nowhere)
    run.send(ClaimFiled(claim=CLAIM))

    assert run.state() == HumanReview(claim=CLAIM, reason="fetch_policy: policy 'p-1' is not in the register")
    assert len(run.calls(fetch_policy)) == 1


def test_a_register_that_is_down_is_asked_again(run: Simulation[ClaimFiled]) -> None:
    failures = [ConnectionError("down"), ConnectionError("down")]

    def down_at_first(policy_id: PolicyId) -> Policy:
        if failures:
            raise failures.pop()
        return POLICY

    run.fake(fetch_policy, down_at_first)
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(hours=1)

    assert isinstance(run.state(), HumanReview)
    assert len(run.calls(fetch_policy)) == 3


def test_a_model_that_does_not_answer_leaves_the_claim_to_a_person(run: Simulation[ClaimFiled]) -> None:
    def down(dossier: object) -> None:
        message = "no model listens"
        raise ConnectionError(message)

    run.fake(assess_risk, down)  # type: ignore[arg-type]  # it never returns
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(hours=1)

    assert run.state() == HumanReview(claim=CLAIM, reason="ConnectionError: no model listens")
    assert len(run.calls(assess_risk)) == 3


def test_a_model_that_says_no_verdict_leaves_the_claim_to_a_person(run: Simulation[ClaimFiled]) -> None:
    run.real(assess_risk)
    run.fake_model("claims-assessor", ["a poem"] * 3)
    run.send(ClaimFiled(claim=CLAIM))
    review = run.state()

    assert isinstance(review, HumanReview)
    assert review.reason.startswith("InvalidAnswer: assess_risk: the model gave 3 answers")


@pytest.mark.parametrize(("leave", "said"), [("yes", "the damage is confirmed"), ("no", "did not give leave")])
def test_a_survey_is_ordered_when_a_person_has_said_yes(run: Simulation[ClaimFiled], leave: str, said: str) -> None:
    heard: list[str] = []

    def model(messages: list[Any]) -> object:
        heard.append(str(messages[-1]))
        return order_survey.call(Survey(of="building")) if len(heard) == 1 else verdict("low risk")

    run.fake(fetch_policy, lambda policy_id: Policy(limit_eur=20_000))
    run.fake(order_survey, lambda survey: "the damage is confirmed")
    run.real(assess_risk)
    run.fake_model("claims-assessor", model)
    run.send(ClaimFiled(claim=CLAIM.model_copy(update={"amount_eur": 8_000})))
    (asks,) = run.inbox()
    assert (asks.group, asks.question) == ("claims-surveys", ask_for_survey(Survey(of="building")))

    run.answer(leave, who="eve")

    assert isinstance(run.state(), Approved)
    assert len(run.calls(order_survey)) == (leave == "yes")
    assert said in heard[-1]


def test_a_claim_that_is_assessed_again_asks_for_a_higher_budget() -> None:
    run = simulation()
    run.real(assess_risk)
    missing = {"verdict": "documents missing", "reason": "send a photo"}
    run.fake_model("claims-assessor", [final(missing, tokens=501), final(missing, tokens=501)])
    run.send(ClaimFiled(claim=CLAIM))
    assert isinstance(run.state(), AwaitingDocuments)
    run.send(PHOTO)
    (asks,) = run.inbox()
    assert (asks.group, asks.name) == ("budgets", "budget")

    run.answer(Raise(tokens=500), who="fritz")

    assert isinstance(run.state(), HumanReview)
    assert run.budget().more_tokens == 500


def test_an_assessment_killed_at_each_of_its_keeps_ends_the_same() -> None:
    ends = []
    for place in range(4):
        run = simulation()
        run.real(assess_risk)
        run.fake(find_similar_claims, lambda like: "others like it were approved")
        answers = [find_similar_claims.call(Like(amount="medium")), verdict("low risk")]
        run.fake_model("claims-assessor", answers)
        if place:
            run.crash_after(place)
        run.send(ClaimFiled(claim=CLAIM))
        ends.append((run.state(), run.budget()))
        assert len(run.calls(find_similar_claims)) == 1

    assert ends == [ends[0]] * 4


def test_a_claim_asks_the_memory_of_its_customer() -> None:
    run = Simulation(insurance_claim, others=[customer_memory])
    run.fake(fetch_policy, lambda policy_id: POLICY)
    run.fake(send_message, lambda message: None)
    seen: list[History] = []

    def assessed(dossier: Dossier) -> Assessment:
        seen.append(dossier.history)
        return verdict("low risk")

    run.fake(assess_risk, assessed)
    run.other(customer_memory, CLAIM.customer_id).send(
        CustomerKnown(customer_id=CLAIM.customer_id, claims_last_5_years=2)
    )
    run.send(ClaimFiled(claim=CLAIM))

    assert seen == [History(claims_last_5_years=2)]
    assert run.other(customer_memory, CLAIM.customer_id).state() == Remembering(
        customer_id=CLAIM.customer_id, claims_before=2, decided=1, paid_eur=CLAIM.amount_eur
    )


def test_an_approved_claim_is_paid_by_a_run_of_its_own() -> None:
    run = Simulation(insurance_claim, others=[customer_memory, payment])
    run.fake(fetch_policy, lambda policy_id: POLICY)
    run.fake(assess_risk, lambda dossier: verdict("low risk"))
    run.fake(transfer, lambda due: "T-1")
    run.send(ClaimFiled(claim=CLAIM))

    due = Payment(claim_id="c-1", customer_id=CLAIM.customer_id, amount_eur=CLAIM.amount_eur)
    assert run.other(payment, "c-1").state() == Paid(payment=due, number="T-1")


def test_only_what_is_approved_is_paid() -> None:
    run = Simulation(payment)
    run.send(decided("rejected", "ann"))

    assert run.state() == NothingDue(claim_id="c-1")


def test_a_payment_that_the_bank_refuses_ends_unpaid() -> None:
    run = Simulation(payment)

    def refuse(due: Payment) -> str:
        raise NeverAgain("account closed")

    run.fake(transfer, refuse)
    run.send(decided("approved", "ann"))

    state = run.state()
    assert isinstance(state, Unpaid)
    assert state.reason == "account closed"


def test_documents_are_asked_for_and_read(run: Simulation[ClaimFiled]) -> None:
    run.fake(assess_risk, lambda d: verdict("low risk" if d.documents else "documents missing", "send a photo"))
    run.send(ClaimFiled(claim=CLAIM))
    assert run.calls(send_message) == [Message(to="u-1", text="send a photo")]

    run.send(PHOTO)

    assert run.state() == Approved(claim=CLAIM, approved_by="engine")


def test_documents_that_never_come_let_the_claim_expire(run: Simulation[ClaimFiled]) -> None:
    run.fake(assess_risk, lambda dossier: verdict("documents missing"))
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(days=29)
    assert isinstance(run.state(), AwaitingDocuments)

    run.advance(days=2)

    assert run.state() == Expired(claim=CLAIM)


def test_documents_in_review_are_added_and_the_calendar_goes_on(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(days=10)
    run.send(PHOTO)
    assert run.state() == HumanReview(claim=CLAIM, documents=("photo",), reason="large amount")

    run.advance(days=5)

    assert run.state() == Expired(claim=CLAIM)


def test_documents_during_the_look_ups_are_kept() -> None:
    assert Gathering.later == Assessing.later == (DocumentsReceived,)


@pytest.mark.parametrize("event", [PHOTO, YES, ClaimWithdrawn()])
def test_what_comes_after_the_decision_is_recorded_and_changes_nothing(
    run: Simulation[ClaimFiled], event: DocumentsReceived | ReviewDecided | ClaimWithdrawn
) -> None:
    run.fake(assess_risk, lambda dossier: verdict("low risk"))
    run.send(ClaimFiled(claim=CLAIM))
    run.send(event)

    assert run.state() == Approved(claim=CLAIM, approved_by="engine")
    assert len(run.ignored) == 1
    assert len(run.published) == 1


def test_a_decision_sent_twice_is_taken_once(run: Simulation[ClaimFiled]) -> None:
    run.send(ClaimFiled(claim=CLAIM), id="filed")
    run.send(ClaimFiled(claim=CLAIM), id="filed")
    run.send(YES, id="review")
    run.send(YES, id="review")

    assert run.published == [decided("approved", "ann")]


@pytest.mark.parametrize("said", ["needs a person", "documents missing"])
def test_an_open_claim_can_be_withdrawn(run: Simulation[ClaimFiled], said: Verdict) -> None:
    run.fake(assess_risk, lambda dossier: verdict(said))
    run.send(ClaimFiled(claim=CLAIM))
    run.send(ClaimWithdrawn(note="settled"))

    assert run.state() == Withdrawn(claim=CLAIM, note="settled")
    assert run.published == [decided("withdrawn", "customer")]


def test_no_claim_stays_open_for_more_than_sixty_days(run: Simulation[ClaimFiled]) -> None:
    """The customer sends empty envelopes: each begins another 30 days, but the deadline counts from the filing."""
    run.fake(assess_risk, lambda dossier: verdict("documents missing"))
    run.send(ClaimFiled(claim=CLAIM))
    for _ in range(2):
        run.advance(days=29)
        run.send(DocumentsReceived(documents=()))
    run.advance(days=1)
    assert isinstance(run.state(), AwaitingDocuments)

    run.advance(days=1)

    assert run.state() == Expired(claim=CLAIM)


if __name__ == "__main__":
    TABLE.write_text(insurance_claim.table() + "\n")
