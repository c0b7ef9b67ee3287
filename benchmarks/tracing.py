"""How fast spans are made: records' bytes in, OTLP's bytes out, in one process and without a network.

python -m benchmarks.tracing [--runs 20000] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TypeVar

from benchmarks import exporting
from engine.core.record import read_record
from engine.log.protocol import Header
from observability.otlp import Encoder, resource_of
from observability.projection import Projection

T = TypeVar("T")
ORIGIN = 1_700_000_000_000
RUNS = 20_000
BATCH = 2_000
"""Spans of a request, as the exporter sends them."""


@dataclass(frozen=True)
class Making:
    """Spans made of the records of runs of three steps; seconds are of one core."""

    spans: int
    records: int
    spans_per_s: float
    read_us: float
    """Of each span: reading its share of a record."""
    make_us: float
    """What a span is, and its ids."""
    write_us: float
    """Its bytes, and those of the request around it."""
    bytes_of_a_span: float
    bytes_of_a_record: float


def measure(runs: int = RUNS) -> Making:
    """Do it a step after the other, so that each is told, and all at once for the figure that counts."""
    payloads = [raw for number in range(runs) for _, _, raw in exporting.records_of(number)]
    projection = Projection(Header("benchmark", 16, ORIGIN))
    encoder = Encoder(projection, resource_of("benchmark", {}))
    _make(encoder, payloads[: len(payloads) // 10])
    read, _ = _timed(lambda: [read_record(raw) for raw in payloads])
    records = [read_record(raw) for raw in payloads]
    make, made = _timed(lambda: sum(len(projection.drafts(record)) for record in records))
    whole, size = _timed(lambda: _make(encoder, payloads))
    return Making(
        spans=made,
        records=len(payloads),
        spans_per_s=made / whole,
        read_us=1e6 * read / made,
        make_us=1e6 * make / made,
        write_us=1e6 * (whole - read - make) / made,
        bytes_of_a_span=size / made,
        bytes_of_a_record=sum(map(len, payloads)) / len(payloads),
    )


def _make(encoder: Encoder, payloads: list[bytes]) -> int:
    """Bytes of all requests."""
    size = 0
    waiting: list[bytes] = []
    for span in chain.from_iterable(encoder.spans(read_record(raw)) for raw in payloads):
        waiting.append(span)
        if len(waiting) == BATCH:
            size += len(encoder.request(waiting))
            waiting.clear()
    return size + len(encoder.request(waiting))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = measure(given.runs)
    if given.json:
        print(json.dumps(asdict(found)))
        return
    print(f"{found.spans_per_s:,.0f} spans/s a core ({found.spans:,} of {found.records:,} records)")
    print(f"a span: read {found.read_us:.1f} us, make {found.make_us:.1f} us, write {found.write_us:.1f} us")
    print(f"{found.bytes_of_a_span:.0f} bytes a span, {found.bytes_of_a_record:.0f} a record")


if __name__ == "__main__":
    main()
