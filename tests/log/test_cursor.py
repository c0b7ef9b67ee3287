"""What every cursor does, in memory and over Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from engine.log.errors import Fenced, LogLost, LogMismatch, LogUnavailable
from engine.log.memory import MemoryLog
from engine.log.protocol import START, Batch, Cursor, Log, Position, order_of, output_id
from engine.log.redis_cursor import RedisCursor
from engine.log.redis_log import RedisLog
from tests.log.conftest import PARTITIONS

MakeCursor = Callable[[], Cursor]


@pytest.fixture
def in_memory() -> tuple[Log, MakeCursor]:
    log = MemoryLog(PARTITIONS)
    return log, lambda: log.cursor(log.take_epoch())


@pytest.fixture
def in_redis(log: RedisLog, url: str) -> Iterator[tuple[Log, MakeCursor]]:
    with ExitStack() as cursors:
        yield log, lambda: cursors.enter_context(closing(RedisCursor(url, log.take_lease().epoch)))


@pytest.fixture(params=["in_memory", "in_redis"])
def kind(request: pytest.FixtureRequest) -> tuple[Log, MakeCursor]:
    """A log, and what takes a new epoch on it and gives a cursor that writes in it."""
    found: tuple[Log, MakeCursor] = request.getfixturevalue(request.param)
    return found


def read_all(cursor: Cursor) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    while batches := cursor.read(10, 0):
        for partition, entries in batches:
            found.setdefault(partition, []).extend(payload for _, _, payload in entries)
    return found


def test_entries_come_in_the_order_of_their_partition(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    log.append_many([(i % PARTITIONS, b"%d" % i) for i in range(400)])
    cursor = make()
    cursor.assign(dict.fromkeys(range(PARTITIONS)))

    assert read_all(cursor) == {p: [b"%d" % i for i in range(p, 400, PARTITIONS)] for p in range(PARTITIONS)}


def test_a_cursor_goes_on_behind_its_position(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    receipts = log.append_many([(0, b"%d" % i) for i in range(5)])
    cursor = make()
    cursor.assign({0: receipts[2].position, 1: None})

    assert read_all(cursor) == {0: [b"3", b"4"]}


def test_positions_and_stamps_rise_and_agree(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    log.append_many([(0, b"x")] * 20)
    cursor = make()
    cursor.assign({0: None})
    ((_, entries),) = cursor.read(100, 0)

    orders = [order_of(position) for position, _, _ in entries]
    assert orders == sorted(set(orders))
    assert [stamp for _, stamp, _ in entries] == [ms for ms, _ in orders]


def test_any_bytes_pass(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    poison = [b"", b"\xff\x00\r\n", b"$5\r\n", b"{" * 100_000]
    log.append_many([(0, payload) for payload in poison])
    cursor = make()
    cursor.assign({0: None})
    ((_, entries),) = cursor.read(100, 0)
    for position, _, payload in entries:
        cursor.put("dead", 0, position, 0, payload)
    cursor.flush()

    assert [item.payload for item in log.scan("dead", 0)] == poison


def put_again(cursor: Cursor, batches: list[Batch]) -> None:
    for partition, entries in batches:
        for position, _, payload in entries:
            for index in range(3):
                cursor.put("journal", partition, position, index, payload + b"%d" % index)


def test_the_same_outputs_made_again_are_there_once(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    log.append_many([(i % 2, b"%d." % i) for i in range(10)])
    for count in (3, 10):
        cursor = make()
        cursor.assign({0: None, 1: None})
        put_again(cursor, [Batch(p, entries[:count]) for p, entries in cursor.read(100, 0)])
        cursor.flush()

    items = list(log.scan("journal", 0))
    assert [item.payload for item in items] == [b"%d.%d" % (i, n) for i in range(0, 10, 2) for n in range(3)]
    assert items[1].id == output_id(next(log.scan("log", 0)).id, 1)


def test_an_older_epoch_writes_nothing_more(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    position = log.append(0, b"x").position
    old, new = make(), make()
    old.assign({0: None})
    new.assign({0: None})
    old.put("journal", 0, position, 0, b"old")
    new.put("journal", 0, position, 0, b"new")
    new.flush()

    with pytest.raises(Fenced, match="it must stop"):
        old.read(10, 0)
    with pytest.raises(Fenced):
        old.verdict(0, position, b"{}")
    assert [item.payload for item in log.scan("journal", 0)] == [b"new"]


def test_a_replaced_engine_reads_nothing_more(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    old = make()
    old.assign({0: None})
    old.flush()
    make()
    log.append(0, b"x")

    with pytest.raises(Fenced):
        old.read(10, 0)


def test_the_first_verdict_stands(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    receipts = log.append_many([(0, b"x")] * 3)
    cursor = make()
    cursor.assign({0: None})

    assert cursor.verdict(0, receipts[1].position, b"first") == b"first"
    assert cursor.verdict(0, receipts[1].position, b"second") == b"first"
    assert cursor.verdict(0, receipts[2].position, b"other") == b"other"
    assert list(cursor.verdicts(0, None)) == [receipts[1].position, receipts[2].position]
    assert cursor.verdicts(0, receipts[1].position) == {receipts[2].position: b"other"}
    assert log.verdicts(0, receipts[2].position) == {}


def test_positions_are_published_with_those_that_a_cursor_began_at(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    position = log.append(0, b"x").position
    cursor = make()
    cursor.assign({0: None, 1: None})
    cursor.read(10, 0)

    assert [p.positions for p in log.publications()] == [{0: START, 1: START}]
    assert cursor.tail(0) == position
    assert cursor.tail(1) is None


def test_a_position_ahead_of_the_end_is_refused(kind: tuple[Log, MakeCursor]) -> None:
    log, make = kind
    end = log.append(0, b"x").position
    cursor = make()

    with pytest.raises(LogLost, match="its end is lost"):
        cursor.assign({0: Position(f"{order_of(end)[0]}-9")})
    with pytest.raises(LogLost, match="ends at nothing"):
        cursor.assign({1: end})


def test_a_partition_that_the_log_does_not_have_is_refused(kind: tuple[Log, MakeCursor]) -> None:
    _, make = kind

    with pytest.raises(LogMismatch, match="use 0 to 3"):
        make().assign({PARTITIONS: None})


def test_followers_and_getters_see_what_was_written(kind: tuple[Log, MakeCursor]) -> None:
    log, _ = kind
    one, two = log.append_many([(0, b"one"), (2, b"two")])
    found = log.follow("log", {0: None, 1: None, 2: None}, 0)

    assert {p: [item.payload for item in items] for p, items in found.items()} == {0: [b"one"], 2: [b"two"]}
    assert log.follow("log", {0: one.position, 2: two.position}, 0) == {}
    assert log.get("log", 2, two.position) == found[2][0]
    assert log.get("log", 1, two.position) is None
    assert [item.payload for item in log.scan("log", 0, None, one.position)] == [b"one"]


def test_a_log_in_memory_can_be_away() -> None:
    log = MemoryLog(1)
    position = log.append(0, b"x").position
    cursor = log.cursor()
    cursor.assign({0: None})
    cursor.put("journal", 0, position, 0, b"kept")
    log.available = False
    with pytest.raises(LogUnavailable):
        cursor.read(10, 0)
    with pytest.raises(LogUnavailable):
        cursor.reconnect()
    log.available = True
    cursor.reconnect()
    cursor.flush()

    assert [item.payload for item in log.scan("journal", 0)] == [b"kept"]


def test_a_log_in_memory_refuses_outputs_that_do_not_rise() -> None:
    cursor = MemoryLog(1).cursor()
    cursor.put("journal", 0, Position("5-0"), 1, b"")

    with pytest.raises(ValueError, match="put in rising order"):
        cursor.put("journal", 0, Position("5-0"), 1, b"")


def test_the_clock_of_a_log_in_memory_may_go_back_and_its_positions_do_not() -> None:
    now = iter([1000, 1000, 1001, 400, 400, 1002])
    log = MemoryLog(1, clock=lambda: next(now))

    assert [log.append(0, b"").position for _ in range(5)] == ["1000-0", "1001-0", "1001-1", "1001-2", "1002-0"]
