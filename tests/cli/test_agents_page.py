"""What `docs/agents.md` shows works: the agent and its test, the models of a machine, the long step, the errors."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine import Application, Limits, StepContext, StepHalts, TryAgain
from engine.llm.model import chosen
from engine.llm.tools import as_tools
from engine.settings import ModelSettings
from engine.testing import Simulation
from tests.cli.pages import Page

pytest.importorskip("pydantic_ai")

PAGE = Page("agents")

AROUND = """
class Ordered(Event, key="order.customer"):
    order: Order


class Fulfilling(State):
    order: Order

    @runs(fulfil)
    def work(self) -> Order:
        return self.order

    @work.done
    def fulfilled(self, receipt: Receipt) -> Fulfilled:
        return Fulfilled(receipt=receipt)

    @work.failed
    def failed(self, failure: StepFailed) -> GaveUp:
        return GaveUp(reason=failure.type)


class Fulfilled(Final):
    receipt: Receipt


def take_order(event: Ordered) -> Fulfilling:
    return Fulfilling(order=event.order)


fulfilment = Workflow("fulfilment", start=take_order, states=[Fulfilling, Fulfilled, GaveUp])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return PAGE.module(tmp_path_factory.mktemp("agents"), *PAGE.blocks("python"), AROUND)


def test_the_pages_agent_passes_the_pages_test(page: ModuleType) -> None:
    page.test_a_report_is_published_when_an_editor_allows_it()


def test_an_agent_that_nobody_answers_gives_up(page: ModuleType) -> None:
    run = Simulation(page.research_agent)
    run.fake(page.search, lambda words: [words])
    run.fake_model("researcher", answers=[page.publish_report.call(page.Report(title="Tides", text="Twice."))])
    run.send(page.Asked(topic="tides"))
    run.advance(days=1)

    assert run.state() == page.GaveUp(reason="no answer within a day")


def test_the_pages_models_are_those_of_the_machine(page: ModuleType) -> None:
    said = tomllib.loads(PAGE.blocks("toml")[0])["tool"]["longwatch"]["models"]
    table = ModelSettings.model_validate(said["claims-assessor"])
    model = chosen("claims-assessor", page.models["claims-assessor"], table, {})

    assert (model.name, model.fallback, model.key_setting) == (
        "anthropic:claude-haiku-4-5",
        ("embedded",),
        "CLAIMS_ANTHROPIC_KEY",
    )
    environment = {
        "LONGWATCH_MODEL_CLAIMS_ASSESSOR": "openai:gpt-5",
        "LONGWATCH_MODEL_CLAIMS_ASSESSOR_FALLBACK": "none",
    }
    assert chosen("claims-assessor", model, None, environment).candidates()[0].name == "openai:gpt-5"
    assert chosen("claims-assessor", model, None, environment).fallback == ()
    assert Application(workflows=[page.research_agent], models={**page.app.models, **page.models}).limits()


def test_the_pages_tools_are_tools(page: ModuleType) -> None:
    assert [tool.group for tool in as_tools("research", page.tools)] == ["", "editors", "", "operators"]


def test_the_bound_on_calls_is_the_one_that_the_page_tells() -> None:
    assert Limits().calls == 50
    assert Limits().spends is None


class World:
    """A shop that counts."""

    def __init__(self) -> None:
        self.charged: list[str] = []

    async def charge(self, order: Any, *, key: str) -> str:
        self.charged.append(key)
        return f"{order.customer} paid {order.eur}"

    async def ship(self, order: Any) -> str:
        return f"parcel to {order.customer}"


@pytest.mark.parametrize("eur", [10, 5_000])
def test_the_pages_long_step_charges_once_whatever_dies(page: ModuleType, eur: int) -> None:
    world = World()
    run = Simulation(page.fulfilment)
    run.real(page.fulfil, resources={"shop": world})
    run.crash_after(1)
    run.send(page.Ordered(order=page.Order(customer="ann", eur=eur)))
    if eur > 10:
        run.crash()
        run.answer("yes", who="bob")

    assert run.state() == page.Fulfilled(receipt=page.Receipt(payment=f"ann paid {eur}", parcel="parcel to ann"))
    assert len(world.charged) == 1


async def test_the_pages_step_says_what_becomes_of_it(page: ModuleType) -> None:
    async def post(address: str, key: str) -> Any:
        del key
        return SimpleNamespace(status=int(address), seconds=3, text="there")

    context = StepContext("key", 1, datetime.now(UTC), {"carrier": SimpleNamespace(post=post)})
    with pytest.raises(TryAgain) as again:
        await page.deliver("429", context)
    with pytest.raises(StepHalts):
        await page.deliver("401", context)
    with pytest.raises(page.AddressUnknown):
        await page.deliver("404", context)

    assert (again.value.after, again.value.outage) == (timedelta(seconds=3), True)
    assert await page.deliver("200", context) == "there"
