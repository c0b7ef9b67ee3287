"""Archive, then log: whoever reads sees every item once, wherever the trim has come to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.log import redis_log
from engine.log.archive import Archive
from engine.log.errors import Fenced, LogError, LogLost
from engine.log.janitor import Janitor, archive_through, covered, spent
from engine.log.lease import Owner
from engine.log.protocol import Item, Position, Publication, Receipt, Topic, last_output
from engine.log.redis_cursor import RedisCursor
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Wire

pytestmark = pytest.mark.redis
FOR_EVER = 2**42


def fill(log: RedisLog, cursor: RedisCursor, count: int, partition: int = 0) -> list[Receipt]:
    """Entries with two journal records, an outbox event and, for every tenth, a dead letter and a verdict."""
    receipts = log.append_many([(partition, b"%d" % i) for i in range(count)])
    for i, (_, position) in enumerate(receipts):
        for index in range(2):
            cursor.put("journal", partition, position, index, b'{"n":%d}' % (2 * i + index))
        cursor.put("outbox", partition, position, 0, b"%d" % i)
        if i % 10 == 0:
            cursor.put("dead", partition, position, 0, b"\xff%d" % i)
            cursor.verdict(partition, position, b"{}")
    cursor.passed({partition: receipts[-1].position})
    cursor.flush()
    return receipts


def everything(log: RedisLog) -> dict[Topic, list[Item]]:
    return {topic: list(log.scan(topic, 0)) for topic in redis_log.TRIMMED_TOPICS}


def test_a_scan_reads_archive_then_log(log: RedisLog, cursor: RedisCursor, archive: Archive) -> None:
    receipts = fill(log, cursor, 1200)
    whole = everything(log)
    for end in (299, 300, 900):
        archive_through(log, archive, 0, receipts[end].position)

        assert everything(log) == whole
    assert len(whole["journal"]) == 2400
    assert log.held("log", 0) == (299, int(receipts[901].position.split("-")[0]))
    assert [log.held(topic, 0)[0] for topic in ("journal", "outbox", "dead")] == [598, 299, 29]
    assert log.get("journal", 0, whole["journal"][100].id) == whole["journal"][100]
    assert list(log.scan("log", 0, receipts[500].position, receipts[950].position)) == whole["log"][501:951]
    assert list(log.scan("log", 0, receipts[100].position, receipts[200].position)) == whole["log"][101:201]
    assert list(log.verdicts(0, None)) == [receipt.position for receipt in receipts[910::10]]
    assert log.tail(0) == receipts[-1].position


def test_an_archive_that_overlaps_with_the_log_gives_no_doubles(
    log: RedisLog, cursor: RedisCursor, archive: Archive
) -> None:
    receipts = fill(log, cursor, 100)
    whole = everything(log)
    archive_through(log, archive, 0, receipts[20].position)
    # A crash between archiving and trimming: the archive is ahead.
    held = log.scan_held("log", 0, receipts[20].position, receipts[60].position)
    list(archive.write("log", 0, held))

    assert everything(log) == whole
    archive_through(log, archive, 0, receipts[80].position)
    assert everything(log) == whole
    assert len(list(archive.scan("log", 0))) == 81


def test_a_trim_during_a_scan_makes_no_gap(log: RedisLog, cursor: RedisCursor, archive: Archive) -> None:
    receipts = fill(log, cursor, 2000)
    scan = log.scan("journal", 0)
    found = [next(scan) for _ in range(10)]
    archive_through(log, archive, 0, receipts[1500].position)
    found += scan

    assert [item.payload for item in found] == [b'{"n":%d}' % n for n in range(4000)]


def test_outputs_made_again_after_the_trim_are_still_refused(
    log: RedisLog, cursor: RedisCursor, archive: Archive
) -> None:
    receipts = fill(log, cursor, 10)
    archive_through(log, archive, 0, receipts[-1].position)
    cursor.put("journal", 0, receipts[5].position, 0, b"again")
    cursor.flush()

    assert log.held("journal", 0) == (0, None)
    assert len(list(log.scan("journal", 0))) == 20


def test_a_cursor_behind_the_trim_begins_in_the_archive(
    log: RedisLog, cursor: RedisCursor, archive: Archive, url: str
) -> None:
    receipts = fill(log, cursor, 300)
    others = log.append_many([(1, b"%d" % i) for i in range(30)])
    archive_through(log, archive, 0, receipts[199].position)
    late = RedisCursor(url, 1, archive)
    late.assign({0: receipts[9].position, 1: None})
    found: dict[int, list[tuple[Position, int, bytes]]] = {0: [], 1: []}
    while sum(map(len, found.values())) < 320:
        for partition, entries in late.read(60, 5):
            found[partition] += entries
    late.close()

    assert [position for position, _, _ in found[0]] == [receipt.position for receipt in receipts[10:]]
    assert [payload for _, _, payload in found[0]] == [b"%d" % i for i in range(10, 300)]
    assert [position for position, _, _ in found[1]] == [receipt.position for receipt in others]


def test_a_cursor_behind_the_trim_without_an_archive_is_refused(
    log: RedisLog, cursor: RedisCursor, archive: Archive, url: str
) -> None:
    receipts = fill(log, cursor, 10)
    archive_through(log, archive, 0, receipts[5].position)

    with closing(RedisCursor(url, 1)) as bare:
        bare.assign({0: receipts[5].position})
        assert len(bare.read(10, 0)[0].entries) == 4
        with pytest.raises(LogLost, match="no archive was given"):
            bare.assign({0: receipts[4].position})
    with closing(RedisLog.open(url)) as bare_log, pytest.raises(LogError, match="none was given"):
        list(bare_log.scan("log", 0))


def test_a_follower_that_lags_reads_the_archive_first(
    log: RedisLog, cursor: RedisCursor, archive: Archive, url: str
) -> None:
    after: dict[int, str | None] = {0: None, 1: None}
    found: list[bytes] = []

    def follow() -> None:
        for partition, items in log.follow("journal", after, 0, count=7).items():
            after[partition] = items[-1].id
            found.extend(item.payload for item in items)

    receipts = fill(log, cursor, 50)
    follow()
    archive_through(log, archive, 0, receipts[19].position)
    follow()
    archive_through(log, archive, 0, receipts[39].position)
    for _ in range(20):
        follow()
    archive_through(log, archive, 0, receipts[49].position)
    follow()
    receipts = fill(log, cursor, 1)
    for _ in range(2):
        follow()

    assert found == [b'{"n":%d}' % n for n in [*range(100), 0, 1]]


def test_a_trim_never_goes_back(log: RedisLog, cursor: RedisCursor, archive: Archive, wire: Wire) -> None:
    receipts = fill(log, cursor, 10)
    archive_through(log, archive, 0, receipts[7].position)
    archive_through(log, archive, 0, receipts[3].position)

    assert wire.call("HGET", "lw:trimmed", 0).decode() == receipts[7].position


def test_an_older_epoch_does_not_trim(log: RedisLog, cursor: RedisCursor, url: str) -> None:
    receipts = fill(log, cursor, 10)
    with closing(RedisLog.open(url)) as other:
        other.take_lease(Owner.this_process())

        with pytest.raises(Fenced):
            log.trim(0, receipts[5].position)
    assert log.held("log", 0)[0] == 10


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["append", "archive", "trim", "follow", "crash"]), max_size=25))
def test_readers_see_everything_once_whatever_the_order(
    steps: list[str], url: str, tmp_path_factory: pytest.TempPathFactory, wire: Wire
) -> None:
    wire.call("FLUSHALL")
    archive = Archive(tmp_path_factory.mktemp("archive"))
    sent: list[bytes] = []
    seen: list[Item] = []
    with closing(RedisLog.create(url, 1, archive=archive)) as log:
        for step in steps:
            held = [item.id for item in log.scan_held("log", 0, None, "+")]
            middle = Position(held[len(held) // 2]) if held else Position("0-0")
            match step:
                case "append":
                    payloads = [b"%d" % n for n in range(len(sent), len(sent) + 5)]
                    log.append_many([(0, payload) for payload in payloads])
                    sent += payloads
                case "archive" | "crash":  # archived, not trimmed
                    end = archive.end("log", 0) if step == "archive" else None
                    list(archive.write("log", 0, log.scan_held("log", 0, end, middle)))
                case "trim":
                    archive_through(log, archive, 0, middle)
                case _:
                    after = seen[-1].id if seen else None
                    seen += log.follow("log", {0: after}, 0, count=3).get(0, [])
        while part := log.follow("log", {0: seen[-1].id if seen else None}, 0).get(0):
            seen += part

        assert [item.payload for item in seen] == sent
        assert list(log.scan("log", 0)) == seen


# -- the janitor


def published(*times: tuple[int, dict[int, str]]) -> list[Publication]:
    return [Publication(at, {p: Position(position) for p, position in found.items()}) for at, found in times]


def test_a_checkpoint_covers_what_was_published_before_it() -> None:
    found = published((10, {0: "0-0", 1: "0-0"}), (20, {0: "5-0"}), (30, {0: "7-0", 1: "3-0"}), (40, {0: "9-0"}))

    assert covered(found, 10) == {}
    assert covered(found, 21) == {0: "5-0"}
    assert covered(found, 35) == {0: "7-0", 1: "3-0"}
    assert covered([], 35) == {}


def test_a_cursor_that_went_back_holds_the_trim_back() -> None:
    found = published((10, {0: "5-0"}), (20, {0: "90-0"}), (40, {0: "5-0"}), (50, {0: "8-0"}))

    assert covered(found, 30) == {0: "5-0"}
    assert covered(found, 45) == {0: "5-0"}
    assert covered(found, 60) == {0: "8-0"}


def test_publications_after_a_clock_was_set_back_do_not_count() -> None:
    found = published((1000, {0: "5-0"}), (1010, {0: "6-0"}), (400, {0: "9-0"}))

    assert covered(found, 1005) == {0: "5-0"}


def test_publications_that_later_ones_replace_are_spent() -> None:
    found = published((10, {0: "1-0"}), (20, {1: "1-0"}), (30, {0: "2-0"}), (40, {1: "9-0"}))

    assert [spent(found, at) for at in (5, 15, 25, 35, 45)] == [0, 0, 0, 1, 2]


def test_the_janitor_trims_what_a_checkpoint_has_passed(
    log: RedisLog, cursor: RedisCursor, archive: Archive, tmp_path: Path
) -> None:
    cursor.assign({0: None, 1: None})
    receipts = fill(log, cursor, 20)
    cursor._published = 0.0
    cursor.passed({0: receipts[14].position})
    cursor.flush()
    whole = everything(log)
    leftover = archive.folder / "log" / "00" / "half.part"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    janitor = Janitor(log, archive, most_entries=20)

    assert janitor.tidy(0).trimmed == {}
    assert janitor.tidy(FOR_EVER).trimmed == {0: receipts[14].position}
    assert not leftover.exists()
    assert everything(log) == whole
    assert [log.held(topic, 0)[0] for topic in redis_log.TRIMMED_TOPICS] == [5, 10, 5, 0]
    assert janitor.tidy(FOR_EVER).trimmed == {}
    assert len(log.publications()) == 1


def test_the_janitor_leaves_small_and_young_parts(log: RedisLog, cursor: RedisCursor, archive: Archive) -> None:
    cursor.assign({0: None})
    receipts = fill(log, cursor, 20)
    janitor = Janitor(log, archive)
    cursor._published = 0.0
    cursor.passed({0: receipts[-1].position})
    cursor.flush()

    assert janitor.tidy(FOR_EVER).segments == 0
    assert janitor.tidy(FOR_EVER, everything=True).segments == 4
    assert log.held("log", 0) == (0, None)
    assert archive.end("journal", 0) is not None
    assert last_output(receipts[-1].position) > str(archive.end("journal", 0))
