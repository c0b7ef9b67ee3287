from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from engine.limits import Gates, Limit, Pass, read_gates
from engine.limits.gate import Gate
from engine.limits.scripts import ASK, gate_key, gate_keys, to_json
from engine.log.errors import LogError
from engine.log.redis_wire import Wire
from engine.log.server import EmbeddedRedis
from tests.limits.conftest import QUICK, Open
from tests.limits.test_gates import Calls, told, until
from tests.limits.worker import NAME, worker_process

pytestmark = pytest.mark.redis

THREE = {NAME: Limit(calls=3)}


async def killed_worker(url: str, wire: Wire, worker: str) -> None:
    """A worker that died with all slots in its hands."""
    process = worker_process(url, worker, count=10, seconds=3600)
    await until(lambda: wire.call("GET", "running") == b"3")
    process.kill()
    process.wait()


async def test_the_slots_of_a_killed_worker_come_free_after_its_lease(gates: Open, url: str, wire: Wire) -> None:
    await killed_worker(url, wire, "dead")
    assert wire.call("HGET", f"lw:gate:{NAME}", "running:dead") == b"3"
    calls = Calls(gates("living", THREE))
    calls.ask(1, 2, 3)
    await calls.until(3)

    assert wire.call("HGET", f"lw:gate:{NAME}", "running:dead") is None
    assert read_gates(url, pace=QUICK)[0].workers.keys() == {"living"}


async def test_a_worker_that_starts_again_frees_what_it_held_at_once(gates: Open, url: str, wire: Wire) -> None:
    await killed_worker(url, wire, "again")
    long = replace(QUICK, lease=3600)
    waits = Calls(gates("other", THREE, long))
    waits.ask(1)
    await told(waits.gates)
    assert not waits.passed

    calls = Calls(gates("again", THREE, long, epoch=2))
    calls.ask(1, 2)
    await calls.until(2)
    await waits.until(1)


async def test_a_replaced_worker_lets_nobody_pass(gates: Open, caplog: pytest.LogCaptureFixture) -> None:
    old = Calls(gates("a", THREE, epoch=1))
    old.ask(1)
    await old.until(1)
    new = Calls(gates("a", THREE, epoch=2))
    new.ask(1, 2, 3)
    await new.until(3)
    old.ask(2)
    await until(lambda: old.gates.replaced)
    older = gates("a", THREE, epoch=1)
    await until(lambda: older.replaced)

    assert old.owners == [1]
    assert "a is 2:" in caplog.text
    old.passed[0][1].end()
    await old.gates.close()
    assert new.gates.trouble == ""


async def test_a_worker_that_closes_gives_back_what_it_held(gates: Open, url: str) -> None:
    first = Gates(url, "a", THREE, pace=QUICK)
    first.start()
    held = Calls(first)
    held.ask(1, 2, 3)
    await held.until(3)
    waits = Calls(gates("b", THREE, replace(QUICK, lease=3600)))
    waits.ask(1)
    await told(waits.gates)
    await first.close()

    await waits.until(1)


async def test_while_the_server_is_away_all_wait_and_then_go_on(server: EmbeddedRedis) -> None:
    async with Gates(server.url, "a", THREE, pace=QUICK) as one:
        calls = Calls(one)
        calls.ask(1)
        await calls.until(1)
        server.stop()
        calls.ask(2, 3, 4, 5)
        await until(lambda: one.trouble)
        assert "redis.sock" in one.trouble
        calls.passed[0][1].end()
        assert calls.owners == [1]

        server.ensure()
        await calls.until(4)
        await told(one)
        assert calls.owners == [1, 2, 3, 4]
        assert one.trouble == ""


async def test_what_runs_while_the_server_is_away_is_still_counted_when_it_is_back(server: EmbeddedRedis) -> None:
    """Also when it was away for longer than a lease: nobody could give a sign of life meanwhile."""
    pace = replace(QUICK, lease=0.6)
    async with Gates(server.url, "a", THREE, pace=pace) as one, Gates(server.url, "b", THREE, pace=pace) as other:
        calls, others = Calls(one), Calls(other)
        calls.ask(1, 2, 3)
        await calls.until(3)
        server.stop()
        others.ask(1)
        await asyncio.sleep(2 * pace.lease)
        server.ensure()
        await until(lambda: read_gates(server.url, pace=pace)[0].waiting == 1)
        await until(lambda: not one.trouble)
        await told(other)
        assert others.owners == []

        calls.passed[0][1].end()
        await others.until(1)


async def test_an_emptied_server_learns_anew_what_is_held(gates: Open, url: str, wire: Wire) -> None:
    calls = Calls(gates("a", THREE))
    calls.ask(1, 2, 3, 4)
    await calls.until(3)
    wire.call("FLUSHALL")
    wire.call("SCRIPT", "FLUSH")
    await until(lambda: read_gates(url, pace=QUICK) and read_gates(url, pace=QUICK)[0].running == 3)

    assert calls.owners == [1, 2, 3]


async def test_an_answer_that_was_lost_costs_no_slot(gates: Open, url: str, wire: Wire) -> None:
    """The server let three through and the worker never heard of it."""
    one = gates("a", THREE)
    calls = Calls(one)
    await until(lambda: one._link)
    assert one._link is not None
    one._link._parser.feed(b"-LOADING a lie that hides the true answer\r\n")
    calls.ask(1, 2, 3, 4)
    await calls.until(3)
    await told(one)

    assert calls.owners == [1, 2, 3]
    assert read_gates(url, pace=QUICK)[0].running == 3


async def test_what_an_old_connection_still_brings_is_refused(gates: Open, wire: Wire) -> None:
    """The bytes of a broken connection may reach the server after those of the next."""
    one = gates("a", THREE)
    calls = Calls(one)
    await until(lambda: one._link)
    gate = Gate(NAME, THREE[NAME], QUICK, lambda: None)
    old = gate.ask("a", f"0:{one._nonce}:1", 0.0)
    assert one._link is not None
    one._link.close()
    calls.ask(1, 2, 3)
    await calls.until(3)
    keys = gate_keys(NAME)

    with pytest.raises(LogError, match="this engine was replaced: FENCED a is"):
        wire.call("EVALSHA", ASK.sha, len(keys), *keys, to_json(old))
    assert wire.call("HGET", gate_key(NAME), "running:a") == b"3"


@pytest.mark.parametrize("seed", range(3))
async def test_a_limit_holds_whatever_breaks(gates: Open, seed: int) -> None:
    """Three workers; calls of chance lengths, some cancelled, and connections that break at any moment."""
    chance = random.Random(seed)
    workers = [gates(worker, THREE) for worker in "abc"]
    loop = asyncio.get_running_loop()
    running: set[object] = set()
    most = 0
    done: set[object] = set()

    def passed(owner: object, leave: Pass) -> None:
        nonlocal most
        running.add(owner)
        most = max(most, len(running))
        loop.call_later(chance.random() * 0.004, end, owner, leave)

    def end(owner: object, leave: Pass) -> None:
        running.remove(owner)
        done.add(owner)
        leave.end()

    owners = [(number % 3, number) for number in range(240)]
    for owner in owners:
        workers[owner[0]].admit(NAME, owner, passed, owner=owner, priority=chance.randint(0, 2))
    cancelled: set[object] = set()
    while len(done) + len(cancelled) < len(owners):
        await asyncio.sleep(chance.random() * 0.005)
        one = chance.choice(workers)
        if one._link and chance.random() < 0.3:
            one._link.close()
        owner = chance.choice(owners)
        if chance.random() < 0.1 and workers[owner[0]].cancel(owner):
            cancelled.add(owner)

    assert most == 3
    assert done.isdisjoint(cancelled)


async def test_a_server_that_refuses_is_asked_again(gates: Open, wire: Wire) -> None:
    wire.call("SET", f"lw:gate-turns:{NAME}", "of the wrong type")
    one = gates("a", THREE)
    calls = Calls(one)
    calls.ask(1)
    await until(lambda: "WRONGTYPE" in one.trouble)
    wire.call("DEL", f"lw:gate-turns:{NAME}")

    await calls.until(1)
