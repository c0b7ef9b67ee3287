"""claim-3step: an event starts a run of three steps, one after the other. The steps do nothing but answer.

Also its sleepers (a run that waits a year for an event) and its second-long step, for the makespan.
"""

# ruff: noqa: ARG001, ARG002 - steps and handlers that do nothing look at nothing

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from engine import Application, Event, Final, State, StepFailed, Workflow, after, on, runs, step

TEXT = "x" * 170


class Claim(BaseModel, frozen=True):
    """What is claimed, about 150 bytes of it."""

    id: str
    text: str
    amount: int


class Outcome(BaseModel, frozen=True):
    """A step's result of 200 bytes."""

    result: str
    score: int


class Filed(Event, key="claim.id"):
    """Starts a run of three steps."""

    claim: Claim


class Slept(Event, key="id"):
    """Starts a run that waits."""

    id: str


class Woken(Event, key="id"):
    """Ends a wait."""

    id: str


class Slow(Event, key="id"):
    """Starts a run whose one step takes a second."""

    id: str


@step()
async def fetch_policy(claim: Claim) -> Outcome:
    return Outcome(result=TEXT, score=1)


@step()
async def assess(claim: Claim) -> Outcome:
    return Outcome(result=TEXT, score=2)


@step()
async def decide(claim: Claim) -> Outcome:
    return Outcome(result=TEXT, score=3)


@step()
async def take_a_second(id: str) -> Outcome:
    await asyncio.sleep(1)
    return Outcome(result=TEXT, score=len(id))


class Failed(Final):
    """A step was given up."""

    reason: str


class Policy(State):
    """First step."""

    claim: Claim

    @runs(fetch_policy)
    def lookup(self) -> Claim:
        return self.claim

    @lookup.done
    def found(self, policy: Outcome) -> Assess:
        return Assess(claim=self.claim, policy=policy)

    @lookup.failed
    def missing(self, failure: StepFailed) -> Failed:
        return Failed(reason=failure.error)


class Assess(State):
    """Second step."""

    claim: Claim
    policy: Outcome

    @runs(assess)
    def question(self) -> Claim:
        return self.claim

    @question.done
    def assessed(self, assessment: Outcome) -> Decide:
        return Decide(claim=self.claim, policy=self.policy, assessment=assessment)

    @question.failed
    def unassessed(self, failure: StepFailed) -> Failed:
        return Failed(reason=failure.error)


class Decide(State):
    """Third step."""

    claim: Claim
    policy: Outcome
    assessment: Outcome

    @runs(decide)
    def decision(self) -> Claim:
        return self.claim

    @decision.done
    def decided(self, outcome: Outcome) -> Decided:
        return Decided(score=self.policy.score + self.assessment.score + outcome.score)

    @decision.failed
    def undecided(self, failure: StepFailed) -> Failed:
        return Failed(reason=failure.error)


class Decided(Final):
    """All three answered."""

    score: int


class Asleep(State):
    """Waits for an event, a year at most."""

    id: str

    @on
    def woken(self, event: Woken) -> Awake:
        return Awake(id=self.id)

    @after(days=365)
    def overslept(self) -> Awake:
        return Awake(id=self.id)


class Awake(Final):
    """The wait is over."""

    id: str


class Waiting(State):
    """One step of a second."""

    id: str

    @runs(take_a_second)
    def second(self) -> str:
        return self.id

    @second.done
    def over(self, outcome: Outcome) -> Decided:
        return Decided(score=outcome.score)

    @second.failed
    def broken(self, failure: StepFailed) -> Failed:
        return Failed(reason=failure.error)


def begin(filed: Filed) -> Policy:
    return Policy(claim=filed.claim)


def fall_asleep(slept: Slept) -> Asleep:
    return Asleep(id=slept.id)


def begin_slowly(slow: Slow) -> Waiting:
    return Waiting(id=slow.id)


claim_3step = Workflow("claim-3step", start=begin, states=[Policy, Assess, Decide, Decided, Failed])
sleeper = Workflow("sleeper", start=fall_asleep, states=[Asleep, Awake])
slow = Workflow("slow", start=begin_slowly, states=[Waiting, Decided, Failed])
application = Application(workflows=[claim_3step, sleeper, slow])
