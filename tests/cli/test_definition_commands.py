"""`check`, `diagram` and `events` on small projects."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from engine import Event
from engine.example import cloud_event, example
from tests.cli.conftest import Longwatch

BROKEN = """
from engine import Application, Event, Final, State, Workflow, on

class Began{name}(Event, key="id"):
    id: str

class Waiting(State):
    @on
    def began(self, event: Began{name}) -> "Over":
        return Over()

class Over(Final):
    pass

def start(event: Began{name}) -> Waiting:
    return Waiting()

{name} = Workflow("{name}", start=start, states=[Waiting])
"""


@pytest.fixture
def broken(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "one.py").write_text(BROKEN.format(name="one"))
    (package / "two.py").write_text(BROKEN.format(name="two"))
    (package / "__init__.py").write_text(
        "from engine import Application\nfrom shop.one import one\nfrom shop.two import two\n"
        "app = Application(workflows=[one, two])\n"
    )


@pytest.mark.usefixtures("broken")
def test_check_tells_the_problems_of_all_workflows_at_once(longwatch: Longwatch) -> None:
    answer = longwatch("check", "--json")

    findings = [json.loads(line) for line in answer.stdout.splitlines()]
    assert answer.returncode == 1
    assert {finding["where"] for finding in findings[:-1]} == {"workflow 'one'", "workflow 'two'"}
    assert any("Over, which is not in states=" in finding.get("words", "") for finding in findings)
    assert findings[-1]["ok"] is False


def test_an_import_that_fails_names_file_and_line(tmp_path: Path, longwatch: Longwatch) -> None:
    (tmp_path / "shop.py").write_text("from engine import Application\n1 / 0\napp = Application(workflows=[])\n")

    answer = longwatch("events")

    assert answer.returncode == 2
    assert "ZeroDivisionError" in answer.stderr
    assert "shop.py:2" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_two_applications_ask_for_a_choice(tmp_path: Path, longwatch: Longwatch) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("from engine import Application\napp = Application(workflows=[])\n")

    answer = longwatch("events")

    assert answer.returncode == 2
    assert "one:app, two:app" in answer.stderr


def test_the_drawing_fits_its_width_and_marks_the_way_of_a_run(tmp_path: Path, longwatch: Longwatch) -> None:
    longwatch("new", "my-shop")

    drawn = longwatch("diagram", folder="my-shop", COLUMNS="60").stdout

    assert max(map(len, drawn.splitlines())) <= 60
    assert "OrderPlaced ──▶ Reserving" in drawn


def test_a_picture_is_drawn_without_any_program(longwatch: Longwatch) -> None:
    longwatch("new", "my-shop")

    picture = longwatch("diagram", "--format", "svg", folder="my-shop").stdout

    texts = [element.text for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314
    assert {"Reserving", "AwaitingPayment", "Shipping", "Shipped", "Cancelled"} <= set(texts)


def test_a_workflow_that_is_not_there_is_exit_code_4(longwatch: Longwatch) -> None:
    longwatch("new", "my-shop")

    answer = longwatch("diagram", "claim", folder="my-shop")

    assert answer.returncode == 4
    assert "it has order" in answer.stderr


def test_events_are_listed_with_schema_and_an_example_that_validates(longwatch: Longwatch) -> None:
    longwatch("new", "my-shop")

    found = {
        line["type"]: line
        for line in map(json.loads, longwatch("events", "--json", folder="my-shop").stdout.splitlines())
    }

    assert set(found) == {"OrderPlaced", "PaymentReceived", "OrderWithdrawn"}
    assert found["OrderPlaced"]["key"] == "data.order.order_id"
    assert found["OrderPlaced"]["starts"] == ["order"]
    assert found["PaymentReceived"]["workflows"] == ["order"]
    assert found["PaymentReceived"]["example"]["specversion"] == "1.0"


class Colour(Enum):
    RED = "red"


class Inner(BaseModel, frozen=True):
    code: Annotated[str, Field(pattern=r"^[A-Z]{3}-\d{2,4}(x|y)?$")]
    tree: tuple[Inner, ...] = ()


class Everything(Event, key="everything_id"):
    everything_id: str
    word: Literal["a", "b"]
    colour: Colour
    amount: Annotated[int, Field(gt=10, le=20, multiple_of=4)]
    share: Annotated[float, Field(ge=0, lt=0.5)]
    price: Decimal
    at: datetime
    on: date
    lasts: timedelta
    number: UUID
    short: Annotated[str, Field(max_length=3, min_length=2)]
    inner: Inner
    many: Annotated[tuple[Inner, ...], Field(min_length=2)]
    pair: tuple[int, str]
    either: int | None
    sure: bool
    other: str = "default"


def test_an_example_honours_types_and_constraints() -> None:
    made = example(Everything)

    assert Everything.model_validate(made).word == "a"


class Alone(Event):
    note: str


def test_an_event_without_a_key_of_its_own_gets_a_subject() -> None:
    assert cloud_event(Alone)["subject"]
    assert "subject" not in cloud_event(Everything, "everything_id")
