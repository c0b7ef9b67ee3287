"""One engine, everything once: the flow, bad input, handlers and steps that fail, archive and trimming."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flink.harness import Stage
from tests.flink.world import OrderPlaced, OrderTouched

pytestmark = [pytest.mark.flink, pytest.mark.redis]

LAPSE = 20_000.0
"""A day of the log in 4.3 seconds."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("engine"), lapse=LAPSE) as stage:
        stage.start(handler_timeout_ms=400)
        yield stage


def orders(count: int, prefix: str = "o") -> list[OrderPlaced]:
    """Orders of ten customers; every fifth is shipped at the third attempt, every eleventh never."""
    return [
        OrderPlaced(
            id=f"{prefix}{i}",
            customer=f"c{i % 10}",
            items=tuple(f"item {j}" for j in range(i % 4)),
            flaky=9 if i % 11 == 10 else 2 if i % 5 == 0 else 0,
        )
        for i in range(count)
    ]


def test_the_flow_of_everything_ends_as_the_pure_fold_says(stage: Stage) -> None:
    stage.send(*orders(200))
    stage.send(*(OrderTouched(id=f"o{i}") for i in range(200)))
    stage.until_status("order", "finished", 200)
    pure = stage.proven()

    ends = {record.key: record.to for record in pure.records if record.workflow == "order"}
    refused = {f"o{i}" for i in range(200) if i % 11 == 10}
    assert {key for key, state in ends.items() if state == "Refused"} == refused
    assert len(pure.outputs["outbox"]) == 200 - len(refused)
    assert not stage.letters()
    accounts = {r.key: r for r in pure.records if r.workflow == "account"}
    assert len(accounts) == 10
    reminders = [r for r in pure.records if r.name == "Resting.remind"]
    assert len(reminders) == 2 * len(pure.outputs["outbox"])
    assert all((r.at - r.since) % 36_000_000 == 0 for r in reminders)
