from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.limits import Gates, Limit, Pace
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis

QUICK = Pace(
    minute=0.4,
    slack=0.05,
    lease=1.5,
    poll=0.2,
    tell=0.01,
    outages=2,
    first_wait=0.05,
    longest_wait=0.2,
    ease=0.01,
)
"""A minute in less than half a second."""

Open = Callable[..., Gates]


@pytest.fixture(scope="session")
def limits_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One server for all tests that leave it alive."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("limits"), fsync="everysec")
    server.ensure()
    yield server
    server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that the test may stop."""
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    yield server
    server.stop()


@pytest.fixture
def wire(limits_server: EmbeddedRedis) -> Iterator[Wire]:
    """A bare connection to an empty server."""
    wire = Wire(Address.parse(limits_server.url))
    wire.call("FLUSHALL")
    yield wire
    wire.close()


@pytest.fixture
def url(limits_server: EmbeddedRedis, wire: Wire) -> str:
    return limits_server.url


@pytest.fixture
async def gates(url: str) -> AsyncIterator[Open]:
    """Makes started gates, and closes them at the end."""
    async with AsyncExitStack() as stack:
        made: list[Gates] = []

        def make(worker: str, limits: Mapping[str, Limit], pace: Pace = QUICK, epoch: int = 0) -> Gates:
            one = Gates(url, worker, limits, pace=pace, epoch=epoch)
            one.start()
            made.append(one)
            stack.push_async_callback(one.close)
            return one

        yield make
