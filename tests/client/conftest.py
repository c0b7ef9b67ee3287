"""A client beside an engine without Flink, on a real log of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.client import Client
from engine.log.archive import Archive
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.settings import Settings
from tests.plain_engine import PlainEngine
from tests.shop import app


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("shared"), fsync="everysec")
    server.ensure()
    yield server
    server.stop()


@pytest.fixture
def log(server: EmbeddedRedis, tmp_path: Path) -> Iterator[RedisLog]:
    from engine.log.redis_wire import Address, Wire  # noqa: PLC0415

    wire = Wire(Address.parse(server.url))
    wire.call("FLUSHALL")
    wire.close()
    log = RedisLog.create(server.url, 4, archive=Archive(tmp_path / "archive"))
    yield log
    log.close()


@pytest.fixture
def engine(log: RedisLog, server: EmbeddedRedis) -> Iterator[PlainEngine]:
    engine = PlainEngine(app, log, server.url)
    yield engine
    engine.close()


@pytest.fixture
async def client(log: RedisLog, server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Client]:
    del log
    async with Client(app, settings=Settings(data=tmp_path, log=server.url)) as client:
        yield client
