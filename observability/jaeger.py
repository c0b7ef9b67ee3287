"""What a Jaeger holds, read back over its query API and compared with what the log says, span for span.

Source: Jaeger's API v3 (`jaeger-idl/proto/api_v3/query_service.proto`), which answers with OTLP in JSON: ids as hex
digits, whole numbers as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import msgspec
import urllib3
from msgspec import Struct
from msgspec.structs import asdict, replace

from engine import LongwatchError
from observability import names
from observability.expected import Expected
from observability.span import Attributes, Link, Span, Value

WARNINGS: Final = "@jaeger@warnings"
"""What Jaeger itself adds to a span when it reads it, such as that its parent has not come yet."""
_THREADS: Final = 8
_NAMED: Final = 10
_SECONDS: Final = 60.0
_OK, _NOT_FOUND = 200, 404


class JaegerSilent(LongwatchError):
    """It cannot be asked, or does not answer as Jaeger does."""


class Held(NamedTuple):
    """A trace as a Jaeger shows it."""

    spans: list[Span]
    """With every copy that it shows."""
    resources: list[dict[str, Value]]
    """Of each group of spans."""
    warnings: int
    """Spans that it says something about."""


class JaegerReader:
    """Asks one Jaeger. May be used by many threads at once."""

    def __init__(self, url: str) -> None:
        """Prepare; `url` is that of its page, such as http://127.0.0.1:16686."""
        self.url = url.rstrip("/")
        self._http = urllib3.PoolManager(maxsize=_THREADS, timeout=_SECONDS, retries=urllib3.Retry(3))

    def trace(self, trace: str) -> Held:
        """One trace; no spans: it does not have it.

        Raises:
            JaegerSilent: it does not answer, or not as it should.
        """
        where = f"{self.url}/api/v3/traces/{trace}"
        try:
            said = self._http.request("GET", where)
            if said.status == _NOT_FOUND:
                return Held([], [], 0)
            if said.status != _OK:
                raise JaegerSilent(f"{where} answers {said.status}: {said.data[:200].decode(errors='replace')}")
            return read_traces(said.data)
        except urllib3.exceptions.HTTPError as error:
            raise JaegerSilent(f"{where} does not answer: {error}; is that a Jaeger's address?") from error
        except msgspec.DecodeError as error:
            raise JaegerSilent(f"{where} answers something else than a trace: {error}") from error

    def traces(self, traces: Iterable[str]) -> Iterator[tuple[str, Held]]:
        """Many traces, several at once, in their order."""
        wanted = list(traces)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="jaeger") as pool:
            yield from zip(wanted, pool.map(self.trace, wanted), strict=True)

    def services(self) -> list[str]:
        """The services that it has spans of."""
        said = self._http.request("GET", f"{self.url}/api/v3/services")
        return sorted(msgspec.json.decode(said.data, type=_Services).services)


# What it answers ------------------------------------------------------------------------------------------------------


class _Services(Struct):
    services: list[str] = []


class _Any(Struct):
    """OTLP's AnyValue: one of these is set."""

    text: str | None = msgspec.field(default=None, name="stringValue")
    flag: bool | None = msgspec.field(default=None, name="boolValue")
    whole: str | int | None = msgspec.field(default=None, name="intValue")
    number: float | str | None = msgspec.field(default=None, name="doubleValue")
    parts: _Array | None = msgspec.field(default=None, name="arrayValue")


class _Array(Struct):
    values: list[_Any] = []


class _Pair(Struct):
    key: str
    value: _Any = msgspec.field(default_factory=_Any)


class _Link(Struct, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    attributes: list[_Pair] = []


class _Status(Struct):
    code: int = 0
    message: str = ""


class _Span(Struct, rename="camel"):
    trace_id: str
    span_id: str
    name: str = ""
    parent_span_id: str = ""
    kind: int = 0
    start_time_unix_nano: str = "0"
    end_time_unix_nano: str = "0"
    attributes: list[_Pair] = []
    dropped_attributes_count: int = 0
    links: list[_Link] = []
    status: _Status = msgspec.field(default_factory=_Status)


class _Scope(Struct):
    spans: list[_Span] = []


class _Resource(Struct):
    attributes: list[_Pair] = []


class _Group(Struct, rename="camel"):
    resource: _Resource = msgspec.field(default_factory=_Resource)
    scope_spans: list[_Scope] = []


class _Traces(Struct, rename="camel"):
    resource_spans: list[_Group] = []


class _Answer(Struct):
    result: _Traces = msgspec.field(default_factory=_Traces)


_answers: Final = msgspec.json.Decoder(_Answer)


def read_traces(raw: bytes) -> Held:
    """An answer of the API.

    Raises:
        msgspec.DecodeError: it is none.
    """
    groups = _answers.decode(raw).result.resource_spans
    found = [span for group in groups for scope in group.scope_spans for span in scope.spans]
    warned = sum(any(pair.key == WARNINGS for pair in span.attributes) for span in found)
    resources = [dict(_attributes(group.resource.attributes)) for group in groups]
    return Held([_span(span) for span in found], resources, warned)


def _span(raw: _Span) -> Span:
    return Span(
        trace=raw.trace_id,
        id=raw.span_id,
        parent=raw.parent_span_id,
        name=raw.name,
        kind=raw.kind,
        start_ns=int(raw.start_time_unix_nano),
        end_ns=int(raw.end_time_unix_nano),
        status=raw.status.code,
        message=raw.status.message,
        attributes=_attributes(raw.attributes),
        links=tuple(_link(link) for link in raw.links),
        dropped=raw.dropped_attributes_count,
    )


def _link(raw: _Link) -> Link:
    reason = dict(_attributes(raw.attributes)).get(names.REASON, "")
    return Link(raw.trace_id, raw.span_id, str(reason))


def _attributes(pairs: Sequence[_Pair]) -> Attributes:
    return tuple((pair.key, _value(pair.value)) for pair in pairs if pair.key != WARNINGS)


def _value(raw: _Any) -> Value:
    if raw.parts is not None:
        return tuple(_scalar(each) for each in raw.parts.values)
    return _scalar(raw)


def _scalar(raw: _Any) -> str | bool | int | float:
    if raw.text is not None:
        return raw.text
    if raw.flag is not None:
        return raw.flag
    if raw.whole is not None:
        return int(raw.whole)
    if raw.number is not None:
        return float(raw.number)
    return ""  # an empty text: JSON leaves out what is a type's zero


# Comparing ------------------------------------------------------------------------------------------------------------


class Comparison(Struct):
    """How a Jaeger and a log agree."""

    expected: int = 0
    """Spans that the log says there are."""
    found: int = 0
    """Of those, how many the Jaeger has, whatever is in them."""
    missing: int = 0
    different: int = 0
    """It has them, and at least one copy says something else."""
    unexpected: int = 0
    """It has them in a trace of the log, and the log knows nothing of them."""
    duplicates: int = 0
    """Further copies that it shows of a span."""
    orphans: int = 0
    """Spans whose parent is not in their trace, and will not come."""
    early: int = 0
    """Spans whose parent is still to come: the visit or the run goes on."""
    warnings: int = 0
    """Spans to which the Jaeger has added a warning."""
    foreign: int = 0
    """Groups of spans that name another resource than the log's."""
    traces: int = 0
    names: list[str] = []
    """The first ten that do not agree, and why."""

    def name(self, span: Span, why: str) -> None:
        """Name a span that is not as it should be, if there is room."""
        if len(self.names) < _NAMED:
            self.names.append(f"{span.name} (trace {span.trace}, span {span.id}): {why}")

    @property
    def differing(self) -> int:
        """Spans that do not agree."""
        return self.missing + self.different + self.unexpected

    @property
    def holds(self) -> bool:
        """Whether it is span for span the same, each once, none without its parent."""
        return not (self.differing or self.duplicates or self.orphans or self.foreign)


def compare(expected: Expected, reader: JaegerReader) -> Comparison:
    """Compare what the log says with what a Jaeger holds: every field of every span, the types of values included.

    Raises:
        JaegerSilent: it cannot be asked.
    """
    told = Comparison(traces=len(expected.traces))
    still_open = expected.open
    for trace, held in reader.traces(expected.traces):
        told.warnings += held.warnings
        told.foreign += sum(not _same(sorted(each.items()), sorted(expected.resource)) for each in held.resources)
        _compare_trace(expected.traces[trace], held.spans, told)
        without = _without_parent(held.spans)
        if trace in still_open:
            told.early += len(without)
            continue
        told.orphans += len(without)
        for span in without:
            told.name(span, f"its parent {span.parent} is not there")
    return told


def _without_parent(found: Sequence[Span]) -> list[Span]:
    there = {span.id for span in found}
    return [span for span in found if span.parent and span.parent not in there]


def _compare_trace(expected: Sequence[Span], found: Sequence[Span], told: Comparison) -> None:
    wanted = {span.id: as_shown(span) for span in expected}
    copies = Counter(span.id for span in found)
    told.expected += len(wanted)
    told.found += len(wanted.keys() & copies.keys())
    told.duplicates += copies.total() - len(copies)
    wrong: dict[str, str] = {}
    for span in expected:
        if as_shown(span) != wanted[span.id]:
            wrong[span.id] = "the log says two things of it"
    for span in map(as_shown, found):
        if span.id in wanted and not _same(span, wanted[span.id]):
            wrong.setdefault(span.id, difference(wanted[span.id], span))
    missing, unexpected = wanted.keys() - copies.keys(), copies.keys() - wanted.keys()
    told.missing, told.unexpected = told.missing + len(missing), told.unexpected + len(unexpected)
    told.different += len(wrong)
    by_id = {span.id: span for span in (*found, *expected)}
    why = {**dict.fromkeys(missing, "it is missing"), **dict.fromkeys(unexpected, "the log does not know it"), **wrong}
    for id in sorted(why):
        told.name(by_id[id], why[id])


def as_shown(span: Span) -> Span:
    """The same as Jaeger shows it: attributes in the order of their names."""
    return replace(span, attributes=tuple(sorted(span.attributes, key=lambda pair: pair[0])))


def _same(one: object, other: object) -> bool:
    """Equal as it is written: 1, 1.0 and True are three things, and not-a-number is itself."""
    return repr(one) == repr(other)


def difference(expected: Span, found: Span) -> str:
    """The first field in which two spans differ, in words."""
    one, other = asdict(expected), asdict(found)
    for field in one:
        if field == "attributes":
            if words := _difference_of(dict(expected.attributes), dict(found.attributes)):
                return words
        elif one[field] != other[field]:
            return f"{field} is {other[field]!r} in place of {one[field]!r}"
    return "nothing"


def _difference_of(expected: dict[str, Value], found: dict[str, Value]) -> str:
    for name in sorted(expected.keys() | found.keys()):
        one, other = expected.get(name), found.get(name)
        if not _same(one, other):
            return f"attribute {name} is {other!r} in place of {one!r}"
    return ""
