"""A log that is away, full, read-only, slow or empty; two engines on one log; code that changes; timers overdue."""

from __future__ import annotations

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from msgspec import Raw

from engine.log.errors import LogLost, LogUnavailable
from engine.log.redis_log import RedisLog
from tests.flink import world
from tests.flink.harness import Stage, is_alive
from tests.flink.test_engine import LAPSE, orders
from tests.flink.world import Filled, How, Poked, Signed, Slept, TrialBegun, TroubleBegun, TroubleEnded

pytestmark = [pytest.mark.flink, pytest.mark.redis]

SLEEPERS = int(os.environ.get("LONGWATCH_SLEEPERS", "10000"))


HALTING: tuple[How, ...] = ("raise", "loop", "stubborn")


def is_held(stage: Stage, key: str) -> bool:
    """Whether a run of trouble has halted and one entry waits behind."""
    return len(stage.journal.of("trouble", key)) == 3


def redis_pid(stage: Stage) -> int:
    info = stage.redis("INFO", "server").decode()
    return int(next(line for line in info.splitlines() if line.startswith("process_id:")).partition(":")[2])


def until_refused(stage: Stage, words: str) -> None:
    """Until the log refuses an entry with these words; what it took before stands."""
    (entry,) = stage.entries(TroubleBegun(id="unheard"))
    with pytest.raises(LogUnavailable, match=words):
        stage.until(lambda: stage.log.append(*entry) is None, f"it is refused with {words}")


def test_redis_killed_full_read_only_slow_and_at_last_empty(tmp_path: Path) -> None:
    with Stage(tmp_path, lapse=LAPSE) as stage:
        engine = stage.start()

        stage.send(*orders(40, "killed"), *(TrialBegun(id=f"k{i}", how="brief") for i in range(20)))
        os.kill(redis_pid(stage), signal.SIGKILL)
        stage.until_logged("waiting for it")
        stage.server.ensure()
        stage.until_status("trial", "finished", 20)

        stage.send(*orders(40, "full"), *(TrialBegun(id=f"f{i}", how="brief") for i in range(20)))
        stage.redis("CONFIG", "SET", "maxmemory", 1)
        until_refused(stage, "raise it")
        stage.until_logged("OOM")
        stage.redis("CONFIG", "SET", "maxmemory", 0)
        stage.until_status("trial", "finished", 40)

        stage.send(*orders(40, "read-only"), *(TrialBegun(id=f"r{i}", how="brief") for i in range(20)))
        stage.redis("REPLICAOF", "127.0.0.1", "1")
        until_refused(stage, "read-only replica")
        stage.until_logged("READONLY")
        stage.redis("REPLICAOF", "NO", "ONE")
        stage.until_status("trial", "finished", 60)

        stage.send(*orders(40, "slow"), *(TrialBegun(id=f"s{i}", how="brief") for i in range(20)))
        stage.redis("CLIENT", "PAUSE", 2000)
        stage.until_status("trial", "finished", 80)
        stage.until_status("order", "finished", 160)
        pure = stage.proven()
        assert {key for key, _ in stage.effects()} <= pure.calls
        assert not stage.letters()

        stage.server.stop()
        shutil.move(tmp_path / "redis" / "appendonly.aof", tmp_path / "kept.aof")
        stage.server.ensure()
        failed = engine.wait_for("failed")
        assert "LogLost" in failed["error"]
        assert "it is empty" in failed["error"]
        stage.log.close()
        with pytest.raises(LogLost):
            stage.log.take_lease()

        other = RedisLog.create(stage.server.url, lapse=LAPSE)
        stage.log.close()
        stage.log = other
        for log_id in (stage.plan.log_id if stage.plan else "", ""):
            again = stage.start(wait=False, log_id=log_id)
            assert "LogLost" in again.wait_for("failed")["error"]
            again.wait()
        assert all(other.held("journal", p) == (0, None) for p in range(16))
        other.close()


def test_a_second_engine_is_refused_and_one_that_slept_through_its_replacement_is_fenced(tmp_path: Path) -> None:
    with Stage(tmp_path, lapse=LAPSE) as stage:
        first = stage.start(flink={"heartbeat.timeout": "600 s"})
        run = ["-m", "engine.cli", "run", "--app", "tests.flink.world:application", "--data", str(tmp_path), "--json"]
        second = stage.spawn(run)
        assert second.wait() == 6
        assert f"process {os.getpid()} on" in second.errors.read_text() + str(second.lines)

        stage.send(*orders(60), *(TrialBegun(id=f"t{i}", how="brief") for i in range(60)))
        stage.until_status("order", "waiting", 10)
        asleep = (first.process.pid, stage.jvm)
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        third = stage.start()
        stage.send(*orders(60, "later"))
        stage.until_status("order", "finished", 120)
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        assert "Fenced" in first.wait_for("failed")["error"]
        first.wait()
        assert not is_alive(asleep[1])

        stage.until_status("trial", "finished", 60)
        stage.proven()
        assert third.process.poll() is None
        stage.stop()
        assert stage.start() is not third
        stage.send(*orders(1, "last"))
        stage.until_status("order", "finished", 121)
        stage.proven()


def test_verdicts_outlive_crash_and_fix_and_a_snapshot_that_cannot_be_read_halts_its_run_alone(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        first = stage.start(checkpoint_interval_ms=600_000, handler_timeout_ms=1000)
        stage.send(*(Filled(id=f"f{i}") for i in range(5)))
        for how in HALTING:
            stage.send(TroubleBegun(id=how), Poked(id=how, how=how), Poked(id=how))
            if how != "stubborn":
                stage.until(partial(is_held, stage, how), f"{how} is halted")
        first.wait()  # what cannot be interrupted ends the process
        assert "it did not end, and could not be interrupted" in stage.engine_log()

        stage.start(environment={world.MENDED: "1"}, checkpoint_interval_ms=600_000)
        stage.until(lambda: len(stage.journal.of("trouble", "stubborn")) == 3, "the last one is halted too")
        for how in HALTING:
            halted = stage.journal.of("trouble", how)[1].halted
            assert halted is not None
            assert halted.cause == "event Poked in Calm"
            stage.order("trouble", how, "resume", "mended")
            stage.send(TroubleEnded(id=how))
        stage.until_status("trouble", "finished", 3)
        assert all(stage.journal.of("trouble", how)[-1].data == Raw(b'{"pokes":2}') for how in HALTING)
        stage.stop()

        stage.start(app="tests.flink.world_changed:application")
        stage.send(*(Signed(id=f"f{i}", by=f"hand {i}") for i in range(5)), Filled(id="new"), Signed(id="new", by="me"))
        stage.until_status("form", "halted", 5)
        stage.until_status("form", "finished", 1)
        halted = stage.journal.latest["form", "f0"].halted
        assert halted is not None
        assert "pages" in halted.error
        stage.stop()

        stage.start()
        for i in range(5):
            stage.order("form", f"f{i}", "resume", "the field is gone again")
        stage.until_status("form", "finished", 6)
        assert [stage.journal.latest["form", f"f{i}"].data for i in range(5)] == [
            Raw(b'{"by":"hand %d"}' % i) for i in range(5)
        ]


def test_from_one_subtask_to_two_and_back_nothing_is_lost(tmp_path: Path) -> None:
    with Stage(tmp_path, lapse=LAPSE) as stage:
        for round_, parallelism in enumerate((1, 2, 1)):
            stage.start(backend="rocksdb", parallelism=parallelism)
            stage.send(*orders(60, f"round{round_}-"))
            stage.send(*(TrialBegun(id=f"{round_}.{i}", how="brief") for i in range(60)))
            stage.until_status("order", "waiting", 20)
            if round_ < 2:
                stage.stop()
        stage.until_status("order", "finished", 180)
        stage.until_status("trial", "finished", 180)
        pure = stage.proven()

        assert {key for key, _ in stage.effects()} <= pure.calls
        assert not stage.letters()


def test_timers_overdue_after_downtime_fire_once_at_their_due_time_in_bounded_memory(tmp_path: Path) -> None:
    lapse = 16_000.0 * 10_000 / max(10_000, SLEEPERS)
    with Stage(tmp_path, lapse=lapse) as stage:
        stage.start()
        began = time.monotonic()
        stage.send(*(Slept(id=f"s{i}") for i in range(SLEEPERS)))
        stage.until_status("sleeper", "waiting", SLEEPERS, 600)
        asleep = time.monotonic()
        stage.stop()
        last = max(record.wakes for record in stage.journal.latest.values())
        while stage.log.header.log_time(int(time.time() * 1000)) <= last:
            stage.journal.read(1000)  # nothing comes: it waits on the log

        stage.start()
        awake = time.monotonic()
        stage.until_status("sleeper", "finished", SLEEPERS, 600)
        took = time.monotonic() - awake
        peak = peak_memory(stage.jvm)
        stage.proven()

        fired = [r for r in stage.journal.records if r.cause == "timer"]
        assert len(fired) == len({r.key for r in fired}) == SLEEPERS
        assert all(r.at == r.since or r.to == "Awake" for r in fired)
        begun = {r.key: r.at for r in stage.journal.records if r.cause == "event"}
        assert all(r.at == begun[r.key] + 3 * 86_400_000 for r in fired)
        print(f"{SLEEPERS} asleep in {asleep - began:.1f} s, awake in {took:.1f} s, {peak >> 20} MiB")  # noqa: T201
        assert peak < (1 << 30) + SLEEPERS * 4000


def peak_memory(pid: int) -> int:
    """Bytes that a process had resident at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
