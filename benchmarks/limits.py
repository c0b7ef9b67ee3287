"""What limits cost: a hundred thousand that wait, and how quickly calls pass.

Usage: python -m benchmarks.limits [--json]
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.processes import TICK_MS
from engine.limits import Gates, Limit, Pass
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis

NAME = "model:busy"
WAITERS = 100_000
SECONDS = 5.0
CALLS = 20_000


@dataclass
class Costs:
    """All that is measured."""

    waiters: int = WAITERS
    queued_s: float = 0.0
    """To put them all into the queue."""
    bytes_per_waiter: float = 0.0
    waiting_cpu_percent: float = 0.0
    """Of a core, while all wait for a slot that somebody else has; the worker's process."""
    waiting_server_cpu_percent: float = 0.0
    calls_per_s: float = 0.0
    """Through one gate of one worker, 100 at once, each of no length."""
    cpu_us_per_call: float = 0.0
    shared_calls_per_s: float = 0.0
    """Two workers on one limit, each handing its slots to the other."""
    free_us_per_call: float = 0.0
    """A name without a limit."""


async def waiting(server: EmbeddedRedis, costs: Costs) -> None:
    limits = {NAME: Limit(calls=1, requests=1_000_000, tokens=1_000_000_000)}
    async with (
        Gates(server.url, "holder", limits) as holder,
        Gates(server.url, "queue", limits) as queue,
        holder.passing(NAME, owner="holder"),
    ):
        before, began = _memory(), time.perf_counter()
        for number in range(WAITERS):
            queue.admit(NAME, number, _never, owner=number, tokens=1000)
        costs.queued_s = time.perf_counter() - began
        costs.bytes_per_waiter = (_memory() - before) / WAITERS
        await asyncio.sleep(1)
        pid, cpu = _pid(server), time.process_time()
        server_ms = _cpu_ms(pid)
        await asyncio.sleep(SECONDS)
        costs.waiting_cpu_percent = (time.process_time() - cpu) / SECONDS * 100
        costs.waiting_server_cpu_percent = (_cpu_ms(pid) - server_ms) / SECONDS / 10
        for number in range(WAITERS):
            queue.cancel(number)


async def passing(server: EmbeddedRedis, costs: Costs) -> None:
    limits = {NAME: Limit(calls=100, requests=1_000_000)}
    async with Gates(server.url, "one", limits) as one:
        began, cpu = time.perf_counter(), time.process_time()
        await _through([one], CALLS)
        costs.calls_per_s = CALLS / (time.perf_counter() - began)
        costs.cpu_us_per_call = (time.process_time() - cpu) / CALLS * 1e6
    async with Gates(server.url, "one", limits) as one, Gates(server.url, "two", limits) as two:
        began = time.perf_counter()
        await _through([one, two], CALLS)
        costs.shared_calls_per_s = CALLS / (time.perf_counter() - began)
        began = time.perf_counter()
        for number in range(CALLS):
            one.admit("step:free", number, _end, owner=number)
        costs.free_us_per_call = (time.perf_counter() - began) / CALLS * 1e6


async def _through(workers: list[Gates], calls: int) -> None:
    """Let so many calls pass, each ended in the turn of the loop after the one in which it passed."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    left = calls

    def passed(_: int, leave: Pass) -> None:
        loop.call_soon(end, leave)

    def end(leave: Pass) -> None:
        nonlocal left
        leave.end()
        left -= 1
        if not left:
            done.set()

    for number in range(calls):
        workers[number % len(workers)].admit(NAME, number, passed, owner=number)
    await done.wait()


def _never(number: int, leave: Pass) -> None:
    msg = f"{number} passed {leave.name}"
    raise AssertionError(msg)


def _end(_: int, leave: Pass) -> None:
    leave.end()


def _memory() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _pid(server: EmbeddedRedis) -> int:
    wire = Wire(Address.parse(server.url))
    lines = wire.call("INFO", "server").decode().splitlines()
    wire.close()
    return int(next(line.split(":")[1] for line in lines if line.startswith("process_id:")))


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_MS


def main() -> None:
    costs = Costs()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedRedis(Path(folder))
        server.ensure()
        try:
            asyncio.run(waiting(server, costs))
            asyncio.run(passing(server, costs))
        finally:
            server.stop()
    if "--json" in sys.argv:
        print(json.dumps(asdict(costs)))
    else:
        for name, value in asdict(costs).items():
            print(f"{name:28} {value:>12,.2f}")


if __name__ == "__main__":
    main()
