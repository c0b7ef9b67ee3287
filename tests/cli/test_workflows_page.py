"""What `docs/workflows.md` shows fits together: its states make workflows that pass their checks and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")

BEFORE = '''
from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from engine import (
    Application, Call, Event, Final, Publish, Retry, State, StepContext, StepFailed, Workflow, after, enter, every, on,
    publish, runs, step,
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
from engine.testing import Simulation


def begin_late(event: Reported) -> Asking:
    return Asking(shipment=event.shipment)


shipment = Workflow("shipment", start=begin_late, states=[Asking, Waiting, Arrived, Lost])
app = Application(workflows=[shipment, compensation])

SHIPMENT = Shipment(shipment_id="1", customer="ann")
run = Simulation(shipment)
run.fake(ask_carrier, lambda parcel: "on its way")
run.fake(notify_customer, lambda message: None)
run.send(Reported(shipment=SHIPMENT))
run.advance(days=3)

assert run.state() == Lost(shipment=SHIPMENT)
assert len(run.calls(notify_customer)) == 1
assert len(run.calls(ask_carrier)) == 12
assert [taker.name for taker in app.takers("ShipmentLost")] == ["compensation"]
"""


def test_the_pages_states_make_workflows_that_run(tmp_path: Path) -> None:
    group, speaking, step, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    script = tmp_path / "shipment.py"
    script.write_text(BEFORE + step + group + speaking + AFTER, encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, str(script)], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr
