"""Which positions the engine's own cursor takes from a checkpoint, on a Redis without Flink."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest

from engine.flink.opening import CoveredCursor, open_cursor, open_logging
from engine.flink.plan import Plan
from engine.log.archive import Archive
from engine.log.checks import END_LOST
from engine.log.errors import LogLost
from engine.log.janitor import archive_through
from engine.log.protocol import START, Position
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis

pytestmark = pytest.mark.redis


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RedisLog]:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    with closing(RedisLog.create(server.url, archive=Archive(tmp_path / "archive"))) as made:
        yield made
    server.stop()


@pytest.fixture
def cursor(log: RedisLog, tmp_path: Path) -> Iterator[CoveredCursor]:
    plan = Plan(app="", app_path="", data=str(tmp_path), log_url=EmbeddedRedis(tmp_path).url, epoch=1)
    with closing(open_cursor(plan)) as made:
        yield made


def positions(log: RedisLog, count: int) -> list[Position]:
    return [receipt.position for receipt in log.append_many([(0, b"{}")] * count)]


def forget(tmp_path: Path, position: Position) -> None:
    """The server has never heard of an entry."""
    with closing(Wire(Address.parse(EmbeddedRedis(tmp_path).url))) as wire:
        wire.call("XDEL", "lw:log:0", position)


def test_a_position_is_taken_whose_entry_is_there_and_so_is_the_beginning(log: RedisLog, cursor: CoveredCursor) -> None:
    last = positions(log, 3)[-1]

    cursor.assign({0: last, 1: START, 2: None})


def test_a_position_ahead_of_the_end_is_refused(log: RedisLog, cursor: CoveredCursor) -> None:
    positions(log, 3)

    with pytest.raises(LogLost, match=END_LOST):
        cursor.assign({0: Position("99999999999999-0")})


def test_a_position_whose_entry_is_gone_is_refused_although_the_log_was_written_on(
    log: RedisLog, cursor: CoveredCursor, tmp_path: Path
) -> None:
    _, gone, _ = positions(log, 3)
    forget(tmp_path, gone)

    with pytest.raises(LogLost, match=f"{gone} was read once and the log has no such entry any more: {END_LOST}"):
        cursor.assign({0: gone})


def test_a_position_that_was_trimmed_is_taken(log: RedisLog, cursor: CoveredCursor, tmp_path: Path) -> None:
    first, middle, _ = positions(log, 3)
    archive_through(log, Archive(tmp_path / "archive"), 0, middle)

    cursor.assign({0: middle})
    cursor.assign({0: first})


def test_the_engines_log_keeps_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEBODYS_API_KEY", "opaque/key")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = [other := logging.StreamHandler(StringIO())]
    try:
        open_logging(Plan(app="", app_path="", data=str(tmp_path)))
        open_logging(Plan(app="", app_path="", data=str(tmp_path)))
        logger = logging.getLogger("somebody")
        logger.info("asked %s with %d words", "http://ann:hunter2@models.example/v1", 3)
        logger.error("it failed", exc_info=ValueError("the key opaque/key is bad"))
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
    told = (tmp_path / "logs" / "engine.log").read_text()

    for text in (told, other.stream.getvalue()):
        assert "hunter2" not in text
        assert "opaque/key" not in text
        assert "asked http://***@models.example/v1 with 3 words" in text
        assert "ValueError: the key *** is bad" in text
