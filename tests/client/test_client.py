"""What is sent is found: in the view, in histories, in the outbox, among the halted and the dead."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.client import Client
from engine.core.errors import EventRefused
from engine.core.record import CloudEvent
from engine.letters import UnknownLetter
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.outbox import OutboxReader
from engine.reports import AmbiguousKey, OrderRefused, UnknownRun, WaitTimeout
from engine.settings import Settings
from engine.view.view import Count, Filter
from tests.plain_engine import PlainEngine
from tests.shop import POISON, Decided, Order, OrderPlaced, Shouted, both


def placed(key: str = "4711", eur: int = 5, region: str = "north") -> OrderPlaced:
    return OrderPlaced(order=Order(order_id=key, region=region, eur=eur))


def cloud(**fields: Any) -> dict[str, Any]:
    order = {"order_id": "4711", "region": "north", "eur": 5}
    event = {"specversion": "1.0", "id": "e-1", "source": "shop", "type": "OrderPlaced", "data": {"order": order}}
    return {name: value for name, value in (event | fields).items() if value is not None}


async def test_a_run_is_shown_with_what_would_move_it_on(client: Client, engine: PlainEngine) -> None:
    sent = await client.send(placed())
    engine.work()
    run = (await client.until_rest(sent))[0]
    detail = await client.show("4711")

    assert (run.state, run.status, run.fields) == ("Review", "waiting", {"region": "north"})
    assert detail.because is not None
    assert (detail.because.entry, detail.because.from_, detail.because.to) == ("result charge", "Charging", "Review")
    assert detail.data["receipt"] == "receipt for 5"
    triggers = {move.trigger: move for move in detail.moves}
    assert set(triggers) == {"Decided", "Shouted", "every 3 d", "after 14 d"}
    assert triggers["Decided"].targets == ("Shipped", "GivenUp")
    assert triggers["every 3 d"].due == run.wakes_at
    assert triggers["after 14 d"].due is not None
    assert run.since is not None
    assert (triggers["after 14 d"].due - run.since).days == 14


async def test_a_history_tells_every_entry_and_what_was_ignored(client: Client, engine: PlainEngine) -> None:
    await client.send(placed(), cloud(id="twice"), cloud(id="twice"))
    engine.work()
    await client.send(Decided(approve=True), key="4711")
    engine.work()
    await client.send(Decided(approve=False), key="4711")
    engine.work()
    lines = await client.history("orders/4711", bodies=True)

    assert [line.seq for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [(line.entry, line.to) for line in lines if not line.ignored] == [
        ("event OrderPlaced", "Charging"),
        ("result charge", "Review"),
        ("event Decided", "Shipped"),
    ]
    reasons = [line.ignored for line in lines if line.ignored]
    assert "the run has begun" in reasons[0]
    assert "repeat" in reasons[1]
    assert "finished" in reasons[2]
    assert lines[0].body["t"] == "event"
    assert lines[-2].published + lines[-3].published + lines[-4].published == ("OrderShipped",)


async def test_runs_are_listed_filtered_and_counted(client: Client, engine: PlainEngine) -> None:
    await client.send(*(placed(f"k{number}", -1 if number == 3 else 1, f"r{number % 2}") for number in range(6)))
    engine.work()

    assert [run.key for run in await client.list(Filter(state="GivenUp"))] == ["k3"]
    found = await client.list(Filter(status="waiting", where={"region": "r1"}))
    assert {run.key for run in found} == {"k1", "k5"}
    assert await client.counts() == [Count("orders", "GivenUp", "finished", 1), Count("orders", "Review", "waiting", 5)]
    page = await client.list(limit=4)
    last = page[-1]
    rest = await client.list(after=(last.workflow, last.key, last.run_id))
    assert {run.key for run in page} | {run.key for run in rest} == {f"k{number}" for number in range(6)}
    assert len(page) + len(rest) == 6


async def test_a_halted_run_goes_on_without_what_halted_it(client: Client, engine: PlainEngine) -> None:
    await client.send(placed("a"), placed("b"), placed("c"))
    engine.work()
    await client.send(Decided(approve=True, note=POISON), key="a")
    await client.send(Decided(approve=True, note=POISON), key="b")
    engine.work()
    stopped = await client.halted()

    assert {run.key for run in stopped} == {"a", "b"}
    assert "cannot" in stopped[0].error
    detail = await client.show("a")
    assert detail.because is not None
    assert detail.because.entry == "event Decided"
    assert detail.halted is not None

    again = await client.resume("a", who="ann", why="tried again")
    engine.work()
    await client.wait_for(again)

    assert len(await client.halted()) == 2

    sent = await client.skip(Filter(workflow="orders"), who="ann", why="poison")
    engine.work()

    assert {each.key for each in sent} == {"a", "b"}
    assert await client.halted() == []
    order = next(line for line in await client.history("b") if line.who)
    assert (order.entry, order.who, order.why) == ("order skip", "ann", "poison")


async def test_an_order_that_does_not_fit_is_refused(client: Client, engine: PlainEngine) -> None:
    await client.send(placed())
    engine.work()

    with pytest.raises(OrderRefused, match="not halted, it is waiting in Review"):
        await client.resume("4711", who="ann")
    with pytest.raises(OrderRefused, match="no call"):
        await client.retry("4711", who="ann")

    await client.cancel("4711", who="ann", why="no longer wanted")
    engine.work()

    with pytest.raises(OrderRefused, match="finished"):
        await client.cancel("4711", who="ann")
    assert (await client.show("4711")).run.status == "finished"


async def test_a_failed_call_is_tried_again_by_order(client: Client, engine: PlainEngine) -> None:
    await client.send(placed())
    engine.work()
    await client.send(Shouted(text=POISON), key="4711")
    engine.work()

    assert [call.status for call in (await client.show("4711")).calls] == ["failed"]

    await client.retry(Filter(state="Review"), who="ann")
    engine.work()

    assert [line.entry for line in await client.history("4711")][-2:] == ["order retry", "failure remind"]


async def test_keys_of_two_workflows_must_be_told_apart(log: RedisLog, server: EmbeddedRedis, tmp_path: Any) -> None:
    engine = PlainEngine(both, log, server.url)
    async with Client(both, settings=Settings(data=tmp_path, log=server.url)) as client:
        sent = await client.send(placed())
        engine.work()
        await client.wait_for(sent)

        assert len(sent) == 2
        with pytest.raises(AmbiguousKey, match="ledger/4711"):
            await client.show("4711")
        assert (await client.show("ledger/4711")).run.state == "Counting"
        with pytest.raises(UnknownRun):
            await client.show("4712")
    engine.close()


async def test_a_key_may_hold_a_slash(client: Client, engine: PlainEngine) -> None:
    await client.send(placed("a/b"))
    engine.work()

    assert (await client.show("a/b")).run == (await client.show("orders/a/b")).run


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (cloud(id=None), "id: is missing"),
        (cloud(source=""), "source: is missing"),
        (cloud(specversion="0.3"), "specversion"),
        (cloud(type="Nobody"), "type: no workflow takes 'Nobody'"),
        (cloud(data={"order": {"order_id": "1", "region": "n", "eur": "five"}}), "data.order.eur"),
        (cloud(data={"order": {"order_id": "1", "region": "n", "eur": 5}, "more": 1}), "data.more"),
        (cloud(type="Decided", data={"approve": True}), "subject"),
        (cloud(subject="4712"), "subject: is '4712'"),
        (cloud(time="yesterday"), "time"),
        (cloud(datacontenttype="text/xml"), "datacontenttype"),
        (cloud(data_base64="AAAA"), "data_base64"),
        (cloud(longwatchwho="the boss"), "longwatchwho: is not taken from outside"),
        (cloud(longwatchvisit=1), "longwatchvisit: is not taken from outside"),
        (json.dumps(cloud(more="x" * (1 << 20))).encode(), "at most 1,048,576"),
    ],
)
async def test_events_that_cannot_be_taken_are_refused_with_the_field(client: Client, event: Any, words: str) -> None:
    with pytest.raises(EventRefused) as caught:
        await client.send(placed("good"), event)

    assert words in str(caught.value)
    assert await client.list() == []


async def test_waiting_ends_in_time(client: Client) -> None:
    sent = await client.send(placed())

    with pytest.raises(WaitTimeout, match="stand on the log"):
        await client.wait_for(sent, timeout=0.1)


async def test_an_event_before_its_run_is_waited_for_until_it_is_passed(client: Client, engine: PlainEngine) -> None:
    sent = await client.send(Decided(approve=True), key="not yet")
    engine.work()
    await asyncio.sleep(0.3)  # positions are published four times a second
    engine.work()

    await client.wait_for(sent, timeout=10)


async def test_what_dies_on_the_log_is_a_dead_letter_that_can_be_sent_again(
    client: Client, engine: PlainEngine, log: RedisLog
) -> None:
    log.append(0, b"\xff no entry")
    log.append(1, json.dumps(cloud()).encode())
    engine.work()
    first, second = await client.dead_letters()

    assert first.letter.body == b"\xff no entry"
    with pytest.raises(EventRefused):
        await client.resend(first.id)

    await client.drop(first.id, who="ann")
    await client.resend(second.id, who="ann")
    engine.work()

    assert (await client.show("4711")).run.state == "Review"
    assert await client.dead_letters() == []
    assert [each.fate for each in await client.dead_letters(done=True)] == ["dropped", "resent"]
    with pytest.raises(UnknownLetter):
        await client.dead_letter("0/1-0/7")


async def test_the_outbox_is_read_once_from_any_place(client: Client, engine: PlainEngine, log: RedisLog) -> None:
    for key in "abc":
        await client.send(placed(key))
        engine.work()
        await client.send(Decided(approve=True), key=key)
        engine.work()
    seen = [each async for each in client.outbox(follow=False)]

    assert {each.event.subject for each in seen} == {"a", "b", "c"}
    reader = OutboxReader(log)
    assert len(list(reader.read())) == 3
    assert list(OutboxReader(log, reader.places).read()) == []
    assert isinstance(seen[0].event, CloudEvent)
    assert [each async for each in client.outbox(reader.places, follow=False)] == []


async def test_a_history_is_read_from_the_archive(client: Client, engine: PlainEngine, log: RedisLog) -> None:
    from engine.log.archive import Archive  # noqa: PLC0415

    await client.send(placed())
    engine.work()
    lines = await client.history("4711", bodies=True)
    archive = Archive(client.settings.data / "archive")
    for partition in range(4):
        tail = log.tail(partition)
        for topic in ("log", "journal"):
            list(archive.write(topic, partition, log.scan(topic, partition)))
        if tail is not None:
            log.trim(partition, tail)

    assert await client.history("4711", bodies=True) == lines
    assert (await client.show("4711")).run.state == "Review"


async def test_the_view_can_be_thrown_away(client: Client, engine: PlainEngine, server: EmbeddedRedis) -> None:
    await client.send(placed())
    engine.work()
    runs = await client.list()
    for path in client.settings.data.glob("view.sqlite*"):
        path.unlink()

    async with Client(settings=Settings(data=client.settings.data, log=server.url)) as other:
        assert await other.list() == runs
