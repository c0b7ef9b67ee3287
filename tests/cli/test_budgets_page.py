"""What `docs/budgets.md` shows works: what is reserved and spent, who is asked, and what another state does."""

from __future__ import annotations

from decimal import Decimal
from types import ModuleType

import pytest

from engine import Amount, Budget, DefinitionError, Event, Raise, Workflow
from engine.testing import Simulation
from tests.cli.pages import Page

pytest.importorskip("pydantic_ai")

PAGE = Page("budgets")
BEFORE = """
class First(State):
    letter: Letter

    @runs(draft)
    def question(self) -> Letter:
        return self.letter

    @question.done
    def drafted(self, reply: Reply) -> Drafting:
        return Drafting(letter=self.letter)

    @question.failed
    def undrafted(self, failure: StepFailed) -> ForAPerson:
        return ForAPerson(letter=self.letter, why=failure.type)


def receive_first(letter: Letter) -> First:
    return First(letter=letter)


twice = Workflow(
    "twice",
    start=receive_first,
    states=[First, Drafting, Drafted, ForAPerson],
    budget=Budget(run=Amount(eur="0.02")),
)
"""
"""A letter that is drafted twice, with money for once."""
PLAIN = "class Drafting(State):\n    letter: Letter\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return PAGE.module(tmp_path_factory.mktemp("budgets"), *PAGE.blocks("python"), BEFORE)


@pytest.fixture(scope="module")
def thrifty(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The page with its state under the superstate that it tells of."""
    whole, superstate, _ = PAGE.blocks("python")
    assert PLAIN in whole
    whole = whole.replace(PLAIN, f"{superstate}\n\nclass Drafting(Affordable):\n")
    return PAGE.module(tmp_path_factory.mktemp("thrifty"), whole, BEFORE)


def drafted_once(page: ModuleType) -> Simulation[Event]:
    run: Simulation[Event] = Simulation(page.twice)
    run.fake_model("writer", answers=[page.Reply(text="Dear Sir"), page.Reply(text="Dear Madam")])
    run.send(page.Letter(number="17", text="Where is my parcel?"))
    return run


def test_the_pages_workflow_passes_the_pages_test(page: ModuleType) -> None:
    page.test_a_second_draft_that_is_too_much_waits_until_somebody_gives_more()


def test_a_run_asks_for_more_and_goes_on(page: ModuleType) -> None:
    run = drafted_once(page)
    assert [asks.group for asks in run.inbox()] == ["budgets"]
    assert run.budget().reserved_cost == 0
    run.answer(Raise(eur=Decimal(1)), who="ann")

    assert run.state() == page.Drafted(reply=page.Reply(text="Dear Madam"))


def test_a_run_that_gets_no_more_has_failed_with_the_name_on_the_page(page: ModuleType) -> None:
    run = drafted_once(page)
    run.answer("no", who="ann")

    assert vars(run.state())["why"] == "BudgetRefused"


def test_a_state_that_handles_it_asks_nobody(thrifty: ModuleType) -> None:
    run = drafted_once(thrifty)

    assert run.inbox() == []
    assert vars(run.state())["why"].endswith("of 0.02 are left")


def test_bounds_that_do_not_fit_are_told(page: ModuleType) -> None:
    states = [page.Drafting, page.Drafted, page.ForAPerson]

    with pytest.raises(DefinitionError, match="may use more eur in one call than the whole budget"):
        Workflow("letters", start=page.receive, states=states, budget=Budget(run=Amount(eur="0.01")))
