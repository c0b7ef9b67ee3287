"""A worker process: makes calls through a gate and tells an observer in the server when each begins and ends.

Usage: python -m tests.limits.worker URL WORKER CALLS_AT_ONCE COUNT SECONDS LEASE
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from redis.asyncio import Redis

from engine.limits import Gates, Limit, Pass
from engine.log.redis_wire import Address
from tests.limits.conftest import QUICK

NAME = "model:shared"
ROOT = Path(__file__).parents[2]


async def main(url: str, worker: str, at_once: int, count: int, seconds: float, lease: float) -> None:
    server = Redis(unix_socket_path=Address.parse(url).path)
    done = asyncio.Event()
    left = count

    async def call(leave: Pass) -> None:
        nonlocal left
        await server.lpush("seen", await server.incr("running"))  # type: ignore[misc]
        await server.hincrby("passed", worker)  # type: ignore[misc]
        await asyncio.sleep(seconds)
        await server.decr("running")
        leave.end()
        left -= 1
        if not left:
            done.set()

    tasks = set()
    async with Gates(url, worker, {NAME: Limit(calls=at_once)}, epoch=1, pace=replace(QUICK, lease=lease)) as gates:
        for number in range(count):
            gates.admit(NAME, number, lambda _, leave: tasks.add(asyncio.create_task(call(leave))), owner=number)
        await done.wait()
        await asyncio.gather(*tasks)
    await server.aclose()


def worker_process(
    url: str, worker: str, *, count: int, seconds: float, lease: float = QUICK.lease
) -> subprocess.Popen[bytes]:
    """Start one; three calls at once are allowed."""
    words = [url, worker, "3", str(count), str(seconds), str(lease)]
    return subprocess.Popen([sys.executable, "-m", "tests.limits.worker", *words], cwd=ROOT)


if __name__ == "__main__":
    _, url, worker, at_once, count, seconds, lease = sys.argv
    asyncio.run(main(url, worker, int(at_once), int(count), float(seconds), float(lease)))
