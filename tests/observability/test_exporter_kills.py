"""Real exporters over a real journal, killed at any instant: what a collector has in the end is what the log says."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.exporting import SPANS_OF_A_RUN, fill
from engine.core.record import read_record
from engine.log.archive import Archive
from engine.log.janitor import archive_through
from engine.log.protocol import place_of
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from observability import protobuf
from observability.otlp import Encoder, resource_of
from observability.place import ExporterFile, Place
from observability.projection import Projection
from tests.observability.collector import Reply, Store, grpc_collector, http_collector
from tests.observability.exporter_lives import MOST_SPANS

pytestmark = pytest.mark.redis

RUNS = 250
KILLS = int(os.environ.get("LONGWATCH_KILLS", "25"))
Bodies = dict[tuple[str, str], bytes]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A journal of which a part stands in the archive alone."""
    data = tmp_path_factory.mktemp("data")
    server = EmbeddedRedis(data, fsync="everysec")
    server.ensure()
    fill(server.url, data, RUNS)
    archive = Archive(data / "archive")
    with closing(RedisLog.open(server.url, archive)) as log:
        for partition in range(0, log.header.partitions, 2):
            if items := list(log.scan("journal", partition)):
                archive_through(log, archive, partition, place_of(items[len(items) // 2].id)[0])
    yield data
    server.stop()


@pytest.fixture(scope="module")
def expected(data: Path) -> Bodies:
    """The projection of the journal."""
    archive = Archive(data / "archive")
    found: Bodies = {}
    with closing(RedisLog.open(EmbeddedRedis(data).url, archive)) as log:
        encoder = Encoder(Projection(log.header), resource_of(log.header.log_id))
        for partition in range(log.header.partitions):
            for item in log.scan("journal", partition):
                for element in encoder.spans(read_record(item.payload)):
                    span = Span.FromString(protobuf.message(element, 2))
                    body = span.SerializeToString(deterministic=True)
                    assert found.setdefault((span.trace_id.hex(), span.span_id.hex()), body) == body
    assert len(found) == RUNS * SPANS_OF_A_RUN
    return found


@pytest.fixture(autouse=True)
def _anew(data: Path) -> None:
    (data / "exporter.json").unlink(missing_ok=True)


def received(store: Store) -> Bodies:
    return {name: bodies[0] for name, bodies in store.bodies.items()}


def export(data: Path, url: str, *more: str) -> dict[str, int]:
    words = [sys.executable, "-m", "observability.exporter", "--data", str(data), "--once", "--endpoint", url, *more]
    told: dict[str, int] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=120).stdout)
    return told


def eventually(happens: Callable[[], object], seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def file_of(data: Path) -> ExporterFile:
    log_id = json.loads((data / "exporter.json").read_bytes())["log_id"]
    return Place(data / "exporter.json").read(log_id)


def test_a_journal_gets_there_whole_and_once(data: Path, expected: Bodies) -> None:
    store = Store()
    with http_collector(store) as url:
        told = export(data, url)
        again = export(data, url)

    assert received(store) == expected
    assert store.doubled == {}
    assert told["sent"] == len(expected)
    assert again["sent"] == told["sent"]  # a counter: nothing was added
    file = file_of(data)
    assert sum(file.records.values()) == RUNS * 4
    assert (file.lag_ms, file.lag_records, file.last_error, file.endpoint) == (0, 0, "", f"{url}")


def test_the_past_is_sent_again_from_the_archive_with_the_same_bytes(data: Path, expected: Bodies) -> None:
    first, second = Store(), Store()
    with http_collector(first) as url:
        export(data, url)
    before = (data / "exporter.json").read_bytes()
    with grpc_collector(second) as url:
        export(data, url, "--from-start", "--protocol", "grpc")

    assert received(second) == received(first) == expected
    assert (data / "exporter.json").read_bytes() == before


def test_a_rule_may_be_applied_to_the_past(data: Path, expected: Bodies) -> None:
    store = Store()
    with http_collector(store) as url:
        export(data, url, "--from-start", "--rule", "10%")

    found = received(store)
    assert found.items() < expected.items()
    assert len(found) % SPANS_OF_A_RUN == 0
    assert len(found) > 0


@pytest.mark.parametrize("seed", [1])
def test_killed_at_any_instant_it_loses_nothing_and_sends_only_the_last_batch_twice(
    data: Path, expected: Bodies, seed: int
) -> None:
    chance = random.Random(seed)
    store = Store()

    def behave(_spans: list[Span]) -> Reply | None:
        if chance.random() < 0.1:
            return Reply(status=503, headers={"retry-after": "0"})
        return Reply(slow=0.005) if chance.random() < 0.5 else None

    store.behave = behave
    copies = 0
    with (
        http_collector(store) as url,
        subprocess.Popen(
            [sys.executable, "-m", "tests.observability.exporter_lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as lives,
    ):
        assert lives.stdin
        assert lives.stdout
        killed = 0
        for _ in range(KILLS):
            lives.stdin.write(f"--data {data} --once --endpoint {url}\n".encode())
            lives.stdin.flush()
            child = int(lives.stdout.readline())
            wanted = len(store.requests) + chance.randrange(4)
            store.wait(lambda store, wanted=wanted: len(store.requests) >= wanted, 5)  # type: ignore[misc]
            time.sleep(chance.random() * 0.01)
            os.kill(child, signal.SIGKILL)
            killed += int(lives.stdout.readline()) == -signal.SIGKILL
        lives.stdin.write(f"--data {data} --once --endpoint {url}\n".encode())
        lives.stdin.close()
        lives.stdout.readline()
        code = int(lives.stdout.readline())
    copies = sum(len(bodies) - 1 for bodies in store.bodies.values())

    assert code == 0
    assert killed > KILLS // 2
    assert received(store) == expected
    assert store.differing == []
    assert copies <= killed * MOST_SPANS


def test_beside_an_engine_it_waits_for_a_collector_that_is_down_and_ends_when_told_to(
    data: Path, expected: Bodies
) -> None:
    store = Store()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = data / "logs" / "exporter.log"
    log.unlink(missing_ok=True)
    words = [
        sys.executable,
        "-m",
        "observability.exporter",
        "--data",
        str(data),
        "--endpoint",
        f"http://127.0.0.1:{port}",
    ]
    with subprocess.Popen(words) as process:
        assert eventually(lambda: log.exists() and "takes no spans (connection refused)" in log.read_text())
        assert eventually(lambda: (data / "exporter.json").exists() and file_of(data).last_error)
        waiting = file_of(data)
        priority = os.getpriority(os.PRIO_PROCESS, process.pid)
        with http_collector(store, port):
            store.wait(lambda store: len(store.bodies) == len(expected), 60)
            process.terminate()
            code = process.wait(30)

    assert code == 0
    assert received(store) == expected
    assert (waiting.last_error, waiting.sent, waiting.places) == ("connection refused", 0, {})
    assert waiting.failures["connection refused"] > 0
    assert waiting.lag_ms > 0
    assert priority >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert sum(file_of(data).records.values()) == RUNS * 4
    assert file_of(data).last_error == ""
    assert "is back after" in log.read_text()


def test_told_to_end_while_the_collector_is_down_it_ends_and_the_next_one_sends(data: Path, expected: Bodies) -> None:
    words = [sys.executable, "-m", "observability.exporter", "--data", str(data), "--endpoint", "http://127.0.0.1:1"]
    with subprocess.Popen(words) as process:
        assert eventually(lambda: (data / "exporter.json").exists() and file_of(data).failures)
        process.terminate()
        code = process.wait(30)
    store = Store()
    with http_collector(store) as url:
        export(data, url)

    assert code == 1
    assert received(store) == expected


def test_only_one_exporter_moves_a_place(data: Path) -> None:
    store = Store()
    store.behave = lambda _spans: Reply(slow=0.05)
    with http_collector(store) as url:
        words = [sys.executable, "-m", "observability.exporter", "--data", str(data), "--once", "--endpoint", url]
        with (data / "exporter.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            other = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    assert other.returncode == 3
    assert f"another exporter works on {data}: end it, or take --from-start" in other.stderr
    assert store.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is no collector: set otlp, or give --endpoint URL"),
        (("--endpoint", "nowhere"), "otlp = 'nowhere' is not allowed"),
        (("--endpoint", "http://x", "--rule", "best"), "is no part of a rule for traces"),
    ],
)
def test_settings_that_cannot_be_used_are_told(
    tmp_path: Path, words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LONGWATCH_OTLP", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "observability.exporter", "--data", str(tmp_path), *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert found.returncode == 2
    assert said in found.stderr
