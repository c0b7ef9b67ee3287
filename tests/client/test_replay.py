"""Folding again gives the same bytes, and says so when it does not."""

from __future__ import annotations

from engine.client import Client
from engine.core.application import Application
from engine.core.definition import Workflow
from engine.log.archive import Archive
from engine.log.redis_keys import stream
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis
from engine.replay import Replay, Replayer
from tests import shop
from tests.client.test_client import placed
from tests.plain_engine import PlainEngine
from tests.shop import POISON, Decided, Shouted, app


def replayed(log: RedisLog, application: Application = app, **more: object) -> Replay:
    return Replayer(application, log, **more).run()  # type: ignore[arg-type]  # as the test gives them


async def lived(client: Client, engine: PlainEngine) -> None:
    """Some runs with all that can happen to them: late and early events, halts, orders, failures, dead letters."""
    await client.send(Decided(approve=True), key="early")
    await client.send(*(placed(f"k{number}", -1 if number == 4 else 1) for number in range(8)), placed("early"))
    engine.work()
    for number in range(4):
        note = POISON if number % 2 else "fine"
        await client.send(Decided(approve=True, note=note), key=f"k{number}")
    await client.send(Shouted(text=POISON), Shouted(text="hello"), key="k5")
    engine.work()
    await client.send(Decided(approve=True), Shouted(text="held"), key="k1")
    engine.work()
    await client.resume("k1", who="ann")
    await client.skip("k3", who="ann")
    await client.cancel("k6", who="ann")
    await client.retry("k5", who="ann")
    engine.work()
    await client.skip("k1", who="ann")
    engine.work()
    engine.log.append(0, b"no entry")
    engine.work()


def poke(server: EmbeddedRedis, log: RedisLog, key: str, old: bytes, new: bytes) -> None:
    """Change a record of a run in the journal, as nobody should."""
    wire = Wire(Address.parse(server.url))
    for partition in range(4):
        items = list(log.scan("journal", partition))
        if any(f'"key":"{key}"'.encode() in item.payload for item in items):
            wire.call("DEL", stream("journal", partition))
            for item in items:
                mine = f'"key":"{key}"'.encode() in item.payload
                wire.call(
                    "XADD",
                    stream("journal", partition),
                    item.id,
                    "e",
                    item.payload.replace(old, new) if mine else item.payload,
                )
    wire.close()


async def test_a_replay_gives_the_same_bytes(client: Client, engine: PlainEngine, log: RedisLog) -> None:
    await lived(client, engine)
    result = replayed(log)

    assert result.differences == []
    assert (result.on_trust, result.not_yet, result.unreadable) == (0, 0, 1)
    assert result.records == sum(len(list(log.scan("journal", partition))) for partition in range(4))
    assert result.folded + result.unreadable == result.entries == engine.entries


async def test_a_replay_of_archive_and_log_gives_the_same_bytes(
    client: Client, engine: PlainEngine, log: RedisLog
) -> None:
    await lived(client, engine)
    before = replayed(log)
    archive = Archive(client.settings.data / "archive")
    for partition in range(4):
        items = list(log.scan("log", partition))
        middle = items[len(items) // 2].id
        for topic in ("log", "journal"):
            until = middle if topic == "log" else f"{middle.partition('-')[0]}-{(1 << 64) - 1}"
            list(archive.write(topic, partition, log.scan(topic, partition, None, until)))
        log.trim(partition, middle)  # type: ignore[arg-type]  # an id of the log is a position
    after = replayed(log)

    assert after.differences == []
    assert (after.entries, after.records) == (before.entries, before.records)


async def test_a_record_that_was_changed_is_shown(
    client: Client, engine: PlainEngine, log: RedisLog, server: EmbeddedRedis
) -> None:
    await lived(client, engine)
    poke(server, log, "k2", b'"region":"north"', b'"region":"south"')
    result = replayed(log, most=10)

    assert not result.identical
    difference = result.differences[0]
    assert (difference.workflow, difference.key, difference.reason) == ("orders", "k2", "the record differs")
    assert difference.stands is not None
    assert difference.folded is not None
    assert difference.stands["fields"] == {"region": "south"}
    assert difference.folded["fields"] == {"region": "north"}
    assert replayed(log, only=("orders", "k0")).identical
    assert not replayed(log, only=("orders", "k2")).identical


async def test_a_record_that_is_missing_is_found(
    client: Client, engine: PlainEngine, log: RedisLog, server: EmbeddedRedis
) -> None:
    await lived(client, engine)
    wire = Wire(Address.parse(server.url))
    last = [list(log.scan("journal", partition))[-1] for partition in range(4)]
    wire.call("XDEL", stream("journal", 2), last[2].id)
    wire.close()

    assert replayed(log).differences[0].reason == "the journal lacks a record"


async def test_entries_that_the_engine_has_not_come_to_are_no_difference(
    client: Client, engine: PlainEngine, log: RedisLog
) -> None:
    await lived(client, engine)
    await client.send(placed("later"))
    result = replayed(log)

    assert result.identical
    assert result.not_yet == 1


async def test_what_came_after_a_time_is_left_out(client: Client, engine: PlainEngine, log: RedisLog) -> None:
    await lived(client, engine)

    assert replayed(log, until=0).entries == 0


async def test_what_other_code_folded_is_taken_on_trust(
    client: Client, engine: PlainEngine, log: RedisLog, server: EmbeddedRedis
) -> None:
    await lived(client, engine)
    newer = Workflow("orders", start=shop.place, states=[shop.Charging, shop.Review, shop.Shipped, shop.GivenUp])
    newer.__dict__["code"] = "another code"
    application = Application(workflows=[newer])
    after = PlainEngine(application, log, server.url)
    after.stored, after.held, after.times = engine.stored, engine.held, engine.times
    after.cursor.assign({partition: log.tail(partition) for partition in range(4)})
    await client.send(Decided(approve=True), key="k7")
    await client.send(placed("new"))
    after.work()
    after.close()
    result = replayed(log, application)

    assert result.differences == []
    assert result.on_trust == engine.entries - 2  # neither the dead letter nor the event that made no record
    assert result.folded == 3 + 1
    assert not replayed(log).differences
