"""A driver in a process of its own, and what it says."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.flink.plan import Plan, write_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


def counting_plan(data: Path, **changes: Any) -> Plan:
    plan = Plan(
        app="tests.flink.counting:app",
        app_path=str(ROOT),
        job="tests.flink.counting:build",
        data=str(data),
        partitions=4,
        checkpoint_interval_ms=300,
        managed_memory="64mb",
        java=("-XX:TieredStopAtLevel=1",),  # half the CPU of a start; nothing here runs long enough to miss the rest
    )
    return msgspec.structs.replace(plan, **changes)


class RunningDriver:
    def __init__(self, plan: Plan) -> None:
        path = plan.folder("flink") / "plan.json"
        write_plan(plan, path)
        command = [sys.executable, "-m", "engine.flink.driver", "--plan", str(path)]
        self.data = Path(plan.data)
        self._errors = (self.data / "driver.err").open("a")
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self.lines: list[dict[str, Any]] = []
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, *kinds: str, seconds: float = 180.0) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while True:
            line = self._queue.get(timeout=max(0.01, until - time.monotonic()))
            assert line is not None, f"the driver ended; it said {self.lines}; {self.errors()}"
            if line["driver"] in kinds:
                return line
            assert line["driver"] != "failed", line

    def stop(self) -> dict[str, Any]:
        self.process.send_signal(signal.SIGTERM)
        line = self.wait_for("stopped")
        assert self.process.wait(30) == 0
        return line

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                pipe.close()

    def errors(self) -> str:
        return (self.data / "driver.err").read_text()[-2000:]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            self._queue.put(self.lines[-1])
        self._queue.put(None)


@contextlib.contextmanager
def driver(plan: Plan) -> Iterator[RunningDriver]:
    running = RunningDriver(plan)
    try:
        yield running
    finally:
        running.close()


def outputs(data: Path, partition: int) -> list[dict[str, Any]]:
    path = data / f"out-{partition}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def eventually(holds: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
