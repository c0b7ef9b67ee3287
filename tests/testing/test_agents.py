"""Agents in a `Simulation`: a model that says what is written down, faked tools, engines that die meanwhile."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from engine import Raise
from engine.testing import NotFaked, ProviderError, Simulation, Simulations
from tests.testing.folded import FoldedLog
from tests.testing.survey import (
    YES,
    Assessed,
    Place,
    Reported,
    Unassessed,
    Verdict,
    Weather,
    assess,
    damage,
    order_survey,
    paid,
    poor,
    tight,
    weather_on,
)

pytest.importorskip("pydantic_ai")

BONN = Reported(town="bonn")
ASKS = weather_on.call(Place(town="bonn"))


@pytest.fixture
def run() -> Simulation[Reported]:
    run = Simulation(damage)
    run.fake(weather_on, lambda place: Weather(rain_mm=len(place.town)))
    return run


def turns(run: Simulation[Any]) -> list[str]:
    """What was kept of models and tools, in order."""
    return [r.inner for r in run.records if r.cause == "kept" and r.inner]


def test_a_model_answers_as_it_is_told(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", answers=[YES])
    run.send(BONN)

    assert run.state() == Assessed(verdict=YES)
    assert turns(run) == ["turn 1"]
    assert run.records[-2].used is not None


def test_a_model_calls_a_faked_tool(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", answers=[ASKS, [ASKS, weather_on.call(Place(town="köln"))], YES])
    run.send(BONN)

    assert run.state() == Assessed(verdict=YES)
    assert run.calls(weather_on) == [Place(town="bonn"), Place(town="bonn"), Place(town="köln")]
    assert turns(run)[:3] == ["turn 1", "weather_on 1.1", "turn 2"]


def test_a_function_may_answer_for_the_model(run: Simulation[Reported]) -> None:
    asked: list[str] = []

    def answer(messages: list[Any]) -> object:
        asked.append(str(messages[-1].parts[-1].content))
        return Verdict(plausible=False, reason=f"{len(messages)}") if len(messages) > 1 else ASKS

    run.fake_model("assessor", answer)
    run.send(BONN)

    assert run.state() == Assessed(verdict=Verdict(plausible=False, reason="3"))
    assert "bonn" in asked[0]
    assert '"rain_mm": 4' in asked[1]


def test_a_script_of_failures_follows_the_retries(run: Simulation[Reported]) -> None:
    failures = [ProviderError(429, retry_after=3600), ProviderError(500), ConnectionResetError("gone")]
    run.fake_model("assessor", answers=[*failures, YES])
    run.send(BONN)
    assert not run.finished
    run.advance(minutes=59)
    assert len(run.calls(assess)) == 1
    run.advance(minutes=10)

    assert run.state() == Assessed(verdict=YES)
    assert len(run.calls(assess)) == 4


def test_a_bad_key_halts_the_run(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", answers=[ProviderError(401, "invalid key"), YES])
    run.send(BONN)
    assert run.halted() is not None
    run.order("resume")

    assert run.state() == Assessed(verdict=YES)


def test_an_answer_that_does_not_fit_goes_back_to_the_model(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", answers=["I think so.", YES])
    run.send(BONN)

    assert run.state() == Assessed(verdict=YES)
    assert turns(run) == ["turn 1", "turn 2"]


def test_a_model_that_never_fits_is_a_failure_with_a_name(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", answers=["no"] * 3)
    run.send(BONN)

    state = run.state()
    assert isinstance(state, Unassessed)
    assert state.why == "InvalidAnswer"


def test_the_same_tool_for_ever_comes_to_its_end(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", lambda messages: ASKS)
    run.send(BONN)

    state = run.state()
    assert isinstance(state, Unassessed)
    assert state.why == "TooManyCalls"


def test_what_a_tool_raises_is_told_to_the_model(run: Simulation[Reported]) -> None:
    def broken(place: Place) -> Weather:
        message = f"no station in {place.town}"
        raise OSError(message)

    run.fake(weather_on, broken)
    heard: list[str] = []

    def answer(messages: list[Any]) -> object:
        heard.append(str(messages[-1].parts[-1].content))
        return YES if len(heard) > 1 else ASKS

    run.fake_model("assessor", answer)
    run.send(BONN)
    run.advance(minutes=1)

    assert run.state() == Assessed(verdict=YES)
    assert "no station in bonn" in heard[-1]
    assert len(run.calls(weather_on)) == 2


@pytest.mark.parametrize(("answer", "heard"), [("yes", "eve goes to bonn"), ("no", "did not give leave")])
def test_a_tool_that_needs_leave_asks_people(run: Simulation[Reported], answer: str, heard: str) -> None:
    said: list[str] = []

    def model(messages: list[Any]) -> object:
        said.append(str(messages[-1].parts[-1].content))
        return YES if len(said) > 1 else order_survey.call(Place(town="bonn"))

    run.fake_model("assessor", model)
    run.real(order_survey, resources={"surveyor": "eve"})
    run.send(BONN)
    (asked,) = run.inbox()
    assert (asked.group, asked.question) == ("reviewers", "Survey bonn?")
    run.advance(days=3)
    run.answer(answer, who="ann")

    assert run.state() == Assessed(verdict=YES)
    assert heard in said[-1]
    assert len(run.calls(order_survey)) == (answer == "yes")


def test_a_tool_that_is_neither_faked_nor_real_is_told_to_the_test() -> None:
    run = Simulation(damage)
    run.fake_model("assessor", answers=[ASKS, YES])
    with pytest.raises(NotFaked, match="assess called its tool weather_on, which is not faked"):
        run.send(BONN)


def test_a_script_that_is_too_short_says_what_was_asked(run: Simulation[Reported]) -> None:
    run.fake_model("assessor", answers=[ASKS])
    with pytest.raises(NotFaked, match=r"was asked 2 times, but answers= has 1; the last question: [\s\S]*rain_mm"):
        run.send(BONN)


def test_a_step_without_a_fake_names_its_model() -> None:
    with pytest.raises(LookupError, match=r"run.fake_model\('assessor', answers=\[...\]\)"):
        Simulation(damage).send(BONN)


# -- crashes -----------------------------------------------------------------------------------------------------------

TEN_TURNS = [*([ASKS] * 9), YES]


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("results", range(1, 21))
def test_an_agent_of_ten_turns_is_killed_at_each_of_its_entries(
    run: Simulation[Reported], results: int, lost: bool
) -> None:
    """Ten turns, nine calls of a tool, the answer: twenty entries."""
    run.fake_model("assessor", answers=TEN_TURNS)
    run.crash_after(results, lost=lost)
    run.send(BONN)
    kept = turns(run)

    assert run.state() == Assessed(verdict=YES)
    assert len(kept) == len(set(kept)) == 19
    assert len(run.calls(assess)) == 1 + (results < 20 or lost)
    assert len([r for r in run.records if r.again]) == (results < 19 + lost)


# -- recordings --------------------------------------------------------------------------------------------------------


def test_a_recorded_agent_is_played_without_a_model_and_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    log, first = FoldedLog(monkeypatch), Simulation(paid)
    first.fake(weather_on, lambda place: Weather(rain_mm=1))
    first.fake_model("assessor", answers=[ASKS, YES])
    first.send(BONN)
    run = Simulation(paid)
    run.play(log.recorded(first))
    run.send(BONN)

    assert run.state() == first.state() == Assessed(verdict=YES)
    assert turns(run) == turns(first) == ["turn 1", "weather_on 1.1", "turn 2"]
    assert run.calls(weather_on) == []
    assert run.budget() == first.budget()


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_what_a_model_used_is_settled() -> None:
    run = Simulation(paid)
    run.fake_model("assessor", answers=[YES])
    run.send(BONN)
    used = next(r.used for r in run.records if r.used)
    budget, account = run.budget(), run.account()

    assert budget.tokens == used.tokens > 0
    assert budget.cost == used.cost == account.spent.cost
    assert (budget.reserved_cost, account.reserved.cost) == (0, 0)


def test_a_run_whose_budget_is_spent_asks_and_hears_a_no() -> None:
    run = Simulation(poor)
    run.fake_model("assessor", answers=[YES])
    run.send(BONN)
    (asked,) = run.inbox()
    assert asked.group == "budgets"
    with pytest.raises(ValueError, match="is no answer to"):
        run.answer("yes")
    run.answer("no", who="boss")

    state = run.state()
    assert isinstance(state, Unassessed)
    assert (state.why, state.words) == ("BudgetRefused", "boss gave no more")
    assert len(run.calls(assess)) == 1


def test_a_person_raises_the_budget_of_a_run() -> None:
    run = Simulation(poor)
    run.fake_model("assessor", answers=[YES, YES])
    run.send(BONN)
    run.answer(Raise(eur=Decimal("0.02")), who="boss")

    assert run.state() == Assessed(verdict=YES)
    assert run.budget().more_cost == 20_000


def test_a_shared_budget_that_is_spent_asks_people() -> None:
    runs = Simulations([tight])
    waits = iter([True, False])

    def model(messages: list[Any]) -> object:
        return ProviderError(503) if next(waits, False) else YES

    runs.fake_model("assessor", model)
    runs.send(BONN)
    runs.send(Reported(town="ulm"))
    second = runs.run(tight, "ulm")
    assert [asks.group for _, asks in runs.inbox()] == ["budgets"]
    assert second.calls(assess) == []
    second.answer(Raise(eur=Decimal("0.05")), who="boss")

    assert second.state() == Assessed(verdict=YES)
    assert runs.inbox() == []
    runs.advance(hours=1)
    assert runs.run(tight, "bonn").finished
    assert second.account().reserved.cost == 0
