from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.log.archive import Archive
from engine.log.redis_cursor import RedisCursor
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis

PARTITIONS = 4


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One server for all tests that leave it alive."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("data"), fsync="everysec")
    server.ensure()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that the test may kill."""
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    yield server
    server.stop()


@pytest.fixture
def wire(shared_server: EmbeddedRedis) -> Iterator[Wire]:
    """A bare connection to an empty server."""
    wire = Wire(Address.parse(shared_server.url))
    wire.call("FLUSHALL")
    yield wire
    wire.call("CONFIG", "SET", "maxmemory", "0")
    wire.close()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def url(shared_server: EmbeddedRedis, wire: Wire) -> str:
    return shared_server.url


@pytest.fixture
def log(url: str, archive: Archive) -> Iterator[RedisLog]:
    log = RedisLog.create(url, PARTITIONS, archive=archive)
    yield log
    log.close()


@pytest.fixture
def cursor(url: str, log: RedisLog, archive: Archive) -> Iterator[RedisCursor]:
    cursor = RedisCursor(url, log.take_lease().epoch, archive)
    yield cursor
    cursor.close()
