from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from engine.limits import Gates, Limit, NeverFits, Pace, Pass, gate
from engine.limits.scripts import window_key
from engine.log.redis_wire import Address, Wire
from tests.limits.conftest import QUICK, Open
from tests.limits.worker import NAME, worker_process

pytestmark = pytest.mark.redis


class Calls:
    """Calls that were let through and wait to be ended."""

    def __init__(self, gates: Gates, name: str = NAME) -> None:
        self.gates, self.name = gates, name
        self.passed: list[tuple[object, Pass]] = []
        self._changed = asyncio.Event()

    def ask(self, *owners: object, priority: int = 0, tokens: int = 0, begun: bool = False) -> None:
        for owner in owners:
            self.gates.admit(
                self.name, owner, self._through, owner=owner, priority=priority, tokens=tokens, begun=begun
            )

    def _through(self, owner: object, leave: Pass) -> None:
        self.passed.append((owner, leave))
        self._changed.set()

    @property
    def owners(self) -> list[object]:
        return [owner for owner, _ in self.passed]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.passed) < count:
                self._changed.clear()
                await self._changed.wait()


async def told(gates: Gates) -> None:
    """Until all gates have said what they had to say, and heard the answer."""
    await until(lambda: all(not gate._asked and (gate._blocked or not gate.waiting) for gate in gates._gates.values()))


async def until(true: Callable[[], object]) -> None:
    """Until it is true, where nothing tells of it."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.002)


async def test_a_name_without_a_limit_passes_at_once_and_without_a_server() -> None:
    gates = Gates("unix:///nowhere/redis.sock", "a", {})
    async with asyncio.timeout(5), gates.passing("step:free", owner=1) as leave:
        leave.used(5)

    assert gates.waiting("step:free") == 0
    await gates.close()


async def test_no_more_than_allowed_are_through_at_once(gates: Open) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=2)}))
    calls.ask(*range(5))
    await calls.until(2)
    await told(calls.gates)
    assert calls.owners == [0, 1]

    calls.passed[0][1].end()
    calls.passed[0][1].end()
    await calls.until(3)
    await told(calls.gates)

    assert calls.owners == [0, 1, 2]
    assert calls.gates.waiting(NAME) == 2


async def test_a_worker_serves_by_priority_then_what_has_begun_then_in_order(gates: Open) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=1)}))
    calls.ask("first")
    await calls.until(1)
    calls.ask("new")
    calls.ask("late", priority=5)
    calls.ask("begun", begun=True)
    calls.ask("early", priority=-1)
    for count in range(2, 6):
        calls.passed[-1][1].end()
        await calls.until(count)

    assert calls.owners == ["first", "early", "begun", "new", "late"]


async def test_what_is_cancelled_is_not_let_through(gates: Open) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=1)}))
    calls.ask(*range(4))
    await calls.until(1)

    assert calls.gates.cancel(1) == 1
    assert calls.gates.cancel(1) == 0
    calls.passed[0][1].end()
    await calls.until(2)
    assert calls.owners == [0, 2]
    assert calls.gates.waiting(NAME) == 1


async def test_one_cancelled_in_the_moment_it_is_let_through_gives_its_place_back(gates: Open) -> None:
    calls = Calls(gates("a", {NAME: Limit(calls=1, requests=1)}))
    calls.ask("gone")
    while not calls.gates._gates[NAME]._asked:  # noqa: ASYNC110 - until its question is under way, and no longer
        await asyncio.sleep(0)
    calls.gates.cancel("gone")
    calls.ask("next")
    await calls.until(1)

    assert calls.owners == ["next"]


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue(gates: Open) -> None:
    one = gates("a", {NAME: Limit(calls=1)})

    async def call() -> None:
        async with one.passing(NAME, owner="waits"):
            raise AssertionError

    async with one.passing(NAME, owner="first"):
        task = asyncio.create_task(call())
        await until(lambda: one.waiting(NAME))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert one.waiting(NAME) == 0
        assert one._owners == {}

        other = asyncio.create_task(call())
        await until(lambda: one.waiting(NAME))
        assert one.cancel("waits") == 1
        await asyncio.gather(other, return_exceptions=True)
        assert other.cancelled()


async def test_a_callback_that_raises_gives_its_pass_back(gates: Open, caplog: pytest.LogCaptureFixture) -> None:
    one = gates("a", {NAME: Limit(calls=1)})

    def fails(request: str, leave: Pass) -> None:
        raise RuntimeError(request)

    one.admit(NAME, "x", fails, owner="bad")
    calls = Calls(one)
    calls.ask("good")
    await calls.until(1)

    assert "bad" in caplog.text


async def test_what_could_never_pass_is_refused_when_it_asks(gates: Open) -> None:
    one = gates("a", {NAME: Limit(tokens=10)})
    with pytest.raises(NeverFits):
        Calls(one).ask(1, tokens=11)
    with pytest.raises(NeverFits):
        async with one.passing(NAME, tokens=11):
            pass


async def test_two_workers_are_served_in_turn(gates: Open) -> None:
    limits = {NAME: Limit(calls=1)}
    holder = Calls(gates("c", limits))
    holder.ask("h")
    await holder.until(1)
    order: list[str] = []
    workers = {}
    for name in "ab":
        one = workers[name] = gates(name, limits)

        def through(worker: str, leave: Pass) -> None:
            order.append(worker)
            asyncio.get_running_loop().call_soon(leave.end)

        for number in range(20):
            one.admit(NAME, name, through, owner=number)
        await told(one)
    holder.passed[0][1].end()
    await until(lambda: len(order) == 40)

    assert order[:38] == ["a", "b"] * 19


def test_two_processes_never_have_more_calls_at_once_than_one_limit_allows(url: str, wire: Wire) -> None:
    workers = [worker_process(url, worker, count=60, seconds=0.005, lease=60) for worker in "ab"]
    for process in workers:
        assert process.wait(60) == 0

    seen = [int(value) for value in wire.call("LRANGE", "seen", 0, -1)]
    assert len(seen) == 120
    assert max(seen) == 3


# -- windows, by what the server itself saw ------------------------------------------------------------------------


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[list[tuple[float, int]]]:
    """What the server admits, by its own clock: time and tokens."""
    server = Redis(unix_socket_path=Address.parse(url).path)
    admitted: list[tuple[float, int]] = []

    async def watch(ready: asyncio.Event) -> None:
        async with server.monitor() as monitor:
            ready.set()
            async for said in monitor.listen():
                words = said["command"].split()
                if words[:2] == ["ZADD", window_key(NAME)]:
                    admitted.append((said["time"], 0))
                elif words[0] == "HSET" and words[1].startswith("lw:gate-tokens:") and int(words[2]) == len(admitted):
                    admitted[-1] = admitted[-1][0], int(words[3])

    ready = asyncio.Event()
    task = asyncio.create_task(watch(ready))
    await ready.wait()
    try:
        yield admitted
    finally:
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.aclose()


def fullest(admitted: list[tuple[float, int]], seconds: float, weigh: Callable[[int], int]) -> int:
    """The most that was admitted in any window of so many seconds."""
    inside: deque[tuple[float, int]] = deque()
    most = 0
    for at, tokens in admitted:
        inside.append((at, tokens))
        while at - inside[0][0] >= seconds:
            inside.popleft()
        most = max(most, sum(weigh(each) for _, each in inside))
    return most


async def test_two_workers_never_make_more_requests_in_any_minute_than_one_limit_allows(gates: Open, url: str) -> None:
    limits = {NAME: Limit(requests=10)}
    async with watched(url) as admitted:
        both = [Calls(gates(worker, limits)) for worker in "ab"]
        for calls in both:
            calls.ask(*range(20))
        for calls in both:
            await calls.until(20)
        await until(lambda: len(admitted) == 40)

    assert fullest(admitted, QUICK.minute, lambda _: 1) == 10


async def test_two_workers_never_use_more_tokens_in_any_minute_than_one_limit_allows(gates: Open, url: str) -> None:
    limits = {NAME: Limit(calls=50, tokens=1000)}
    async with watched(url) as admitted:
        both = [Calls(gates(worker, limits)) for worker in "ab"]
        for number in range(20):
            both[0].ask(number, tokens=130)
            both[1].ask(number, tokens=70)
        for calls in both:
            await calls.until(20)
        await until(lambda: len(admitted) == 40)

    assert 900 < fullest(admitted, QUICK.minute, lambda tokens: tokens) <= 1000


async def test_a_dear_call_is_not_passed_for_ever_by_cheap_ones_of_another_worker(gates: Open) -> None:
    limits = {NAME: Limit(tokens=100)}
    cheap, dear = Calls(gates("a", limits)), Calls(gates("b", limits))
    cheap.ask(*range(15), tokens=10)
    await cheap.until(10)
    await told(cheap.gates)
    dear.ask("dear", tokens=100)
    await dear.until(1)
    await cheap.until(15)

    assert dear.owners == ["dear"]


async def test_a_call_that_used_less_than_its_estimate_makes_room_at_once(gates: Open) -> None:
    hours = Pace(minute=3600, poll=0.2)
    calls = Calls(gates("a", {NAME: Limit(tokens=100)}, hours))
    calls.ask(1, 2, tokens=80)
    await calls.until(1)
    await told(calls.gates)
    assert calls.owners == [1]

    calls.passed[0][1].used(20)
    await calls.until(2)
    calls.passed[1][1].used(85)
    calls.ask(3, tokens=1)
    await told(calls.gates)
    assert calls.owners == [1, 2]


async def test_a_pass_by_which_no_call_was_made_makes_room_at_once(gates: Open) -> None:
    hours = Pace(minute=3600, poll=0.2)
    calls = Calls(gates("a", {NAME: Limit(calls=1, requests=1)}, hours))
    calls.ask(1, 2)
    await calls.until(1)
    await told(calls.gates)
    assert calls.owners == [1]

    calls.passed[0][1].give_back()
    calls.passed[0][1].end()
    await calls.until(2)
    calls.ask(3)
    await told(calls.gates)
    assert calls.owners == [1, 2]


async def test_a_pass_serves_a_call_that_begins_soon_and_has_as_many_tokens(
    gates: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = Pace(minute=3600, poll=0.2)
    limits = {"a": Limit(requests=9), "b": Limit(requests=9, tokens=100), "c": Limit(calls=9)}
    worker = gates("a", limits, hours)
    calls = {name: Calls(worker, name) for name in "abcd"}
    for each in calls.values():
        each.ask(1, tokens=10)
        await each.until(1)
    passes = {name: each.passed[0][1] for name, each in calls.items()}

    assert {name: passed.serves(10) for name, passed in passes.items()} == dict.fromkeys("abcd", True)
    assert {name: passed.serves(11) for name, passed in passes.items()} == {"a": True, "b": False, "c": True, "d": True}
    monkeypatch.setattr(gate, "FRESH_SECONDS", -1.0)
    assert {name: passed.serves(10) for name, passed in passes.items()} == {
        "a": False,
        "b": False,
        "c": True,
        "d": True,
    }
