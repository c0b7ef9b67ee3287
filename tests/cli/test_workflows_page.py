"""What `docs/workflows.md` shows fits together: its states make workflows that pass their checks and run."""

from __future__ import annotations

from types import ModuleType

import pytest

from engine import DefinitionError
from engine.testing import Simulation, Simulations
from tests.cli.pages import Page

PAGE = Page("workflows")

BEFORE = '''
from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from engine import (
    Application, Call, Event, Final, Publish, Question, Retry, State, StepContext, StepFailed, Workflow, after, answers,
    ask, enter, every, on, publish, runs, step,
)


class Message(BaseModel, frozen=True):
    to: str
    text: str


class Shipment(BaseModel, frozen=True):
    shipment_id: str
    customer: str


class Reported(Event, key="shipment.shipment_id"):
    shipment: Shipment


class Delivered(Event, key="shipment_id"):
    shipment_id: str


class ShipmentLost(Event, key="shipment_id"):
    shipment_id: str
    customer: str


class UnknownShipmentError(Exception):
    """The carrier has never heard of it."""


@step()
async def notify_customer(message: Message) -> None: ...


class Paying(State):
    lost: ShipmentLost

    @after(days=1)
    def paid(self) -> Compensated:
        return Compensated()


class Compensated(Final):
    pass


class Arrived(Final):
    shipment: Shipment
'''

AFTER = """
def begin_late(event: Reported) -> Asking:
    return Asking(shipment=event.shipment)


def weigh(event: ShipmentLost) -> Weighing:
    return Weighing(lost=event)


shipment = Workflow("shipment", start=begin_late, states=[Asking, Waiting, Arrived, Lost])
goodwill = Workflow("goodwill", start=weigh, states=[Weighing, Paying, Compensated])
app = Application(workflows=[shipment, compensation, memory, goodwill])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    group, speaking, questions, step, *_ = PAGE.blocks("python")
    folder = tmp_path_factory.mktemp("workflows")
    return PAGE.module(folder, BEFORE, step, group, speaking, questions, AFTER)


def test_the_pages_states_make_workflows_that_run(page: ModuleType) -> None:
    shipment = page.Shipment(shipment_id="1", customer="ann")
    run = Simulation(page.shipment)
    run.fake(page.ask_carrier, lambda parcel: "on its way")
    run.fake(page.notify_customer, lambda message: None)
    run.send(page.Reported(shipment=shipment))
    run.advance(days=3)

    assert run.state() == page.Lost(shipment=shipment)
    assert len(run.calls(page.notify_customer)) == 1
    assert len(run.calls(page.ask_carrier)) == 12
    assert [taker.name for taker in page.app.takers("ShipmentLost")] == ["compensation", "memory", "goodwill"]


def test_the_pages_question_is_answered_by_the_run_that_remembers(page: ModuleType) -> None:
    runs = Simulations([page.memory, page.goodwill])
    for number in ("1", "2", "3", "4"):
        runs.send(page.ShipmentLost(shipment_id=number, customer="ann"))
    runs.send(page.ShipmentLost(shipment_id="5", customer="bob"))

    first, fourth, other = (type(runs.run(page.goodwill, number).state()).__name__ for number in ("1", "4", "5"))
    assert (first, fourth, other) == ("Paying", "Compensated", "Paying")
    assert runs.run(page.memory, "ann").state() == page.Remembering(lost=4)


def test_a_question_that_nobody_answers_is_a_mistake(page: ModuleType) -> None:
    with pytest.raises(DefinitionError, match="no workflow answers it"):
        page.Application(workflows=[page.goodwill])
