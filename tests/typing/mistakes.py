"""Wrong on purpose, line by line: what the type checker must catch in a workflow.

`# E: code` marks a line that must give that error; no other line may give any. test_mistakes.py compares.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, NewType, assert_never

from pydantic import BaseModel

from engine import (
    Call,
    Event,
    Final,
    State,
    StepFailed,
    Workflow,
    after,
    enter,
    every,
    on,
    publish,
    runs,
    runs_each,
    step,
)
from engine.testing import Simulation

PolicyId = NewType("PolicyId", str)
CustomerId = NewType("CustomerId", str)


class Policy(BaseModel, frozen=True):
    limit: int


class History(BaseModel, frozen=True):
    claims: int


class Assessment(BaseModel, frozen=True):
    verdict: Literal["good", "bad", "unclear"]


class Filed(Event, key="claim"):
    claim: str


class Decided(Event):
    approve: bool


@step()
async def fetch_policy(policy: PolicyId) -> Policy:
    return Policy(limit=len(policy))


@step()
async def fetch_history(customer: CustomerId) -> History:
    return History(claims=len(customer))


@step()
async def assess(policy: Policy) -> Assessment:
    return Assessment(verdict="good")


@step()
async def send(text: str) -> None: ...


class Paid(Final):
    claim: str


class Refused(Final):
    claim: str
    note: str


class Handlers(State):
    claim: str
    policy: PolicyId
    customer: CustomerId

    # 1 another step's result
    @runs(fetch_policy)
    def other_result(self) -> PolicyId:
        return self.policy

    @other_result.done  # E: arg-type
    def got_other(self, history: History) -> Paid:
        return Paid(claim=self.claim)

    # 2 a step given the wrong input
    @runs(fetch_policy)  # E: arg-type
    def wrong_input(self) -> int:
        return 1

    # 3 two steps run, one result taken
    @runs(fetch_policy, fetch_history)
    def two(self) -> tuple[PolicyId, CustomerId]:
        return self.policy, self.customer

    @two.done  # E: arg-type
    def got_one(self, policy: Policy) -> Paid:
        return Paid(claim=self.claim)

    # 4 results in the wrong order
    @two.done  # E: arg-type
    def got_swapped(self, history: History, policy: Policy) -> Paid:
        return Paid(claim=self.claim)

    # 5 a state that the annotation does not name
    @on
    def decided(self, event: Decided) -> Paid:
        return Refused(claim=self.claim, note="")  # E: return-value

    # 6 the next state lacks a field
    @on
    def forgotten(self, event: Decided) -> Refused:
        return Refused(claim=self.claim)  # E: call-arg

    # 7 a branch returns nothing
    @on
    def half(self, event: Decided) -> Paid:  # E: return
        if event.approve:
            return Paid(claim=self.claim)

    # 8 an answer that is neither state nor call
    @on  # E: type-var
    def number(self, event: Decided) -> int:
        return 1

    # 9 a parameter that is no event
    @on  # E: type-var
    def no_event(self, event: Policy) -> Paid:
        return Paid(claim=self.claim)

    # 10 a timer's handler takes an argument
    @after(days=1)  # E: arg-type
    def timer(self, event: Decided) -> Paid:
        return Paid(claim=self.claim)

    # 11 a misspelt field
    @after(days=1)
    def misspelt(self) -> Paid:
        return Paid(claim=self.calim)  # E: attr-defined

    # 12 an async handler
    @on  # E: type-var
    async def waits(self, event: Decided) -> Paid:
        return Paid(claim=self.claim)

    # 13 a call with the wrong input
    @every(days=1)
    def remind(self) -> Call[None]:
        return send.call(1)  # E: arg-type

    # 14 a state that is changed
    @on
    def changes(self, event: Decided) -> Paid:
        self.claim = "other"  # E: misc
        return Paid(claim=self.claim)

    # 15 a case that is not handled
    @runs(assess)
    def question(self) -> Policy:
        return Policy(limit=1)

    @question.done
    def assessed(self, assessment: Assessment) -> Paid | Refused:
        match assessment.verdict:  # E: exhaustive-match
            case "good":
                return Paid(claim=self.claim)
            case "bad":
                return Refused(claim=self.claim, note="")
        assert_never(assessment.verdict)  # E: arg-type

    # 16 a comparison with a misspelt literal
    @question.done
    def compared(self, assessment: Assessment) -> Paid | Refused:
        if assessment.verdict == "goood":  # E: comparison-overlap
            return Paid(claim=self.claim)  # E: unreachable
        return Refused(claim=self.claim, note="")

    # 17 a misspelt unit of time
    @after(day=3)  # E: call-arg
    def unit(self) -> Paid:
        return Paid(claim=self.claim)

    # 21 `.failed` takes the wrong type
    @question.failed  # E: arg-type
    def failed(self, failure: str) -> Paid:
        return Paid(claim=self.claim)

    # 22 a handler without annotations
    @on
    def bare(self, event):  # E: no-untyped-def
        return Paid(claim=self.claim)

    # 23 two ids swapped
    @runs(fetch_policy, fetch_history)  # E: arg-type
    def swapped(self) -> tuple[CustomerId, PolicyId]:
        return self.customer, self.policy

    # 24 the step in place of its call
    @every(days=2)
    def nag(self) -> Call[None]:
        return send  # E: return-value

    # 25 @enter leads to a state
    @enter  # E: type-var
    def enters(self) -> Paid:
        return Paid(claim=self.claim)

    # 26 results of a fan-out taken one by one
    @runs_each(fetch_policy)
    def all_policies(self) -> tuple[PolicyId, ...]:
        return (self.policy,)

    @all_policies.done  # E: arg-type
    def got_all(self, policy: Policy) -> Paid:
        return Paid(claim=self.claim)

    # 27 a state published
    @on
    def publishes(self, event: Decided) -> Paid:
        publish(Paid(claim=self.claim))  # E: arg-type
        return Paid(claim=self.claim)


# 18 start returns no state
def start_nothing(filed: Filed) -> int:
    return 1


Workflow("a", start=start_nothing, states=[Paid])  # E: arg-type


def start(filed: Filed) -> Handlers:
    return Handlers(claim=filed.claim, policy=PolicyId("p"), customer=CustomerId("c"))


# 19 states= holds something else
Workflow("b", start=start, states=[Handlers, Decided])  # E: list-item


# 20 a step that is not async
@step(timeout=timedelta(seconds=1))  # E: arg-type
def blocking(text: str) -> str:
    return text


# And in tests: a fake that answers with something else, a wrong event
run = Simulation(Workflow("c", start=start, states=[Handlers]))
run.fake(fetch_history, lambda customer: Policy(limit=1))  # E: arg-type, return-value
run.send(Policy(limit=1))  # E: arg-type


def handle(failure: StepFailed) -> str:
    return failure.eror  # E: attr-defined, no-any-return
