"""The whole engine, from `longwatch new` to a stop, with everything killed on the way."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data_folder import DataFolder
from engine.log.server import EmbeddedRedis
from tests.cli.conftest import Longwatch

pytestmark = [pytest.mark.flink, pytest.mark.redis]

PATIENCE = 120
ROOT = Path(__file__).parents[2]


class Engine:
    """`longwatch run --json` as a process, and what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder = DataFolder(folder / ".longwatch")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.cli", "run", "--json", "--backend", "heap"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with self._process as process:
            for line in process.stdout or ():
                if line.startswith(b"{"):
                    self._said.put(json.loads(line))

    def hear(self, event: str) -> dict[str, Any]:
        """Wait until it says so."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            said = self._said.get(timeout=PATIENCE)
            if said["event"] == event:
                return said
        raise TimeoutError(event)

    def pid(self, name: str) -> int:
        note = self.folder.read_engine()
        assert note is not None
        return int(getattr(note.pids, name))

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)

    def stop(self) -> int:
        self._process.terminate()
        self._listener.join(60)
        return self._process.wait(1)

    def end(self) -> None:
        self._process.kill()
        self._listener.join()


@pytest.fixture
def shop(longwatch: Longwatch, tmp_path: Path) -> Iterator[Path]:
    longwatch("new", "my-shop")
    yield tmp_path / "my-shop"
    EmbeddedRedis(tmp_path / "my-shop" / ".longwatch").stop()


@pytest.fixture
def engine(shop: Path) -> Iterator[Engine]:
    engine = Engine(shop)
    yield engine
    engine.end()


def test_an_order_survives_every_kill_and_the_engine_stops_cleanly(
    longwatch: Longwatch, shop: Path, engine: Engine
) -> None:
    engine.hear("running")
    placed = longwatch("send", "events/order-placed.json", "--until-rest", "--timeout", "60", folder="my-shop")
    assert placed.returncode == 0, placed.stderr

    second = longwatch("run", folder="my-shop")
    assert second.returncode == 6
    assert "a log has one engine" in second.stderr

    engine.kill("driver")
    engine.hear("running")
    engine.kill("jvm")
    engine.hear("running")
    engine.kill("redis")
    engine.hear("redis")
    paid = longwatch("send", "events/payment-received.json", "--until-rest", "--timeout", "60", folder="my-shop")
    assert paid.returncode == 0, paid.stderr

    status = json.loads(longwatch("status", "--json", folder="my-shop").stdout)
    assert status["running"]
    assert status["runs"] == {"finished": 1}
    assert status["log"]["fsync"] == "always"
    assert "◉ Shipped" in longwatch("diagram", "--run", "order/1001", folder="my-shop").stdout

    pids = [engine.pid(name) for name in ("driver", "jvm", "redis")]
    assert engine.stop() == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    note = engine.folder.read_engine()
    assert note is not None
    assert note.stopped > 0


def test_a_killed_supervisor_takes_the_others_with_it_and_the_next_one_goes_on(
    longwatch: Longwatch, shop: Path, engine: Engine
) -> None:
    engine.hear("running")
    longwatch("send", "events/order-placed.json", "--until-rest", "--timeout", "60", folder="my-shop")
    pids = [engine.pid("driver"), engine.pid("jvm")]

    engine.end()

    until = time.monotonic() + 5
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    after = Engine(shop)
    after.hear("running")
    paid = longwatch("send", "events/payment-received.json", "--until-rest", "--timeout", "60", folder="my-shop")
    assert paid.returncode == 0, paid.stderr
    assert after.stop() == 0
