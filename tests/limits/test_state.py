from __future__ import annotations

import pytest

from engine.limits import Limit, read_gates
from engine.log.errors import LogUnavailable
from tests.limits.conftest import QUICK, Open
from tests.limits.test_gates import Calls, told, until
from tests.limits.worker import NAME

pytestmark = pytest.mark.redis


def test_a_log_without_gates_has_none(url: str) -> None:
    assert read_gates(url) == []


def test_a_server_that_is_away_is_named() -> None:
    with pytest.raises(LogUnavailable, match="nowhere"):
        read_gates("unix:///nowhere/redis.sock")


async def test_who_runs_and_who_waits_is_seen_by_worker(gates: Open, url: str) -> None:
    limit = Limit(calls=3, requests=50, tokens=1000)
    a, b = (Calls(gates(worker, {NAME: limit, "step:idle": Limit(calls=1)})) for worker in "ab")
    a.ask(*range(5), tokens=100)
    await a.until(3)
    b.ask(*range(4), tokens=100)
    await told(b.gates)
    await until(lambda: read_gates(url, pace=QUICK)[0].waiting == 6)
    state, idle = read_gates(url, pace=QUICK)

    assert (state.name, state.limit, state.waits_for) == (NAME, limit, "calls")
    assert {name: (at.running, at.waiting) for name, at in state.workers.items()} == {"a": (3, 2), "b": (0, 4)}
    assert state.running == 3
    assert 0 < state.workers["a"].since == state.since <= state.workers["b"].since
    assert (idle.limit, idle.running, idle.waiting, idle.since) == (Limit(calls=1), 0, 0, 0)


async def test_what_was_used_in_the_last_minute_is_seen(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(tokens=1000)}, pace := QUICK.__class__()))
    calls.ask(1, 2, tokens=100)
    await calls.until(2)
    calls.passed[0][1].used(250)
    await until(lambda: read_gates(url, pace=pace)[0].tokens == 350)

    assert read_gates(url, pace=pace)[0].requests == 2


async def test_a_queue_that_ended_is_seen_to_have_ended(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=1)}))
    calls.ask(1, 2)
    await calls.until(1)
    await until(lambda: read_gates(url, pace=QUICK)[0].waiting == 1)
    calls.gates.cancel(2)

    await until(lambda: read_gates(url, pace=QUICK)[0].waiting == 0)
