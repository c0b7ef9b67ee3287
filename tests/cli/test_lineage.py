"""`longwatch lineage`, over workflows that publish to each other and ask each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import Application
from tests.cli import relay
from tests.cli.inside import Call
from tests.plain_engine import PlainEngine


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGWATCH_APP", "tests.cli.relay:app")


@pytest.fixture
def app() -> Application:
    return relay.app


@pytest.fixture
def done(call: Call, engine: PlainEngine, tmp_path: Path) -> None:
    """An order that was paid, by a payment that told it so."""
    for kind, fields in (("Ordered", {"order": "o1"}), ("Released", {"payment": "o1"})):
        envelope = {"specversion": "1.0", "id": f"{kind}-1", "source": "shop", "type": kind, "data": fields}
        (tmp_path / "event.json").write_text(json.dumps(envelope))
        assert call("send", "event.json").code == 0
        engine.work()


def named(happening: dict[str, Any]) -> list[str]:
    """All that is told, from the top, with its place."""
    own = f"{happening['what']} {happening.get('workflow', '')}".rstrip()
    return [own, *(line for each in happening.get("below", []) for line in named(each))]


@pytest.mark.usefixtures("done")
def test_what_an_event_from_outside_caused_is_followed_through_workflows(call: Call) -> None:
    told = call("lineage", "Ordered-1", "--json").told

    assert named(told["down"]) == [
        "event Ordered",
        "run in Thanked order",
        "event Ordered order",
        "publishes PaymentWanted",
        "run in Paid payment",
        "event PaymentWanted payment",
        "event Released payment",
        "publishes PaymentMade",
        "event PaymentMade order",
        "event PaymentMade order",
    ]
    assert told["up"]["note"] == "from outside"


@pytest.mark.usefixtures("done")
def test_what_led_to_a_decision_is_followed_back(call: Call) -> None:
    told = call("lineage", "order/o1", "--up", "--json").told

    assert set(told) == {"target", "up"}
    assert named(told["up"]) == [
        "event PaymentMade order",
        "event Released payment",
        "event PaymentWanted payment",
        "event Ordered order",
    ]
    assert told["up"]["moves"] == ["Thanked"]


@pytest.mark.usefixtures("done")
def test_an_event_of_a_run_is_found_by_its_id(call: Call) -> None:
    down = call("lineage", "Ordered-1", "--down", "--json").told["down"]
    published = down["below"][0]["below"][0]["below"][0]
    told = call("lineage", published["id"], "--json").told

    assert named(told["down"])[:2] == ["event PaymentWanted", "run in Paid payment"]
    assert named(told["up"]) == ["event PaymentWanted", "event Ordered order"]
    assert call("lineage", published["id"], "--scan", "--json").told == told


@pytest.mark.usefixtures("done")
def test_a_circle_is_cut(call: Call) -> None:
    down = call("lineage", "order/o1", "--down").out

    assert "told above" in down
    assert down.count("event PaymentMade") == 2


@pytest.mark.usefixtures("done")
def test_no_deeper_than_was_asked_for(call: Call) -> None:
    told = call("lineage", "order/o1", "--down", "--depth", "0", "--json").told

    assert "publishes PaymentWanted" in named(told["down"])
    assert "run in Paid payment" not in named(told["down"])


@pytest.mark.usefixtures("done")
def test_a_question_shows_who_asks_and_by_a_scan_who_answers(call: Call, engine: PlainEngine, tmp_path: Path) -> None:
    envelope = {"specversion": "1.0", "id": "Checked-1", "source": "shop", "type": "Checked", "data": {"check": "o1"}}
    (tmp_path / "event.json").write_text(json.dumps(envelope))
    call("send", "event.json")
    engine.work()

    near = named(call("lineage", "check/o1", "--down", "--json").told["down"])
    far = named(call("lineage", "check/o1", "--down", "--scan", "--json").told["down"])
    assert "question StateAsked order" not in near
    assert "question StateAsked order" in far
    assert "which run answers is found with --scan" in call("lineage", "check/o1", "--down").out


@pytest.mark.usefixtures("done")
@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("nobody", "neither a run nor an event 'nobody'"),
        ("0123456789abcdef.1.0", "there is no run 0123456789abcdef"),
    ],
)
def test_what_is_not_there_is_told(call: Call, target: str, why: str) -> None:
    ended = call("lineage", target)

    assert ended.code == 4
    assert why in ended.err
