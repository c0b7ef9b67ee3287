from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from engine.limits import OK, Gates, GateState, Limit, Ok, Outage, Pass, read_gates
from engine.limits.scripts import gate_key
from engine.log.redis_wire import Wire
from tests.limits.conftest import QUICK, Open
from tests.limits.test_gates import Calls, told, until
from tests.limits.worker import NAME

pytestmark = pytest.mark.redis

DOWN = Outage(reason="503 Service Unavailable")
HOUR = 3600


def seen(url: str) -> GateState:
    """The only gate."""
    return (*read_gates(url), GateState(NAME))[0]


def is_guarded(gates: Gates) -> bool:
    return gates._gate(NAME).guarded


def shut_for_ms(wire: Wire) -> int:
    """How long the gate is to stay shut from when it was shut."""
    shut, until = (int(value or 0) for value in wire.call("HMGET", gate_key(NAME), "shut", "next"))
    return until - shut


async def test_a_few_outages_shut_the_gate_for_all_workers(gates: Open, url: str) -> None:
    slow = replace(QUICK, first_wait=HOUR, longest_wait=HOUR)
    calls, others = (Calls(gates(worker, {NAME: Limit(calls=9)}, slow)) for worker in "ab")
    calls.ask(1, 2)
    await calls.until(2)
    calls.passed[0][1].report(DOWN)
    await until(lambda: seen(url).failures == 1)
    others.ask(1)
    await others.until(1)
    calls.passed[1][1].report(DOWN)
    await until(lambda: seen(url).is_shut)
    others.ask(2)
    await told(others.gates)
    await until(lambda: seen(url).waits_for == "shut")
    state = seen(url)

    assert others.owners == [1]
    assert state.reason == "503 Service Unavailable"
    assert state.next_probe - state.shut_since == HOUR * 1000


async def test_a_success_between_them_makes_outages_count_anew(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=9)}))
    calls.ask(1, 2, 3)
    await calls.until(3)
    told: list[tuple[Ok | Outage, int]] = [(DOWN, 1), (OK, 0), (DOWN, 1)]
    for (_, leave), (outcome, failures) in zip(calls.passed, told, strict=True):
        leave.report(outcome)
        while seen(url).failures != failures:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.002)

    assert not seen(url).is_shut


async def test_a_retry_after_shuts_at_once_and_for_so_long(gates: Open, url: str, wire: Wire) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=9)}))
    calls.ask(1)
    await calls.until(1)
    calls.passed[0][1].report(Outage(HOUR))
    await until(lambda: seen(url).is_shut)

    assert shut_for_ms(wire) == HOUR * 1000


@pytest.mark.parametrize(("said", "believed"), [(10 * 365 * 86_400.0, HOUR * 1000), (float("inf"), HOUR * 1000)])
async def test_a_retry_after_beyond_belief_is_cut(
    gates: Open, url: str, wire: Wire, said: float, believed: int
) -> None:
    gates("a", {NAME: Limit(calls=9)}).report(NAME, Outage(said))
    await until(lambda: seen(url).is_shut)

    assert shut_for_ms(wire) == believed


@pytest.mark.parametrize("said", [-5.0, float("nan"), 0.0])
async def test_a_retry_after_of_the_past_is_none(gates: Open, url: str, said: float) -> None:
    gates("a", {NAME: Limit(calls=9)}).report(NAME, Outage(said))
    await until(lambda: seen(url).failures == 1)

    assert not seen(url).is_shut


async def test_one_probe_at_a_time_is_let_through_and_its_success_opens_for_all(gates: Open, url: str) -> None:
    workers = [Calls(gates(worker, {NAME: Limit(calls=9)})) for worker in "ab"]
    workers[0].gates.report(NAME, DOWN)
    workers[0].gates.report(NAME, DOWN)
    await until(lambda: seen(url).is_shut)
    for calls in workers:
        calls.ask(1, 2, 3)
    await until(lambda: any(calls.passed for calls in workers))
    for calls in workers:
        await told(calls.gates)
    assert sum(len(calls.passed) for calls in workers) == 1
    (probe,) = [leave for calls in workers for _, leave in calls.passed]
    assert probe.probe

    probe.report(OK)
    probe.end()
    for calls in workers:
        await calls.until(3)
    assert not seen(url).is_shut
    assert [leave.probe for calls in workers for _, leave in calls.passed].count(True) == 1


async def test_the_wait_doubles_with_each_probe_that_fails_up_to_the_longest(gates: Open, url: str, wire: Wire) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=9)}))
    calls.ask(*range(7))
    await calls.until(7)
    for _, leave in calls.passed:
        leave.report(DOWN)
    await until(lambda: seen(url).is_shut)
    waits = []
    calls.ask(*range(10, 14))
    for number in range(7, 11):
        waits.append(int(wire.call("HGET", gate_key(NAME), "wait")))
        await calls.until(number + 1)
        probe = calls.passed[number][1]
        assert probe.probe
        probe.report(DOWN)
        probe.end()
        await until(lambda: not seen(url).probing)

    assert waits == [50, 100, 200, 200]


async def test_a_retry_after_of_a_probe_wins_when_it_is_longer(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=9)}))
    calls.gates.report(NAME, Outage(0.01))
    await until(lambda: seen(url).is_shut)
    calls.ask(1, 2)
    await calls.until(1)
    calls.passed[0][1].report(Outage(HOUR, "429 Too Many Requests"))
    calls.passed[0][1].end()
    await until(lambda: not seen(url).probing)
    (state,) = read_gates(url)

    assert state.next_probe > state.shut_since + HOUR * 1000
    assert state.reason == "429 Too Many Requests"


async def test_a_straggler_neither_opens_the_gate_nor_lengthens_the_wait(gates: Open, url: str, wire: Wire) -> None:
    slow = replace(QUICK, first_wait=HOUR, longest_wait=2 * HOUR)
    calls = Calls(gates("a", {NAME: Limit(calls=9)}, slow))
    calls.ask(*range(6))
    await calls.until(6)
    outcomes: list[Ok | Outage] = [DOWN, DOWN, OK, DOWN, DOWN, OK]
    for number, ((_, leave), outcome) in enumerate(zip(calls.passed, outcomes, strict=True)):
        leave.report(outcome)
        if number > 0:
            calls.ask("to hear the answer")
            await told(calls.gates)
            calls.gates.cancel("to hear the answer")

    assert shut_for_ms(wire) == HOUR * 1000


async def test_a_probe_that_ends_without_a_word_makes_way_for_the_next(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=9)}))
    calls.gates.report(NAME, Outage(0.01))
    await until(lambda: seen(url).is_shut)
    calls.ask(1, 2)
    await calls.until(1)
    calls.passed[0][1].end()
    await calls.until(2)

    assert calls.passed[1][1].probe
    assert seen(url).is_shut


async def test_a_probe_cancelled_in_the_moment_it_is_let_through_makes_way_too(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=9)}))
    calls.gates.report(NAME, Outage(0.01))
    await until(lambda: seen(url).is_shut)
    calls.ask("gone")
    while not calls.gates._gates[NAME]._asked:  # noqa: ASYNC110 - until its question is under way, and no longer
        await asyncio.sleep(0)
    calls.gates.cancel("gone")
    calls.ask("next")
    await calls.until(1)

    assert calls.owners == ["next"]
    assert calls.passed[0][1].probe


async def opened(gates: Gates, url: str) -> None:
    """Shut and opened again by a probe."""
    gates.report(NAME, Outage(0.01))
    await until(lambda: seen(url).is_shut and (is_guarded(gates) or gates._gate(NAME).limit))
    async with gates.passing(NAME) as leave:
        leave.report(OK)
    await until(lambda: not seen(url).is_shut)


async def test_a_gate_that_opens_lets_few_pass_at_first(gates: Open, url: str) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=99)}, replace(QUICK, ease=HOUR)))
    await opened(calls.gates, url)
    calls.ask(*range(10))
    await calls.until(4)
    await told(calls.gates)
    await until(lambda: seen(url).waits_for == "easing")

    assert calls.owners == [0, 1, 2, 3]


@pytest.mark.parametrize("limits", [{}, {NAME: Limit(calls=2000)}])
async def test_and_then_more_and_more(gates: Open, url: str, limits: dict[str, Limit]) -> None:
    calls, others = (Calls(gates(worker, limits)) for worker in "ab")
    await opened(calls.gates, url)
    calls.ask(*range(500))
    others.ask(*range(500))

    await calls.until(500)
    await others.until(500)


async def test_a_gate_shut_again_at_once_takes_up_its_pauses(gates: Open, url: str, wire: Wire) -> None:
    one = gates("a", {NAME: Limit(calls=99)}, replace(QUICK, ease=HOUR))
    waits = []
    for _ in range(4):
        one.report(NAME, Outage(0.01))
        await until(lambda: seen(url).is_shut)
        waits.append(int(wire.call("HGET", gate_key(NAME), "wait")))
        async with one.passing(NAME) as leave:
            leave.report(OK)
        await until(lambda: not seen(url).is_shut)

    assert waits == [50, 100, 200, 200]


async def test_a_name_without_a_limit_is_shut_by_outages_and_free_again_after(gates: Open, url: str) -> None:
    calls, others, late = (Calls(gates(worker, {})) for worker in "abc")
    for _ in range(2):
        calls.gates.report(NAME, DOWN)
    for each in (calls, others):
        await until(partial(is_guarded, each.gates))
        each.ask(1, 2)
    await until(lambda: calls.passed or others.passed)
    (probe,) = [leave for each in (calls, others) for _, leave in each.passed]
    late.gates.report(NAME, OK)
    assert probe.probe
    assert seen(url).is_shut

    probe.report(OK)
    probe.end()
    for each in (calls, others):
        await each.until(2)
    await until(lambda: calls.gates._gate(NAME).is_open and others.gates._gate(NAME).is_open)
    assert not seen(url).is_shut


async def test_a_worker_that_comes_later_finds_the_gate_shut(gates: Open, url: str) -> None:
    first = gates("a", {})
    first.report(NAME, Outage(HOUR))
    await until(lambda: seen(url).is_shut)
    second = gates("b", {})

    await until(partial(is_guarded, second))


async def test_what_is_said_of_a_call_by_name_is_said_of_the_probe(gates: Open, url: str) -> None:
    one = gates("a", {NAME: Limit(calls=9)})
    one.report(NAME, Outage(0.01))
    await until(lambda: seen(url).is_shut)
    async with asyncio.timeout(20), one.passing(NAME) as leave:
        assert leave.probe
        one.report(NAME, OK)

    await until(lambda: not seen(url).is_shut)


def test_a_success_at_an_open_gate_is_not_worth_a_word() -> None:
    async def main() -> None:
        one = Gates("unix:///nowhere", "a", {NAME: Limit(calls=1)})
        one.report(NAME, OK)
        Pass(one._gates[NAME], NAME, 0).report(OK)

        assert one._gates[NAME].due > 1e9

    asyncio.run(main())
