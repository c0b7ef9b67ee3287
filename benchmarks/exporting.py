"""What it costs to export traces: the exporter alone, the flood beside it, the latency beside it.

python -m benchmarks.exporting [--spans 1000000] [--cost] [--latency 30] [--json]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from msgspec import Raw

from benchmarks import flood, latency, load, processes, pure
from benchmarks.bench import Bench, Options, say
from benchmarks.engine_process import EngineProcess
from benchmarks.flood import Flood
from benchmarks.latency import Latency
from benchmarks.receiver import Receiver
from benchmarks.workload import TEXT, Outcome, application, fetch_policy
from engine.core.entry import Entry, ResultEntry, read_entry
from engine.core.ids import Position
from engine.core.partition import partition_of
from engine.core.record import Record, write_record
from engine.core.transition import Place, StartCall, transition
from engine.log.archive import Archive
from engine.log.protocol import output_id
from engine.log.redis_keys import stream
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire, encode
from engine.log.server import EmbeddedRedis

SPANS_OF_A_RUN = 13
"""Of three steps: see `observability.projection`."""
AT_ONCE = 1_000
KEY = "c-{:08d}"
WARM_UP_RUNS = 5_000


@dataclass(frozen=True)
class Export:
    """An exporter by itself, from a full journal to a receiver that takes everything."""

    spans: int
    records: int
    spans_per_s: float
    """In a second of one core, its start included: what it can do where it has a core to itself."""
    cpu_seconds: float
    seconds: float
    """On the wall, beside Redis and the receiver."""
    rss_mb: float
    """The most memory that it had."""
    steal_percent: float


@dataclass(frozen=True)
class Cost:
    """Floods side by side, with an exporter beside the engine and without."""

    backend: str
    runs: int
    runs_per_s_without: list[float]
    runs_per_s_with: list[float]
    percent: float
    """How much less the engine does with one: (without - with) / without."""
    caught_up_s: float
    """After the last run's end, until all of its spans were sent."""
    exporter_cpu_ms_per_run: float
    """Until the last run's end."""
    steal_percent: float


@dataclass(frozen=True)
class Beside:
    """Latencies side by side."""

    without: Latency
    with_exporter: Latency


# -- the exporter alone ------------------------------------------------------------------------------------------------


def measure(bench: Bench, spans: int = 1_000_000) -> Export:
    """Fill a journal with runs of three steps, and export it."""
    data = bench.folder / "export"
    data.mkdir(parents=True)
    server = EmbeddedRedis(data, fsync="everysec")
    server.ensure()
    try:
        with bench.phase(f"a journal of {spans:,} spans"):
            fill(server.url, data, spans // SPANS_OF_A_RUN)
        with Receiver() as receiver, bench.phase(f"export of {spans:,} spans") as phase:
            told = export(data, receiver.url)
    finally:
        server.stop()
    return Export(
        told["sent"],
        told["records"],
        told["sent"] / told["cpu_s"],
        told["cpu_s"],
        phase.seconds,
        told["rss_mb"],
        phase.steal_percent,
    )


def export(data: Path, url: str, *more: str) -> dict[str, Any]:
    """Export a whole journal; what the exporter tells at its end."""
    words = [sys.executable, "-m", "observability.exporter", "--data", str(data), "--once", "--endpoint", url, *more]
    told: dict[str, Any] = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    return told


def fill(url: str, data: Path, runs: int) -> None:
    """Put the records of so many runs into the journal, as an engine would."""
    header = RedisLog.create(url, load.PARTITIONS, archive=Archive(data / "archive"))
    with closing(header), closing(Wire(Address.parse(url))) as wire:
        requests = (
            encode("XADD", stream("journal", partition), item, "e", payload)
            for number in range(runs)
            for partition, item, payload in records_of(number)
        )
        while chunk := list(islice(requests, AT_ONCE)):
            wire.call_all(chunk)


def records_of(number: int) -> Iterator[tuple[int, str, bytes]]:
    """The records of one run: partition, id in the journal, bytes. Made of those of a real run, folded once."""
    key = KEY.format(number)
    partition = partition_of("claim-3step", key, load.PARTITIONS)
    for index, payload in enumerate(_template()):
        place = f"{pure.START_MS + 1_000_000 + number * 10 + index}-0"
        prev = f"{pure.START_MS + 1_000_000 + number * 10 + index - 1}-0"
        raw = payload.replace(b"<key>", key.encode()).replace(b"<run>", f"{number:016x}".encode())
        yield partition, output_id(place, 0), raw.replace(b"<entry>", place.encode()).replace(b"<prev>", prev.encode())


@cache
def _template() -> list[bytes]:
    return [_blank(record) for record in _one_run()]


def _one_run() -> Iterator[Record]:
    """A run of three steps, folded."""
    workflow = application.workflows["claim-3step"]
    partition, event = load.filed(0, "template")
    output = Raw(fetch_policy.write_output(Outcome(result=TEXT, score=1)))
    entries: deque[Entry] = deque([read_entry(event)])
    stored: bytes | None = None
    while entries:
        now = pure.START_MS + len(entries)
        reaction = transition(workflow, stored, entry := entries.popleft(), Place(partition, Position(f"{now}-0"), now))
        stored = reaction.stored
        yield from reaction.records
        for command in reaction.commands:
            if isinstance(command, StartCall):
                answer = ResultEntry(
                    entry.workflow, entry.key, command.run, command.id, command.attempt, output, now, 100
                )
                entries.append(answer)


def _blank(record: Record) -> bytes:
    key, run = record.key.encode(), record.run.encode()
    raw = write_record(record)
    raw = raw.replace(f'"entry":"{record.entry}"'.encode(), b'"entry":"<entry>"')
    raw = re.sub(rb'"prev":"[\d-]+/0"', b'"prev":"<prev>/0"', raw)
    return raw.replace(key, b"<key>").replace(run, b"<run>")


# -- beside an engine --------------------------------------------------------------------------------------------------


def cost(bench: Bench, rounds: int = 2) -> Cost:
    """Flood engines in turn, without an exporter and with one that runs at its low priority."""
    without: list[Flood] = []
    beside: list[tuple[Flood, float, float]] = []
    with Receiver() as receiver:
        for _ in range(rounds):
            with Bench(bench.options) as fresh:
                without.append(flood.measure(fresh, bench.options.one_backend, 1))
            with Bench(bench.options) as fresh:
                beside.append(_flood_beside(fresh, receiver.url))
    slow = sum(each.runs_per_s for each, _, _ in beside) / rounds
    fast = sum(each.runs_per_s for each in without) / rounds
    floods = [*without, *(each for each, _, _ in beside)]
    return Cost(
        bench.options.one_backend,
        bench.options.runs,
        [round(each.runs_per_s, 1) for each in without],
        [round(each.runs_per_s, 1) for each, _, _ in beside],
        100 * (fast - slow) / fast,
        max(behind for _, behind, _ in beside),
        sum(cpu for _, _, cpu in beside) / rounds,
        sum(each.steal_percent for each in floods) / len(floods),
    )


def _flood_beside(bench: Bench, url: str) -> tuple[Flood, float, float]:
    """A flood with an exporter: how it went, how much later all was sent, the exporter's CPU ms of a run."""
    backend = bench.options.one_backend
    with bench.engine(f"flood-{backend}-exported", backend=backend, environment={"LONGWATCH_OTLP": url}) as engine:
        engine.start()
        bench.warm_up(engine)
        _await_sent(engine, bench.options.patience)
        poured, spent = flood.pour(bench, engine, backend, 1)
        done = time.monotonic()
        _await_sent(engine, bench.options.patience)
        caught_up = time.monotonic() - done
        engine.stop()
    return poured, caught_up, spent.by_process.get("exporter", 0.0) / bench.options.runs


def _await_sent(engine: EngineProcess, seconds: float) -> None:
    """Wait until the exporter's place is the journal's end."""
    until = time.monotonic() + seconds
    with closing(Wire(Address.parse(engine.url))) as wire:
        while True:
            ends = {each: end for each, end in enumerate(load.ends(wire, "journal")) if end}
            places = _places(engine.data / "exporter.json")
            if all(places.get(str(partition)) == end for partition, end in ends.items()):
                return
            if time.monotonic() > until:
                raise load.TooSlow(f"the exporter was not done within {seconds:.0f} s; see {engine.data}/logs")
            time.sleep(0.2)


def _places(path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(path.read_bytes())["places"] if path.exists() else {}
    return found


def beside(bench: Bench) -> Beside:
    """Measure the latency of a few runs a second, without an exporter and with one."""
    without = latency.measure(bench)
    with Receiver() as receiver:
        settings = {**bench.options.settings, "otlp": receiver.url}
        with Bench(replace(bench.options, settings=settings)) as other:
            return Beside(without, latency.measure(other))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--cost", action="store_true", help="floods with an exporter and without")
    parser.add_argument("--runs", type=int, default=Options().runs, help="of each flood")
    parser.add_argument("--warm-up", type=int, default=Options().warm_up, help="runs before each flood")
    parser.add_argument("--rounds", type=int, default=1, help="floods of each kind")
    parser.add_argument("--backend", default="both", help="heap or rocksdb; otherwise the engine's default")
    parser.add_argument("--latency", type=int, default=0, metavar="SECONDS", help="latency with one and without")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    options = Options(
        runs=given.runs, warm_up=given.warm_up, backend=given.backend, latency_seconds=given.latency or 60
    )
    figures: dict[str, Any] = {}
    with Bench(options) as bench:
        if given.spans:
            figures["export"] = asdict(measure(bench, given.spans))
            figures["export_spans_per_s"] = figures["export"]["spans_per_s"]
            figures["export_rss_mb"] = figures["export"]["rss_mb"]
        if given.cost:
            figures["tracing_cost"] = asdict(cost(bench, given.rounds))
            figures["tracing_cost_percent"] = figures["tracing_cost"]["percent"]
        if given.latency:
            figures["latency"] = asdict(beside(bench))
    say(f"{processes.Host.now().steal} jiffies of steal since the machine began")
    print(json.dumps(figures) if given.json else json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
