"""A real engine for tests: a Redis, a log in it, and processes that are started, killed and started again.

Nothing here sleeps and hopes: whatever is waited for is read from the journal, the log or a process's own words.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Raw

from engine import Application, Event
from engine.core.entry import OrderEntry, write_entry
from engine.core.ids import RunId
from engine.core.partition import partition_of
from engine.core.record import CloudEvent, DeadLetter, Record, read_letter, read_record
from engine.core.transition import Rules
from engine.flink.plan import Plan, write_plan
from engine.log.archive import Archive
from engine.log.errors import LogUnavailable
from engine.log.lease import Lease
from engine.log.protocol import Item, Position, Receipt, Topic, order_of
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire
from engine.log.server import EmbeddedRedis
from tests.flink import world
from tests.flink.refold import Refold, refold, stored_outputs

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get("LONGWATCH_PATIENCE", "120"))
"""Seconds that a test waits for anything: two cores may be shared."""


class ProcessEnded(AssertionError):
    """The engine ended while something else was waited for."""


class Speaking:
    """A child process that says what happens, one JSON object a line on its standard output."""

    def __init__(self, command: list[str], errors: Path, environment: dict[str, str]) -> None:
        self.errors = errors
        with errors.open("ab") as sink:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, **environment},
            )
        self.lines: list[dict[str, Any]] = []
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, what: str, seconds: float = PATIENCE, field: str = "driver") -> dict[str, Any]:
        """The next line that says so."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {what!r} within {seconds} s; it said {self.lines[-5:]}") from None
            if line is None:
                raise ProcessEnded(f"ended before {what!r}; it said {self.lines[-3:]}; {self._last_words()}")
            if line.get(field) == what:
                return line

    def wait(self, seconds: float = PATIENCE) -> int:
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _last_words(self) -> str:
        return self.errors.read_text(errors="replace")[-1500:]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(msgspec.DecodeError):
                self.lines.append(msgspec.json.decode(line))
                self._queue.put(self.lines[-1])
        self._queue.put(None)


class Latest(dict[tuple[str, str], Record]):
    """The last record of each run; a blank one for a run that has none."""

    def __missing__(self, run: tuple[str, str]) -> Record:
        nothing = Position("0-0")
        return Record(workflow=run[0], key=run[1], run=RunId(""), version=0, seq=0, at=0, entry=nothing, cause="order")


class Journal:
    """The journal as far as it was read, followed."""

    def __init__(self, log: RedisLog) -> None:
        self._log = log
        self._after: dict[int, str | None] = dict.fromkeys(range(log.header.partitions))
        self.records: list[Record] = []
        self.latest = Latest()
        self.statuses: Counter[tuple[str, str]] = Counter()
        """Runs by workflow and status."""

    def read(self, wait_ms: int = 100) -> None:
        """Take in what has come; waits when there is nothing."""
        try:
            found = self._log.follow("journal", self._after, wait_ms, 5000)
        except LogUnavailable:
            time.sleep(0.05)  # Redis is away: there is nothing to wait on
            return
        for partition, items in found.items():
            self._after[partition] = items[-1].id
            for item in items:
                self._take(read_record(item.payload))

    def of(self, workflow: str, key: str) -> list[Record]:
        return [r for r in self.records if (r.workflow, r.key) == (workflow, key)]

    def _take(self, record: Record) -> None:
        key = record.workflow, record.key
        if key in self.latest:
            self.statuses[record.workflow, self.latest[key].status] -= 1
        self.statuses[record.workflow, record.status] += 1
        self.latest[key] = record
        self.records.append(record)


class Stage:
    """A data folder with a Redis and a log. Use it as a context manager: all that it started ends with it."""

    def __init__(self, data: Path, *, lapse: float = 1.0, application: Application = world.application) -> None:
        self.data = data
        self.application = application
        self.server = EmbeddedRedis(data)
        self.server.ensure()
        self.archive = Archive(data / "archive")
        self.log = RedisLog.create(self.server.url, lapse=lapse, archive=self.archive)
        self.journal = Journal(self.log)
        self.receipts: list[Receipt] = []
        self.engine: Speaking | None = None
        self.lease: Lease | None = None
        self.plan: Plan | None = None
        self._all: list[Speaking] = []
        self._sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._all:
            process.close()
        self.log.close()
        started = self.server._process
        self.server.stop()
        if started is not None:
            started.wait(10)  # it may have been killed, and another have taken its place

    # -- the engine

    def start(self, *, environment: dict[str, str] | None = None, wait: bool = True, **changes: Any) -> Speaking:
        """Take the log and start a driver on it."""
        self.lease = self.log.take_lease()
        settings = {
            "app": "tests.flink.world:application",
            "app_path": str(ROOT),
            "data": str(self.data),
            "log_url": self.server.url,
            "log_id": self.log.header.log_id,
            "epoch": self.lease.epoch,
            "partitions": self.log.header.partitions,
            "lapse": self.log.header.lapse,
            "backend": "heap",
            "checkpoint_interval_ms": 500,
            "managed_memory": "64mb",
            "heap": "512m",
        }
        self.plan = Plan(**{**settings, **changes})
        path = self.data / f"plan-{self.lease.epoch}.json"
        write_plan(self.plan, path)
        self.engine = self.spawn(["-m", "engine.flink.driver", "--plan", str(path)], environment)
        if wait:
            self.engine.wait_for("running")
        return self.engine

    def spawn(self, arguments: list[str], environment: dict[str, str] | None = None) -> Speaking:
        told = {world.FOLDER: str(self.data), **(environment or {})}
        process = Speaking([sys.executable, *arguments], self.data / "driver.err", told)
        self._all.append(process)
        return process

    def stop(self) -> str:
        """Stop with a savepoint; where it is."""
        assert self.engine is not None
        self.engine.process.send_signal(signal.SIGTERM)
        line = self.engine.wait_for("stopped")
        assert self.engine.wait() == 0
        assert line["savepoint"], line
        return str(line["savepoint"])

    @property
    def jvm(self) -> int:
        """The process of the engine that was started last."""
        assert self.engine is not None
        return int(next(line["jvm_pid"] for line in self.engine.lines if line["driver"] == "running"))

    def engine_log(self) -> str:
        path = self.data / "logs" / "engine.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- the log

    def entries(self, *events: Event) -> list[tuple[int, bytes]]:
        """What a sender appends for these events, each with an id of its own."""
        found = []
        for event in events:
            self._sent += 1
            envelope = CloudEvent(
                id=f"e{self._sent}",
                source="test",
                type=type(event).__name__,
                data=Raw(event.model_dump_json().encode()),
            )
            taken = self.application.entries(event, envelope)
            found += [(self.partition(entry.workflow, entry.key), write_entry(entry)) for entry in taken]
        return found

    def send(self, *events: Event) -> list[Receipt]:
        """Append events in chunks; their receipts."""
        entries = self.entries(*events)
        receipts = []
        for start in range(0, len(entries), 1000):
            receipts += self.log.append_many(entries[start : start + 1000])
        self.receipts += receipts
        return receipts

    def order(self, workflow: str, key: str, order: Any, why: str = "test") -> Receipt:
        entry = OrderEntry(workflow, key, order, who="operator", why=why)
        return self.log.append(self.partition(workflow, key), write_entry(entry))

    def partition(self, workflow: str, key: str) -> int:
        return partition_of(workflow, key, self.log.header.partitions)

    def letters(self) -> dict[Position, DeadLetter]:
        return {letter.entry: letter for letter in (read_letter(i.payload) for _, i in self.items("dead"))}

    def items(self, topic: Topic) -> Iterator[tuple[int, Item]]:
        for partition in range(self.log.header.partitions):
            for item in self.log.scan(topic, partition):
                yield partition, item

    def redis(self, *arguments: bytes | str | int) -> Any:
        """A command for the server itself."""
        wire = Wire(Address.parse(self.server.url))
        try:
            return wire.call(*arguments)
        finally:
            wire.close()

    # -- waiting

    def until(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Read the journal until something holds."""
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                raise AssertionError(f"not within {seconds} s: {what}; {dict(self.journal.statuses)}; {self._words()}")
            self._check_alive(what)
            self.journal.read()

    def until_status(self, workflow: str, status: str, count: int, seconds: float = PATIENCE) -> None:
        """Until so many runs of a workflow are so."""
        what = f"{count} runs of {workflow} {status}"
        self.until(lambda: self.journal.statuses[workflow, status] >= count, what, seconds)

    def until_quiet(self, seconds: float = PATIENCE) -> None:
        """Until every entry has been folded and no call runs."""
        self.until(lambda: self._all_passed() and not self._running(), "everything folded and at rest", seconds)

    def until_logged(self, words: str, seconds: float = PATIENCE) -> None:
        """Until the engine's log file says something."""
        self.until(lambda: words in self.engine_log(), f"{words!r} in engine.log", seconds)

    def _running(self) -> bool:
        return any(count for (_, status), count in self.journal.statuses.items() if status == "running")

    def _all_passed(self) -> bool:
        try:
            passed: dict[int, Position] = {}
            for publication in self.log.publications():
                passed.update(publication.positions)
            tails = {p: self.log.tail(p) for p in range(self.log.header.partitions)}
        except LogUnavailable:
            return False
        return all(tail is None or order_of(passed.get(p, "0-0")) >= order_of(tail) for p, tail in tails.items())

    def _check_alive(self, what: str) -> None:
        if self.engine is not None and self.engine.process.poll() is not None:
            raise ProcessEnded(f"the engine ended before {what}; it said {self.engine.lines[-2:]}; {self._words()}")

    def _words(self) -> str:
        return self.engine_log()[-1500:]

    # -- the proof

    def proven(self, application: Application | None = None) -> Refold:
        """Fold everything again and compare: journal and outbox byte for byte, effects by idempotency key."""
        self.until_quiet()
        plan = self.plan or Plan(app="", app_path="", data="")
        pure = refold(self.log, application or self.application, Rules(plan.early_hold_ms, plan.retention_ms))
        stored = stored_outputs(self.log)
        for topic in ("journal", "outbox"):
            missing = pure.outputs[topic].keys() - stored[topic].keys()
            extra = stored[topic].keys() - pure.outputs[topic].keys()
            assert not missing, f"{topic}: {len(missing)} missing, such as {min(missing)}"
            assert not extra, f"{topic}: {len(extra)} too many, such as {min(extra)}"
            for place, payload in pure.outputs[topic].items():
                assert stored[topic][place] == payload, f"{topic} {place}"
        for place, payload in pure.outputs["dead"].items():
            assert stored["dead"][place] == payload, f"dead {place}"
        return pure

    def effects(self) -> Counter[tuple[str, str]]:
        """How often each call was tried: (idempotency key, name)."""
        lines = (self.data / world.EFFECTS).read_text().splitlines()
        return Counter((line.split(" ", 2)[0], line.split(" ", 2)[2]) for line in lines)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
