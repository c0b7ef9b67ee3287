"""How long `longwatch trace` takes for one run with many entries among a million: with Python's start and all.

python -m benchmarks.lookup [--records 1000000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import msgspec

from benchmarks import exporting, load, pure
from benchmarks.bench import Bench, Options
from benchmarks.workload import application
from engine.core.entry import read_entry
from engine.core.ids import Position
from engine.core.partition import partition_of
from engine.core.record import write_record
from engine.core.transition import Place, transition
from engine.log.archive import Archive
from engine.log.janitor import archive_through
from engine.log.protocol import output_id, place_of
from engine.log.redis_keys import stream
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire, encode
from engine.log.server import EmbeddedRedis
from engine.view.follower import Follower
from engine.view.projector import Projector

WORKFLOW = "claim-3step"
BATCH = "looked-for"
KEY = f"c-{BATCH}-0"
ENTRIES = 200
RECORDS_OF_A_RUN = 4
ROUNDS = 3


@dataclass(frozen=True)
class Lookup:
    """One run's trace, put together and printed by the command."""

    records: int
    """Of the whole journal, half of them in the archive."""
    entries: int
    """Of the run, spread evenly over it."""
    seconds: float
    """The median of three."""
    steal_percent: float


def measure(bench: Bench, records: int = 1_000_000) -> Lookup:
    """Fill a journal, archive half of it, project the view, and ask."""
    data = bench.folder / "lookup"
    data.mkdir(parents=True)
    server = EmbeddedRedis(data, fsync="everysec")
    server.ensure()
    try:
        with bench.phase(f"a journal of {records:,} records"):
            _fill(server.url, data, records)
        with bench.phase("trace of one run") as phase:
            took = sorted(_ask(data) for _ in range(ROUNDS))
    finally:
        server.stop()
    return Lookup(records, ENTRIES, took[ROUNDS // 2], phase.steal_percent)


def _ask(data: Path) -> float:
    began = time.perf_counter()
    words = [sys.executable, "-m", "engine.cli", "trace", f"{WORKFLOW}/{KEY}", "--data", str(data), "--json"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _fill(url: str, data: Path, records: int) -> None:
    archive = Archive(data / "archive")
    log = RedisLog.create(url, load.PARTITIONS, archive=archive)
    with closing(log), closing(Wire(Address.parse(url))) as wire:
        requests = (encode("XADD", stream("journal", each), item, "e", raw) for each, item, raw in _journal(records))
        while chunk := list(islice(requests, exporting.AT_ONCE)):
            wire.call_all(chunk)
        for partition in range(load.PARTITIONS):
            held = list(log.scan_held("journal", partition, None, "+"))
            if held:
                archive_through(log, archive, partition, place_of(held[len(held) // 2].id)[0])
        projector = Projector(data / "view.sqlite", log.header.log_id)
        with closing(projector):
            Follower(log, projector).catch_up()


def _journal(records: int) -> Iterator[tuple[int, str, bytes]]:
    """Records of many runs, and between them those of the one that is looked for."""
    runs = (records - ENTRIES) // RECORDS_OF_A_RUN
    apart = runs // ENTRIES
    looked_for = _looked_for(10 * apart)
    for number in range(runs):
        yield from exporting.records_of(number)
        if number % apart == 0:
            yield from islice(looked_for, 1)


def _looked_for(apart_ms: int) -> Iterator[tuple[int, str, bytes]]:
    """A run of which every entry but the first is a repeat; each leaves a record."""
    partition = partition_of(WORKFLOW, KEY, load.PARTITIONS)
    _, event = load.filed(0, BATCH)
    entry = read_entry(event)
    stored: bytes | None = None
    for number in range(ENTRIES):
        now = pure.START_MS + 1_000_000 + number * apart_ms + 9
        place = Place(partition, Position(f"{now}-0"), now)
        reaction = transition(application.workflows[WORKFLOW], stored, entry, place)
        stored = reaction.stored
        for index, record in enumerate(reaction.records):
            yield partition, output_id(place.position, index), write_record(record)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    given = parser.parse_args()
    with Bench(Options()) as bench:
        print(msgspec.json.encode(asdict(measure(bench, given.records))).decode())


if __name__ == "__main__":
    main()
