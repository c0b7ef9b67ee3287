"""Budgets of runs, and accounts that runs share: reserved before a call, settled after it, asked about when spent."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from engine import (
    Amount,
    Application,
    Budget,
    BudgetSpent,
    DefinitionError,
    Event,
    Final,
    Raise,
    State,
    StepContext,
    StepFailed,
    Workflow,
    on,
    runs,
)
from engine.core.account import ACCOUNTS, BudgetRaised, accounts
from engine.core.budget import euros, micro
from engine.core.entry import AnswerEntry, FailureEntry, KeptEntry, QuestionEntry, ResultEntry, Used
from engine.core.ids import CallId
from engine.core.reaction import AskRun, Forget, Keep, Reaction, Reply, StartCall
from engine.core.steps import Retry, Spends, Step
from tests.core.folding import DAY, Run

CENT = 10_000


async def _assess(text: str, context: StepContext) -> int:
    return len(text)


def spending_step(name: str, cost: int = 20 * CENT, tokens: int = 1000) -> Step[str, int]:
    spends = Spends(tokens=tokens, cost=cost)
    return Step(name, _assess, Retry(attempts=2), timedelta(seconds=30), None, takes=str, gives=int, spends=spends)


assess = spending_step("assess")
judge = spending_step("judge")


class Filed(Event):
    text: str


class Assessing(State):
    text: str

    @runs(assess)
    def question(self) -> str:
        return self.text

    @question.done
    def assessed(self, score: int) -> Judging:
        return Judging(text=self.text)

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)


class Judging(State):
    text: str

    @runs(judge)
    def question(self) -> str:
        return self.text

    @question.done
    def judged(self, score: int) -> Over:
        return Over(why="judged")

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)

    @on
    def broke(self, event: BudgetSpent) -> Over:
        return Over(why=f"{event.budget}: {event.step}")


class Over(Final):
    why: str


def begin(event: Filed) -> Assessing:
    return Assessing(text=event.text)


def claims(budget: Budget) -> Workflow[Filed]:
    return Workflow("claims", start=begin, states=[Assessing, Judging, Over], budget=budget)


BY_RUN = claims(Budget(run=Amount(eur="0.30")))
SHARED = claims(Budget(run=Amount(eur="1"), day=Amount(eur="0.50"), account="all claims"))


def used(cost: int | None, tokens: int = 100) -> Used:
    return Used("assessor", answered="m", input=tokens, cost=cost)


def keep(run: Run, call: StartCall, index: int, spent: Used | None = None, name: str = "") -> Reaction:
    entry = KeptEntry(
        run.workflow.name,
        run.key,
        call.run,
        call.id,
        call.attempt,
        index,
        name or f"turn {index}",
        Raw(b"1"),
        used=spent,
    )
    return run.fold(entry)


def raise_budget(run: Run, call: CallId, eur: str, who: str = "ann") -> Reaction:
    answer = Raw(Raise(eur=Decimal(eur)).model_dump_json().encode())
    return run.fold(AnswerEntry(run.workflow.name, run.key, call, "budget", who, answer))


def test_money_is_counted_in_millionths() -> None:
    assert (micro("0.20"), micro(Decimal("0.0000001")), micro(3)) == (200_000, 1, 3_000_000)
    assert (euros(200_000), euros(3_100), euros(1_500_000)) == ("0.20", "0.0031", "1.50")
    with pytest.raises(ValueError, match="give eur=, tokens= or both"):
        Amount()
    with pytest.raises(ValueError, match="give run=, total= or day="):
        Budget()


@pytest.mark.parametrize(
    ("eur", "error", "words"),
    [
        (0.05, TypeError, "eur=0.05: write it as text, such as eur='0.20'"),
        ("five", ValueError, "eur='five' is no amount of money"),
        ("NaN", ValueError, "eur='NaN' is no amount of money"),
        ("Infinity", ValueError, "eur='Infinity' is no amount of money"),
    ],
)
def test_what_is_no_amount_is_told(eur: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Amount(eur=eur)


def test_a_step_without_a_bound_that_the_budget_has_is_refused() -> None:
    with pytest.raises(DefinitionError, match="may use more eur in one call than the whole budget"):
        claims(Budget(run=Amount(eur="0.10")))
    with pytest.raises(DefinitionError, match="more tokens in one call"):
        claims(Budget(day=Amount(tokens=10)))


def test_a_step_that_asks_a_model_needs_the_bounds_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(assess), "spends", None)
    monkeypatch.setitem(vars(assess), "model", "m")

    with pytest.raises(DefinitionError, match="assess has no bound on eur, but the budget of 'claims' has"):
        claims(Budget(run=Amount(eur="1")))


def test_a_call_is_reserved_for_and_settled_by_what_it_used() -> None:
    run = Run(BY_RUN)
    run.send(Filed(text="x"))
    call = run.call("assess")
    assert run.record.spent is not None
    assert run.record.spent.reserved_cost == 20 * CENT

    keep(run, call, 0, used(5 * CENT))
    assert [(c.name, c.call) for c in run.made(Keep)] == [("turn 0", call.id)]
    keep(run, call, 1, used(None))
    run.result(call, 3)

    spent = run.record.spent
    assert (spent.cost, spent.tokens, spent.unpriced) == (5 * CENT, 200, 1)
    assert spent.reserved_cost == 20 * CENT  # the next call's
    assert run.record.to == "Judging"
    assert [c.call for c in run.made(Forget)] == [call.id]


def test_a_spent_budget_is_told_to_the_state_that_handles_it() -> None:
    run = Run(BY_RUN)
    run.send(Filed(text="x"))
    call = run.call("assess")
    keep(run, call, 0, used(15 * CENT))
    run.result(call, 3)

    assert run.record.to == "Over"
    assert run.record.name == "BudgetSpent"
    assert run.record.status == "finished"
    assert not run.made(StartCall)
    assert run.record.asks == ()


def test_where_nobody_handles_it_the_call_waits_until_a_person_gives_more() -> None:
    workflow = Workflow("both", start=wait_both, states=[Both, Over], budget=Budget(run=Amount(eur="0.30")))
    run = Run(workflow)
    run.send(Filed(text="x"))
    first = run.call("assess")

    (asks,) = run.record.asks
    assert (asks.group, asks.name) == ("budgets", "budget")
    assert "judge: the budget of this run is spent: it may cost 0.20 EUR, 0.10 of 0.30 are left" in asks.question
    assert [c.status for c in run.snapshot.calls] == ["running", "asking"]
    assert len([c for c in run.commands if isinstance(c, StartCall)]) == 1

    raise_budget(run, asks.call, "0.05")
    assert run.record.asks
    raise_budget(run, asks.call, "0.05")
    assert run.record.asks == ()
    assert run.call("judge").id == asks.call
    raise_budget(run, asks.call, "1")
    assert "answered already" in run.record.ignored

    run.result(first, 1)
    run.result(run.call("judge"), 1)
    assert run.record.to == "Over"


def test_one_answer_serves_every_call_of_the_run_and_a_bad_one_none() -> None:
    workflow = Workflow("both", start=wait_both, states=[Both, Over], budget=Budget(run=Amount(eur="0.20")))
    run = Run(workflow)
    run.send(Filed(text="x"))
    keep(run, run.call("assess"), 0, used(20 * CENT))
    run.result(run.call("assess"), 1)
    (asks,) = run.record.asks

    run.fold(AnswerEntry("both", "k", asks.call, "budget", "ann", Raw(b'{"eur":"much"}')))
    assert "the answer is no Raise" in run.record.ignored
    assert run.record.asks
    raise_budget(run, asks.call, "0.20")
    assert run.call("judge").id == asks.call


def test_a_person_may_give_no_more() -> None:
    workflow = Workflow("both", start=wait_both, states=[Both, Over], budget=Budget(run=Amount(eur="0.30")))
    run = Run(workflow)
    run.send(Filed(text="x"))
    raise_budget(run, run.record.asks[0].call, "0")

    assert run.record.to == "Over"
    assert msgspec.json.decode(run.record.data) == {"why": "BudgetRefused"}
    assert run.cancelled == [run.call("assess").id]


class Both(State):
    text: str

    @runs(assess, judge)
    def both(self) -> tuple[str, str]:
        return self.text, self.text

    @both.done
    def over(self, a: int, b: int) -> Over:
        return Over(why="both")

    @both.failed
    def lost(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)


def wait_both(event: Filed) -> Both:
    return Both(text=event.text)


# -- accounts ----------------------------------------------------------------------------------------------------------


class Bank:
    """An account and those who ask it, each folded as an engine would."""

    def __init__(self, workflow: Workflow[Any]) -> None:
        self.workflow = workflow
        self.account = Run(accounts, key="all claims")
        self.runs: dict[str, Run] = {}

    def open(self, key: str) -> Run:
        run = self.runs[key] = Run(self.workflow, key=key, partition=len(self.runs))
        self.carry(run, run.send(Filed(text="x")))
        return run

    def carry(self, run: Run, reaction: Reaction) -> None:
        """Bring what a run asked to the account, and what that answers back."""
        for command in reaction.commands:
            if isinstance(command, AskRun):
                question = command.question
                data = Raw(question.model_dump_json().encode())
                entry = QuestionEntry(ACCOUNTS, "all claims", type(question).__name__, data, command.asker)
                self.answers(self.account.fold(entry))

    def answers(self, reaction: Reaction) -> None:
        for reply in reaction.commands:
            if isinstance(reply, Reply) and reply.asker.call:
                asker = reply.asker
                run = self.runs[asker.key]
                entry: ResultEntry | FailureEntry
                entry = ResultEntry(asker.workflow, asker.key, asker.run, asker.call, 1, reply.output)
                if reply.error:
                    entry = FailureEntry(
                        asker.workflow, asker.key, asker.run, asker.call, 1, reply.error, reply.message, final=True
                    )
                self.carry(run, run.fold(entry))

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.account.snapshot.data)
        return found


def test_the_application_has_the_accounts_that_its_workflows_need() -> None:
    assert ACCOUNTS in Application(workflows=[SHARED]).workflows
    assert ACCOUNTS not in Application(workflows=[BY_RUN]).workflows


def test_an_account_is_reserved_from_and_settled_and_never_counts_twice() -> None:
    bank = Bank(SHARED)
    run = bank.open("a")
    call = run.call("assess")
    assert bank.state["reserved"] == {"tokens": 1000, "cost": 20 * CENT}

    reserve = next(c for c in run.commands if isinstance(c, AskRun))
    bank.carry(run, Reaction(None, [reserve]))
    assert bank.state["reserved"]["cost"] == 20 * CENT
    assert run.snapshot.calls[0].status == "running"

    keep(run, call, 0, used(7 * CENT))
    bank.carry(run, run.result(call, 1))
    assert bank.state["spent"] == {"tokens": 100, "cost": 7 * CENT}
    assert bank.state["reserved"]["cost"] == 20 * CENT  # the next call's


def test_who_does_not_wait_is_told_and_who_waits_is_served_in_order_when_there_is_room() -> None:
    workflow = Workflow(
        "claims", start=wait_both, states=[Both, Over], budget=Budget(day=Amount(eur="0.50"), account="all claims")
    )
    bank = Bank(workflow)
    first, second = bank.open("a"), bank.open("b")
    assert [c.status for c in second.snapshot.calls] == ["reserving", "reserving"]
    assert bank.account.record.to == "Spent"
    assert bank.account.record.asks[0].group == "budgets"

    call = first.call("assess")
    keep(first, call, 0, used(2 * CENT))
    bank.carry(first, first.result(call, 1))
    assert [c.status for c in second.snapshot.calls] == ["running", "reserving"]

    event = BudgetRaised(account="all claims", eur=Decimal("0.30"))
    bank.answers(bank.account.send(event))
    assert [c.status for c in second.snapshot.calls] == ["running", "running"]
    assert bank.account.record.to == "Open"


def test_a_new_day_has_a_budget_of_its_own() -> None:
    workflow = Workflow(
        "claims", start=wait_both, states=[Both, Over], budget=Budget(day=Amount(eur="0.40"), account="all claims")
    )
    bank = Bank(workflow)
    first = bank.open("a")
    for step in ("assess", "judge"):
        call = first.call(step)
        keep(first, call, 0, used(20 * CENT))
        bank.carry(first, first.result(call, 1))
    second = bank.open("b")
    assert [c.status for c in second.snapshot.calls] == ["reserving", "reserving"]

    bank.answers(bank.account.tick())

    assert bank.account.record.name == "Spent.midnight"
    assert bank.account.now % DAY == 0
    assert [c.status for c in second.snapshot.calls] == ["running", "running"]


def test_a_run_that_leaves_what_it_waits_for_gives_its_place_back() -> None:
    workflow = Workflow(
        "claims", start=wait_both, states=[Both, Over], budget=Budget(day=Amount(eur="0.40"), account="all claims")
    )
    bank = Bank(workflow)
    bank.open("a")
    second = bank.open("b")
    assert len(bank.state["waiting"]) == 2

    bank.carry(second, second.order("cancel"))
    assert bank.state["waiting"] == []
    assert bank.account.record.to == "Open"


class Alone(State):
    text: str

    @runs(assess)
    def question(self) -> str:
        return self.text

    @question.done
    def assessed(self, score: int) -> Over:
        return Over(why="assessed")

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)


def wait_alone(event: Filed) -> Alone:
    return Alone(text=event.text)


def alone() -> Workflow[Filed]:
    budget = Budget(day=Amount(eur="0.40"), account="all claims")
    return Workflow("claims", start=wait_alone, states=[Alone, Over], budget=budget)


def test_a_call_that_kept_nothing_is_settled_with_its_account_too() -> None:
    bank = Bank(alone())
    run = bank.open("a")
    bank.carry(run, run.result(run.call("assess"), 1))

    assert run.grave.state == "Over"
    assert bank.state["reserved"] == {"tokens": 0, "cost": 0}


def test_a_call_whose_account_cannot_answer_waits_for_people() -> None:
    bank = Bank(SHARED)
    bank.open("a")
    bank.account.order("cancel")
    run = bank.open("b")

    (asks,) = run.record.asks
    assert (asks.group, asks.name) == ("budgets", "budget")
    assert "RunFinished: the run is finished (Open)" in asks.question
    assert run.snapshot.spent is not None
    assert run.snapshot.spent.reserved_cost == 0

    bank.account.stored = None  # its grave is swept
    bank.carry(run, raise_budget(run, asks.call, "0.01"))
    assert run.snapshot.calls[0].status == "running"


def test_a_refused_call_that_is_given_up_before_it_heard_gives_nothing_back() -> None:
    bank = Bank(claims(Budget(day=Amount(eur="0.30"), account="all claims")))
    run = bank.open("a")
    call = run.call("assess")
    keep(run, call, 0, used(15 * CENT))
    judging = run.result(call, 1)
    assert run.snapshot.calls[0].status == "reserving"

    cancelled = run.order("cancel")
    bank.carry(run, judging)
    assert len(bank.state["refused"]) == 1
    bank.carry(run, cancelled)

    assert bank.state["reserved"] == {"tokens": 0, "cost": 0}
    assert bank.state["refused"] == []


@pytest.mark.parametrize("now", [CENT, None])
def test_what_was_reserved_is_given_back_whatever_the_code_says_by_now(
    now: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank(SHARED)
    run = bank.open("a")
    monkeypatch.setitem(vars(assess), "spends", None if now is None else Spends(tokens=1, cost=now))

    bank.carry(run, run.order("cancel"))

    assert bank.state["reserved"] == {"tokens": 0, "cost": 0}
    assert run.record.spent is not None
    assert (run.record.spent.reserved_tokens, run.record.spent.reserved_cost) == (0, 0)


class Nudged(Event):
    pass


class First(State):
    later = (Nudged,)

    @runs(assess)
    def question(self) -> str:
        return ""

    @question.done
    def assessed(self, score: int) -> Second:
        return Second()

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)


class Second(State):
    @runs(judge)
    def question(self) -> str:
        return ""

    @question.done
    def judged(self, score: int) -> Over:
        return Over(why="judged")

    @question.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over(why=failure.type)

    @on
    def nudged(self, event: Nudged) -> Calm:
        return Calm()

    @on
    def broke(self, event: BudgetSpent) -> Over:
        return Over(why="Second")


class Calm(State, endless=True):
    @on
    def broke(self, event: BudgetSpent) -> Over:
        return Over(why="Calm")


def wait_first(event: Filed) -> First:
    return First()


def test_a_state_does_not_hear_of_a_call_that_another_one_could_not_pay_for() -> None:
    states: list[type[State]] = [First, Second, Calm, Over]
    run = Run(Workflow("calm", start=wait_first, states=states, budget=Budget(run=Amount(eur="0.20"))))
    run.send(Filed(text="x"))
    run.send(Nudged())
    keep(run, run.call("assess"), 0, used(20 * CENT))
    run.result(run.call("assess"), 1)

    assert [r.to for r in run.records[-2:]] == ["Second", "Calm"]
    assert run.snapshot.kept == ()


def test_what_a_model_took_for_a_run_that_is_over_is_spent_from_its_account() -> None:
    bank = Bank(alone())
    run = bank.open("a")
    call = run.call("assess")
    bank.carry(run, run.order("cancel"))
    bank.carry(run, keep(run, call, 0, used(7 * CENT)))

    assert bank.state["reserved"] == {"tokens": 0, "cost": 0}
    assert bank.state["spent"] == {"tokens": 100, "cost": 7 * CENT}


def test_what_a_model_took_while_its_run_was_halted_is_spent_when_that_is_cancelled() -> None:
    bank = Bank(alone())
    run = bank.open("a")
    call = run.call("assess")
    run.fold(FailureEntry("claims", "a", call.run, call.id, 1, "NoKey", "no key", halts=True))
    keep(run, call, 0, used(7 * CENT))
    assert run.record.halted is not None
    bank.carry(run, run.order("cancel"))

    assert bank.state["reserved"] == {"tokens": 0, "cost": 0}
    assert bank.state["spent"] == {"tokens": 100, "cost": 7 * CENT}


def test_what_waits_is_served_when_the_code_gives_more() -> None:
    def workflow(eur: str) -> Workflow[Filed]:
        budget = Budget(total=Amount(eur=eur), account="all claims")
        return Workflow("claims", start=wait_alone, states=[Alone, Over], budget=budget)

    bank = Bank(workflow("0.20"))
    first = bank.open("a")
    keep(first, first.call(), 0, used(20 * CENT))
    bank.carry(first, first.result(first.call(), 1))
    second = bank.open("b")
    assert second.snapshot.calls[0].status == "reserving"

    bank.workflow = workflow("0.60")
    third = bank.open("c")

    assert [run.snapshot.calls[0].status for run in (second, third)] == ["running", "running"]
    assert bank.account.record.to == "Open"
