"""Spans of many records, put together as a server puts them together."""

from __future__ import annotations

from collections.abc import Iterable

from engine.core.record import Record, read_record, write_record
from engine.log.protocol import Header
from observability.otlp import Encoder, resource_of
from observability.projection import Projection
from observability.span import Span

HEADER = Header("test-log", 16, 1_700_000_000_000)
PROJECTION = Projection(HEADER)
Traces = dict[tuple[str, str], Span]


def gather(records: Iterable[Record], projection: Projection = PROJECTION) -> Traces:
    """Every span by trace and id; one that comes twice is the same, byte for byte."""
    encoder = Encoder(projection, resource_of("test-log", {}))
    found: Traces = {}
    raws: dict[tuple[str, str], bytes] = {}
    for record in records:
        read = read_record(write_record(record))
        for span, raw in zip(projection.spans(read), encoder.spans(read), strict=True):
            place = span.trace, span.id
            assert raws.setdefault(place, raw) == raw, f"two bodies: {span} and {found[place]}"
            found[place] = span
    return found


def orphans(traces: Traces) -> list[Span]:
    """Spans whose parent is not in their trace."""
    return [s for s in traces.values() if s.parent and (s.trace, s.parent) not in traces]


def disordered(traces: Traces) -> list[Span]:
    """Spans that end before they begin, or begin before their parent; parts that nobody has timed are left out."""
    return [
        span
        for span in traces.values()
        if span.end_ns < span.start_ns
        or (
            (above := traces.get((span.trace, span.parent))) is not None
            and span.start_ns + _slack(span, above) < above.start_ns
            and not ("workflow.part" in span.named and not span.named["workflow.took_ms"])
        )
    ]


def _slack(span: Span, above: Span) -> int:
    """Within a run microseconds show the order; two runs agree to the millisecond."""
    return 0 if span.named["workflow.run_id"] == above.named["workflow.run_id"] else 999_000


def tree(traces: Traces, trace: str) -> list[str]:
    """A trace as lines, children indented under their parents, in the order of time."""
    spans = sorted((s for s in traces.values() if s.trace == trace), key=lambda s: (s.start_ns, s.end_ns, s.id))
    ids = {span.id for span in spans}

    def below(parent: str, depth: int) -> list[str]:
        lines: list[str] = []
        for span in spans:
            if span.parent == parent or (not depth and span.parent not in ids):
                lines += [f"{'  ' * depth}{span.name}", *below(span.id, depth + 1)]
        return lines

    return below("", 0)


def only(traces: Traces, name: str) -> Span:
    """The only span of this name."""
    (span,) = (s for s in traces.values() if s.name == name)
    return span
