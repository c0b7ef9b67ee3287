"""OTLP's bytes, read back with the real protobuf classes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.json_format import Parse  # type: ignore[import-untyped]  # it ships no types
from hypothesis import given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from engine.core.ids import Position, RunId
from engine.core.record import Episode, Group, Record
from engine.log.protocol import Header
from observability import names
from observability.limits import LONGEST_VALUE, MOST_ATTRIBUTES, clean, fit, whole
from observability.otlp import Encoder, resource_of, to_json, write_draft
from observability.projection import Projection
from observability.span import Common, Draft, Span, Value
from tests.observability.drawn import RECORDS, drafts

AT = 1_700_000_000_000
RESOURCE = resource_of("log-1", {})
ENCODER = Encoder(Projection(Header("log-1", 16, AT)), RESOURCE)


def parse(raw: bytes) -> Any:
    return ExportTraceServiceRequest.FromString(raw)


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(value_of(each) for each in value.array_value.values)
    return getattr(value, kind or "string_value")


def pairs_of(pairs: Any) -> tuple[tuple[str, Any], ...]:
    found: list[KeyValue] = list(pairs)
    return tuple((pair.key, value_of(pair.value)) for pair in found)


def same(proto: ProtoSpan, span: Span) -> None:
    assert proto.trace_id.hex() == span.trace
    assert proto.span_id.hex() == span.id
    assert proto.parent_span_id.hex() == span.parent
    assert proto.name == span.name
    assert proto.kind == span.kind
    assert proto.start_time_unix_nano == span.start_ns
    assert proto.end_time_unix_nano == span.end_ns
    assert pairs_of(proto.attributes) == span.attributes
    assert [type(value) for _, value in pairs_of(proto.attributes)] == [type(value) for _, value in span.attributes]
    assert proto.dropped_attributes_count == span.dropped
    assert proto.status.code == span.status
    assert proto.status.message == (span.message if span.status else "")
    assert [(link.trace_id.hex(), link.span_id.hex(), pairs_of(link.attributes)) for link in proto.links] == [
        (link.trace, link.id, ((names.REASON, link.reason),)) for link in span.links
    ]


@given(drafts())
@settings(max_examples=60)
def test_a_span_is_read_back_field_for_field(draft: Draft) -> None:
    (proto,) = parse(ENCODER.request([write_draft(draft)])).resource_spans[0].scope_spans[0].spans

    same(proto, whole(draft))


@given(drafts())
@settings(max_examples=20)
def test_a_span_in_json_is_the_same(draft: Draft) -> None:
    span = whole(draft)
    request = Parse(_hex_to_base64(to_json([span], RESOURCE)), ExportTraceServiceRequest())

    (proto,) = request.resource_spans[0].scope_spans[0].spans
    same(proto, span)
    assert pairs_of(request.resource_spans[0].resource.attributes) == RESOURCE


def _hex_to_base64(raw: bytes) -> str:
    """OTLP's JSON has ids in hex where protobuf's has base64."""

    def turned(node: Any) -> Any:
        if isinstance(node, dict):
            ids = {"traceId", "spanId", "parentSpanId"}
            return {
                key: base64.b64encode(bytes.fromhex(each)).decode() if key in ids else turned(each)
                for key, each in node.items()
            }
        return [turned(each) for each in node] if isinstance(node, list) else node

    return json.dumps(turned(json.loads(raw)))


@given(RECORDS)
@settings(max_examples=60)
def test_any_record_is_encoded_as_it_is_told(record: Record) -> None:
    told = Projection(Header("log-1", 16, AT)).spans(record)
    protos = [parse(ENCODER.request([raw])).resource_spans[0].scope_spans[0].spans[0] for raw in ENCODER.spans(record)]

    assert len(protos) == len(told)
    for proto, span in zip(protos, told, strict=True):
        same(proto, span)


def record(seq: int = 1, **more: Any) -> Record:
    given = {"cause": "event", "name": "Came", "to": "Here", "visit": 1, "status": "waiting", "key": "4711", **more}
    return Record(
        workflow="claim",
        run=RunId("0123456789abcdef"),
        version=1,
        seq=seq,
        at=AT,
        entry=Position("1-0"),
        episode=Episode(seq, AT, "event", "Came"),
        ends=True,
        **given,
    )


def test_requests_stay_below_the_limit_and_hold_every_span_once() -> None:
    records = [record(number) for number in range(1, 200)]
    spans = [raw for each in records for raw in ENCODER.spans(each)]

    batches = list(ENCODER.batches(records, 10_000))
    parsed = [parse(raw).resource_spans[0].scope_spans[0].spans for raw, _ in batches]

    assert all(len(raw) <= 10_000 for raw, _ in batches)
    assert [count for _, count in batches] == [len(each) for each in parsed]
    assert sum(count for _, count in batches) == len(spans)
    assert len({span.span_id for each in parsed for span in each}) == len(spans)


def test_a_span_that_alone_is_longer_goes_alone() -> None:
    batches = list(ENCODER.batches([record()], 10))

    assert [count for _, count in batches] == [1] * len(ENCODER.spans(record()))


def test_no_spans_make_no_request() -> None:
    assert list(ENCODER.batches([])) == []


def test_the_resource_says_which_log_and_what_the_environment_adds() -> None:
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test%20one, team = a,broken"}

    assert resource_of("log-1", environ) == (
        ("service.name", "longwatch"),
        ("longwatch.log_id", "log-1"),
        ("host.id", "log-1"),
        ("deployment.environment.name", "test one"),
        ("team", "a"),
    )


def test_the_service_has_the_name_that_the_environment_gives() -> None:
    environ = {"OTEL_SERVICE_NAME": "claims", "OTEL_RESOURCE_ATTRIBUTES": "service.name=other"}

    assert dict(resource_of("log-1", environ))["service.name"] == "claims"


def test_the_resource_stands_in_the_request() -> None:
    (spans,) = parse(ENCODER.request(ENCODER.spans(record()))).resource_spans

    assert pairs_of(spans.resource.attributes) == RESOURCE
    assert spans.scope_spans[0].scope.name == "longwatch"
    assert spans.scope_spans[0].schema_url == names.SCHEMA


@pytest.mark.parametrize("text", ["x" * 100_000, "ä" * 50_000, "\U0001f4a3" * 30_000, "a\0" * 20_000])
def test_a_long_value_is_cut_with_a_mark(text: str) -> None:
    short = clean(text)

    assert len(short.encode()) <= LONGEST_VALUE
    assert short.endswith(f"... [cut, {len(text.replace(chr(0), chr(0xFFFD)).encode())} bytes]")


@pytest.mark.parametrize(("text", "expected"), [("a\0b", "a\ufffdb"), ("a\ud800b", "a\ufffdb"), ("plain", "plain")])
def test_what_no_server_takes_is_replaced(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_number_beyond_64_bits_becomes_a_text() -> None:
    big: list[Value] = [1 << 63, -(1 << 63) - 1, (1 << 63) - 1, True]

    assert [fit(value) for value in big] == [str(1 << 63), str(-(1 << 63) - 1), (1 << 63) - 1, True]


def test_too_many_attributes_are_counted() -> None:
    fields = {f"field{number}": "x" for number in range(200)}

    root = next(s for s in Projection(Header("l", 1, AT)).spans(record(fields=fields)) if s.name == "process Came")

    assert len(root.attributes) == MOST_ATTRIBUTES
    assert root.dropped > 0


def test_what_many_records_share_is_encoded_the_same_each_time() -> None:
    left = (Group("Old", 1, AT - 5),)
    one, two = (record(2, left=left, from_="Old") for _ in range(2))

    assert ENCODER.spans(one) == ENCODER.spans(two)


def test_a_common_part_of_a_common_part_is_whole() -> None:
    inner = Common((("a", 1),))

    assert Common((("b", 2),), inner).pairs == (("a", 1), ("b", 2))
