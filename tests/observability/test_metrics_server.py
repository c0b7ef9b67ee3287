"""The process that serves the metrics, on a real Redis without an engine."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.core.record import Record, write_record
from engine.data_folder import DataFolder, EngineFile, now
from engine.instruments import Instruments
from engine.log.archive import Archive
from engine.log.lease import Owner
from engine.log.protocol import output_id
from engine.log.redis_keys import FIELD, stream
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire, encode
from engine.log.server import EmbeddedRedis
from engine.view.projector import Projector
from engine.vitals import FILE, VitalSigns
from observability.tally import Tally
from tests.observability.counted import numbers, record, tally_of

pytestmark = pytest.mark.redis

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


class Journal:
    """A log whose journal a test writes."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.server = EmbeddedRedis(data)
        self.server.ensure()
        self.log = RedisLog.create(self.server.url, 4, archive=Archive(data / "archive"))
        self.wire = Wire(Address.parse(self.server.url))
        self.records: list[Record] = []

    def write(self, *records: Record) -> None:
        """Add them, each to the partition of its key."""
        sent = []
        for each in records:
            place = output_id(f"{1_700_000_000_000 + len(self.records)}-0", 0)
            sent.append(encode("XADD", stream("journal", len(each.key) % 4), place, FIELD, write_record(each)))
            self.records.append(each)
        self.wire.call_all(sent)

    def close(self) -> None:
        self.wire.close()
        self.log.close()
        self.server.stop()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path)) as made:
        yield made


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as ended:
        yield ended


def start(processes: ExitStack, data: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "observability.metrics_server", "--data", str(data), "--listen", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end() -> None:
        with process:
            process.kill()

    processes.callback(end)
    return process


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def scrape(port: int) -> dict[str, float]:
    """The sum of each metric's samples; nothing while nobody answers."""
    with suppress(URLError, ConnectionError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found
    return {}


def awaited(port: int, name: str, value: float) -> dict[str, float]:
    until = time.monotonic() + PATIENCE
    while (found := scrape(port)).get(name) != value:
        assert time.monotonic() < until, f"{name} is {found.get(name)}, and not {value}"
        time.sleep(0.05)
    return found


def some(count: int, chance: random.Random) -> Sequence[Record]:
    return [
        record(key="k" * chance.randint(1, 4), cause="result", name=f"step{chance.randint(0, 3)}", attempt=1, started=1,
               took=chance.randint(1, 10**7))
        for _ in range(count)
    ]  # fmt: skip


def test_kill_dash_nine_at_any_time_loses_nothing_and_doubles_nothing(journal: Journal, processes: ExitStack) -> None:
    chance, port, highest = random.Random(5), free_port(), 0.0
    for _ in range(4):
        process = start(processes, journal.data, port)
        until = time.monotonic() + chance.uniform(1, 5)
        while time.monotonic() < until:
            journal.write(*some(chance.randint(1, 200), chance))
            told = scrape(port).get("longwatch_step_attempts_total", highest)
            assert told >= highest, "what was told once is never taken back"
            highest = told
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    journal.write(*some(100, chance))
    process = start(processes, journal.data, port)
    found = awaited(port, "longwatch_step_attempts_total", len(journal.records))
    process.terminate()

    assert process.wait(20) == 0
    assert found["longwatch_step_duration_seconds_count"] == len(journal.records)
    stored = Tally.read(journal.data / "metrics.json", journal.log.header.log_id)
    assert numbers(stored) == numbers(tally_of(journal.records))
    (journal.data / "metrics.json").unlink()
    start(processes, journal.data, port)
    assert (
        awaited(port, "longwatch_step_attempts_total", len(journal.records)).items()
        >= {
            name: value for name, value in found.items() if name.endswith(("_total", "_count", "_sum", "_bucket"))
        }.items()
    )


def test_a_port_that_is_taken_is_said_once_and_tried_again(journal: Journal, processes: ExitStack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = start(processes, journal.data, port)
        assert process.stdout is not None
        said = process.stdout.readline()
    awaited(port, "longwatch_dead_letters", 0)
    process.terminate()

    assert f"127.0.0.1:{port}" in said
    assert "Address already in use" in said
    assert process.stdout.read() == ""


def test_a_second_one_on_the_same_folder_ends(journal: Journal, processes: ExitStack) -> None:
    port = free_port()
    start(processes, journal.data, port)
    awaited(port, "longwatch_dead_letters", 0)

    second = start(processes, journal.data, free_port())
    assert second.wait(PATIENCE) == 3
    assert second.stdout is not None
    assert "another process serves the metrics" in second.stdout.read()


def test_it_outlives_a_redis_that_goes_and_comes_back(journal: Journal, processes: ExitStack) -> None:
    port = free_port()
    start(processes, journal.data, port)
    journal.write(*some(10, random.Random(1)))
    awaited(port, "longwatch_step_attempts_total", 10)
    journal.wire.close()
    journal.server.stop()
    gone = awaited(port, "longwatch_engine_up", 0)
    journal.server.ensure()
    journal.wire = Wire(Address.parse(journal.server.url))
    journal.write(*some(5, random.Random(2)))

    assert gone["longwatch_step_attempts_total"] == 10
    awaited(port, "longwatch_step_attempts_total", 15)


def test_prometheus_is_told_whom_to_scrape(journal: Journal, processes: ExitStack) -> None:
    engine_runs(journal)
    port = free_port()
    start(processes, journal.data, port)
    awaited(port, "longwatch_engine_up", 1)
    file = journal.data / "targets.json"
    until = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.05)

    assert json.loads(file.read_text()) == [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"job": "longwatch"}},
        {"targets": ["127.0.0.1:9250"], "labels": {"job": "flink"}},
    ]


def test_a_folder_that_takes_no_file_does_not_end_it(journal: Journal, processes: ExitStack) -> None:
    for name in ("targets.json.new", "metrics.json.new"):
        (journal.data / name).mkdir()
    port = free_port()
    process = start(processes, journal.data, port)
    journal.write(*some(10, random.Random(1)))
    awaited(port, "longwatch_step_attempts_total", 10)
    log = journal.data / "logs" / "metrics.log"
    until = time.monotonic() + PATIENCE
    while "targets.json cannot be written" not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    journal.write(*some(5, random.Random(2)))
    awaited(port, "longwatch_step_attempts_total", 15)

    assert process.poll() is None


def test_settings_that_cannot_be_used_are_told(processes: ExitStack, tmp_path: Path) -> None:
    process = start(processes, tmp_path, 99_999)

    assert process.wait(PATIENCE) == 2
    assert process.stdout is not None
    assert "99999" in process.stdout.read()


# -- what is read of an engine that runs -------------------------------------------------------------------------------


def engine_runs(journal: Journal) -> None:
    """What a supervisor leaves in the folder while it runs."""
    note = EngineFile("0.1.0", "a:b", journal.log.header.log_id, Owner.this_process(), now() - 1_000)
    DataFolder(journal.data).write_engine(note)
    signs = VitalSigns(now() + 3_600_000, "running", 2, 1, now() - 500, ("127.0.0.1:9250",))
    (journal.data / FILE).write_bytes(msgspec.json.encode(signs))


@pytest.fixture
def instruments(journal: Journal) -> Iterator[Instruments]:
    with Instruments(journal.log, journal.server.url, journal.data) as made:
        yield made


def test_an_engine_that_runs_is_up_with_all_that_it_tells(journal: Journal, instruments: Instruments) -> None:
    engine_runs(journal)
    readings = instruments.read()

    assert readings.is_up
    assert readings.vitals is not None
    assert (readings.vitals.restarts, readings.vitals.checkpoints_failed) == (2, 1)
    assert readings.checkpoint_age_ms is not None
    assert (readings.view_lag_ms, readings.exporter) == (0, None)


def test_nothing_is_up_where_nothing_ever_ran(instruments: Instruments) -> None:
    readings = instruments.read_whole()

    assert not readings.is_up
    assert readings.figures is not None
    assert readings.figures.lag_ms == 0
    assert (readings.vitals, readings.engine, readings.checkpoint_age_ms) == (None, None, None)


def test_the_view_is_behind_by_the_age_of_what_it_does_not_show(journal: Journal, instruments: Instruments) -> None:
    journal.write(record(to="Review", since=5), record(to="Review", since=5))
    behind = instruments.read().view_lag_ms
    found = journal.log.follow("journal", {1: None}, 0)
    with closing(Projector(journal.data / "view.sqlite", journal.log.header.log_id)) as projector:
        projector.project(found)
    readings = instruments.read_whole()

    assert behind is not None
    assert behind >= now() - 1_700_000_000_000 - 60_000
    assert readings.view_lag_ms == 0
    assert readings.found is not None
    assert readings.found.oldest == {("claims", "Review"): 5}


@pytest.mark.parametrize(("written", "is_up"), [(0, False), (20_000, True), (3_600_000, False)])
def test_the_exporter_is_up_while_it_writes(journal: Journal, written: int, is_up: bool) -> None:
    journal.write(record(), record())
    engine_runs(journal)
    places = {"1": output_id("1700000000000-0", 0)}
    signs = {"at": now() + written - 20_000, "places": places, "sent": 7, "refused": 1, "failures": {"http 503": 2}}
    (journal.data / "exporter.json").write_text(json.dumps(signs))
    with Instruments(journal.log, journal.server.url, journal.data, exports=True) as instruments:
        readings = instruments.read()

    assert readings.exporter is not None
    assert readings.exporter_is_up == is_up
    assert readings.exporter.failures == {"http 503": 2}
    assert readings.exporter_lag_ms is not None
    assert readings.exporter_lag_ms > 0


def test_an_exporter_is_behind_by_what_has_left_the_log_too(journal: Journal) -> None:
    engine_runs(journal)
    signs = {"at": now() - 1_000, "places": {"1": output_id("1700000000000-0", 0)}, "lag_ms": 400_000}
    (journal.data / "exporter.json").write_text(json.dumps(signs))
    with Instruments(journal.log, journal.server.url, journal.data, exports=True) as instruments:
        readings = instruments.read()

    assert readings.exporter_lag_ms is not None
    assert readings.exporter_lag_ms >= 401_000


def test_an_exporter_that_was_switched_off_is_not_told_of(journal: Journal, instruments: Instruments) -> None:
    engine_runs(journal)
    (journal.data / "exporter.json").write_text(json.dumps({"at": now() - 3_600_000}))

    assert instruments.read().exporter is None


def test_what_cannot_be_read_while_the_server_is_away_is_not_told(journal: Journal, instruments: Instruments) -> None:
    engine_runs(journal)
    journal.server.stop()
    readings = instruments.read()

    assert (readings.figures, readings.gates, readings.view_lag_ms) == (None, None, None)
    assert readings.is_up  # its supervisor says so, and will not for long
