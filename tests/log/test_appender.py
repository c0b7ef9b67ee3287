from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.log.errors import LogLost
from engine.log.memory import MemoryLog
from engine.log.redis_appender import RedisAppender
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Wire
from engine.log.server import EmbeddedRedis
from tests.log.conftest import PARTITIONS
from tests.log.test_redis_faults import kill

pytestmark = pytest.mark.redis


@pytest.fixture
async def appender(url: str, log: RedisLog) -> AsyncIterator[RedisAppender]:
    appender = RedisAppender(url, log.header.log_id, PARTITIONS)
    yield appender
    await appender.close()


async def until(appender: RedisAppender, trouble: bool) -> None:
    async with asyncio.timeout(5):
        while (appender.trouble is not None) != trouble:  # noqa: ASYNC110 - nothing tells of it, on purpose
            await asyncio.sleep(0.005)


async def test_appends_stay_in_order(appender: RedisAppender, log: RedisLog) -> None:
    for i in range(1000):
        appender.append(i % PARTITIONS, b"%d" % i)
    assert appender.waiting == 1000
    await appender.drain()

    assert appender.waiting == 0
    for partition in range(PARTITIONS):
        found = [item.payload for item in log.scan("log", partition)]
        assert found == [b"%d" % i for i in range(partition, 1000, PARTITIONS)]
    await appender.drain()


async def test_what_is_appended_in_one_turn_goes_out_in_one_write(appender: RedisAppender) -> None:
    appender.append(0, b"x")
    await appender.drain()
    assert appender._link
    writes: list[bytes] = []
    send = appender._link.write

    def write(requests: bytes) -> None:
        writes.append(requests)
        send(requests)

    appender._link.write = write  # type: ignore[method-assign]
    for _ in range(100):
        appender.append(0, b"x")
    await appender.drain()

    assert len(writes) == 1


async def test_what_a_killed_server_did_not_acknowledge_is_sent_again(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    with closing(RedisLog.create(server.url, 1)) as log:
        appender = RedisAppender(server.url, log.header.log_id, 1)
        appender.append(0, b"first")
        await appender.drain()
        appender.append(0, b"second")
        kill(server)
        await until(appender, trouble=True)
        for i in range(10):
            appender.append(0, b"%d" % i)
        assert appender.waiting >= 10
        await asyncio.to_thread(server.ensure)
        await appender.drain()
        with closing(RedisLog.open(server.url)) as again:
            found = [item.payload for item in again.scan("log", 0)]

        assert found[0] == b"first"
        assert found[-10:] == [b"%d" % i for i in range(10)]
        assert b"second" in found
        assert appender.trouble is None
        await appender.close()
    server.stop()


async def test_whoever_keeps_something_is_told_when_exactly_that_is_there(
    appender: RedisAppender, log: RedisLog
) -> None:
    appender.append(1, b"before")
    kept = [appender.keep(0, b"%d" % i) for i in range(3)]
    appender.append(1, b"after")
    given_up = appender.keep(0, b"given up")
    given_up.cancel()
    await kept[1]

    assert kept[0].done()
    assert [item.payload for item in log.scan("log", 0)][:2] == [b"0", b"1"]
    await appender.keep(0, b"last")
    assert appender.waiting == 0


async def test_what_is_kept_survives_a_killed_server(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    with closing(RedisLog.create(server.url, 1)) as log:
        appender = RedisAppender(server.url, log.header.log_id, 1)
        await appender.keep(0, b"first")
        kill(server)
        await until(appender, trouble=True)
        second = appender.keep(0, b"second")
        assert not second.done()
        await asyncio.to_thread(server.ensure)
        await second
        with closing(RedisLog.open(server.url)) as again:
            found = [item.payload for item in again.scan("log", 0)]

        assert found == [b"first", b"second"]
        await appender.close()
    server.stop()


async def test_a_full_server_gets_everything_later(appender: RedisAppender, log: RedisLog, wire: Wire) -> None:
    appender.append(0, b"0")
    await appender.drain()
    wire.call("CONFIG", "SET", "maxmemory", "100000")
    appender.append(0, b"1")
    appender.append(0, b"2")
    await until(appender, trouble=True)
    assert appender.waiting == 2
    assert "raise it" in str(appender.trouble)
    wire.call("CONFIG", "SET", "maxmemory", "0")
    await appender.drain()

    assert [item.payload for item in log.scan("log", 0)] == [b"0", b"1", b"2"]


async def test_another_log_gets_nothing(appender: RedisAppender, url: str, wire: Wire) -> None:
    appender.append(0, b"x")
    await appender.drain()
    wire.call("FLUSHALL")
    wire.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await until(appender, trouble=True)
    kept = appender.keep(0, b"late")

    with pytest.raises(LogLost, match="it is empty"):
        await appender.drain()
    with pytest.raises(LogLost, match="it is empty"):
        await kept
    with pytest.raises(LogLost, match="it is empty"):
        appender.append(0, b"later")
    assert wire.call("EXISTS", "lw:log:0") == 0


async def test_in_memory_appends_wait_while_the_log_is_away() -> None:
    log = MemoryLog(1)
    appender = log.appender()
    appender.append(0, b"0")
    log.available = False
    appender.append(0, b"1")
    assert appender.waiting == 1
    log.available = True
    await appender.drain()

    assert [item.payload for item in log.scan("log", 0)] == [b"0", b"1"]
    await appender.close()
