"""The proof: an engine under load, killed again and again, ends as if nothing had been.

`make test` kills four times. The whole proof (the engine ten times, driver and JVM alone, Redis three times):
`LONGWATCH_KILLS=10 pytest tests/flink/test_faults_kills.py -s`. The instants are drawn from a seed, which is printed;
`LONGWATCH_SEED` sets it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.record import Record
from engine.data_folder import DataFolder
from engine.log.errors import LogUnavailable
from engine.log.protocol import Receipt, order_of, place_of
from engine.log.redis_log import RedisLog
from tests.flink.harness import PATIENCE, Speaking, Stage
from tests.flink.test_engine import orders
from tests.flink.test_faults import redis_pid
from tests.flink.world import OrderTouched

pytestmark = [pytest.mark.flink, pytest.mark.redis]

ENGINE_KILLS = int(os.environ.get("LONGWATCH_KILLS", "1"))
SEED = int(os.environ.get("LONGWATCH_SEED", str(random.randrange(10**6))))
LAPSE = 8_000.0
"""A day of the log in 10.8 seconds."""
PAUSE = 0.25
BATCH = 10


class Sender(threading.Thread):
    """Sends orders until it is told to stop. What was not acknowledged is sent again, with the same ids."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(name="sender")
        self._stage = stage
        self._log = RedisLog.open(stage.server.url, archive=stage.archive)
        self._enough = threading.Event()
        self.receipts: list[Receipt] = []
        self.repeated = 0
        self.sent = 0

    def run(self) -> None:
        while not self._enough.wait(PAUSE):
            batch = orders(BATCH, f"b{self.sent}-")
            self._append(self._stage.entries(*batch, *(OrderTouched(id=order.id) for order in batch)))
            self.sent += BATCH

    def stop(self) -> None:
        self._enough.set()
        self.join()
        self._log.close()

    def _append(self, entries: list[tuple[int, bytes]]) -> None:
        while True:
            try:
                self.receipts += self._log.append_many(entries)
            except LogUnavailable:
                self.repeated += len(entries)
                time.sleep(PAUSE)  # Redis is away
            else:
                return


class Supervised:
    """`longwatch run` on a stage, started again when it was killed."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.process = self._start()

    def start_again(self) -> None:
        self.process = self._start()

    def until_running(self) -> None:
        self.process.wait_for("running", field="event")

    def pid_of(self, what: str) -> int:
        """Driver or JVM as the engine's note has them; waits until there is one."""
        found = 0
        while not found:
            self._stage.journal.read()
            note = DataFolder(self._stage.data).read_engine()
            if note is not None and note.owner.pid == self.process.process.pid:
                found = note.pids.driver if what == "driver" else note.pids.jvm
        return found

    def _start(self) -> Speaking:
        flags = ["--app", "tests.flink.world:application", "--data", str(self._stage.data), "--json"]
        return self._stage.spawn(
            ["-m", "engine.cli", "run", *flags, "--backend", "heap", "--checkpoint-interval", "1s"]
        )


@contextlib.contextmanager
def load(stage: Stage) -> Iterator[Sender]:
    sender = Sender(stage)
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


def live(stage: Stage, seconds: float) -> None:
    """Let the engine work for so long, reading along."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stage.journal.read()


def kill(what: str, stage: Stage, engine: Supervised) -> None:
    """Kill it; what is not started again by the engine itself is started again here."""
    if what == "engine":
        engine.process.kill()
        engine.start_again()
    elif what == "redis":
        stage.until(stage.server.running, "Redis is back from the last time")
        os.kill(redis_pid(stage), signal.SIGKILL)
    else:
        os.kill(engine.pid_of(what), signal.SIGKILL)
        engine.process.wait_for("restart", field="event")


def plan_of_kills(chance: random.Random) -> list[str]:
    kills = ["engine"] * ENGINE_KILLS + ["driver", "jvm"] + ["redis"] * (3 if ENGINE_KILLS > 1 else 1)
    chance.shuffle(kills)
    return kills


def test_an_engine_that_is_killed_again_and_again_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    said = [f"seed {SEED}"]
    with Stage(tmp_path, lapse=LAPSE) as stage:
        engine = Supervised(stage)
        with load(stage) as sender:
            engine.until_running()
            for what in plan_of_kills(chance):
                instant = chance.uniform(0.1, 3.0)
                live(stage, instant)
                kill(what, stage, engine)
                said.append(f"{what} after {instant:.2f} s")
                if what != "redis" and chance.random() < 0.7:  # otherwise the next kill may hit it while it starts
                    engine.until_running()
        stage.until_status("order", "finished", sender.sent, 5 * PATIENCE)
        pure = stage.proven()

        results = Counter((r.run, r.id) for r in pure.records if r.cause == "result" and r.id and not r.ignored)
        effects = stage.effects()
        assert set(results.values()) == {1}
        assert {f"{run}.{call}" for run, call in results} <= {key for key, _ in effects} <= pure.calls
        check_timers(stage, pure.records)
        check_receipts(stage, sender.receipts)
        assert {r.source for r in pure.records if "a repeat" in r.ignored} <= {"test", "longwatch/order"}
        again = sum(effects.values()) - len(effects)
        said += [
            f"{sender.sent} orders, {pure.entries} entries, {len(pure.records)} records",
            f"{len(results)} results, {again} attempts repeated by kills and retries",
            f"{sender.repeated} entries sent again, {len(pure.outputs['outbox'])} published",
        ]
    print("\n" + "; ".join(said))  # noqa: T201 - the figures of the proof


def check_timers(stage: Stage, records: list[Record]) -> None:
    """Each timer once, at its due time, brought by an entry that is not earlier."""
    timers = [r for r in records if r.workflow == "order" and r.cause == "timer" and r.name.startswith("Resting")]
    assert set(Counter((r.key, r.name, r.at) for r in timers).values()) == {1}
    closed = {r.key for r in timers if r.name == "Resting.close"}
    assert Counter(r.key for r in timers if r.name == "Resting.remind") == dict.fromkeys(closed, 2)
    for _, item in stage.items("journal"):
        position, _ = place_of(item.id)
        assert stage.log.header.log_time(order_of(position)[0]) >= 0
    at = {r.key: r.at for r in timers if r.name == "Resting.close"}
    entered = {r.key: r.at for r in records if r.workflow == "order" and r.to == "Resting" and r.from_ != "Resting"}
    assert at == {key: entered[key] + 86_400_000 for key in closed}


def check_receipts(stage: Stage, receipts: list[Receipt]) -> None:
    """Whatever a sender was given a receipt for stands on the log and has a record."""
    entries = {(partition, item.id) for partition, item in stage.items("log")}
    folded = {(partition, place_of(item.id)[0]) for partition, item in stage.items("journal")}
    lost = [receipt for receipt in receipts if receipt not in entries or receipt not in folded]
    assert not lost, f"{len(lost)} of {len(receipts)} receipts are lost, such as {lost[0]}"
