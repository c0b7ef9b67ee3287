"""Which steps a budget wants bounds of."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine import Amount, Budget, Call, DefinitionError, Event, Final, State, StepFailed, Workflow, on, runs
from engine.core.steps import Retry, Spends, Step


async def _think(text: str) -> int:
    return len(text)


def dear(name: str) -> Step[str, int]:
    spends = Spends(cost=200_000)
    return Step(name, _think, Retry(), timedelta(seconds=30), None, takes=str, gives=int, spends=spends)


judge = dear("judge")
elsewhere = dear("elsewhere")


class Filed(Event):
    text: str


class Judging(State):
    text: str

    @runs(judge)
    def question(self) -> str:
        return self.text

    @question.done
    def judged(self, score: int) -> Over:
        return Over()

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over()


class Calling(State):
    text: str

    @runs(judge)
    def question(self) -> str:
        return self.text

    @question.done
    def judged(self, score: int) -> Over:
        return Over()

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over()

    @on
    def filed(self, event: Filed) -> Call[int]:
        return elsewhere.call(event.text)


class Over(Final):
    pass


def judging(event: Filed) -> Judging:
    return Judging(text=event.text)


def calling(event: Filed) -> Calling:
    return Calling(text=event.text)


CHEAP = Budget(run=Amount(eur="0.10"))


def test_a_budget_wants_nothing_of_steps_that_only_another_workflow_runs() -> None:
    with pytest.raises(DefinitionError) as raised:
        Workflow("judging", start=judging, states=[Judging, Over], budget=CHEAP)

    assert "judge may use more eur in one call than the whole budget" in str(raised.value)
    assert "elsewhere" not in str(raised.value)


def test_a_handler_that_calls_may_call_any_step_of_its_module() -> None:
    with pytest.raises(DefinitionError, match="elsewhere may use more eur in one call than the whole budget"):
        Workflow("calling", start=calling, states=[Calling, Over], budget=CHEAP)
