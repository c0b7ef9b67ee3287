"""Spans of records through a real Jaeger and back: what its query API shows is what the projection says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.core.record import Record
from engine.log.protocol import Header
from engine.testing import Simulation
from observability import names
from observability.expected import Expected
from observability.jaeger import Comparison, JaegerReader, JaegerSilent, as_shown, compare, difference, read_traces
from observability.limits import LONGEST_VALUE, MOST_ATTRIBUTES, whole
from observability.otlp import Encoder, resource_of, write_draft
from observability.projection import Projection
from observability.sender import Collector, Verdict, open_sender
from observability.servers.jaeger import Jaeger
from observability.servers.tool import JAEGER, Installed, Tool
from observability.span import Common, Draft, Span
from tests.workflows.claims import CLAIM, POLICY, verdict
from workflows.insurance_claim.data import ClaimFiled
from workflows.insurance_claim.memory import customer_memory
from workflows.insurance_claim.payment import payment, transfer
from workflows.insurance_claim.states import insurance_claim
from workflows.insurance_claim.steps import assess_risk, fetch_policy

HEADER = Header("log-of-tests", 16, 1_767_571_200_000)
PROJECTION = Projection(HEADER)
RESOURCE = resource_of(HEADER.log_id, {})
ENCODER = Encoder(PROJECTION, RESOURCE)


@pytest.fixture
def empty(installed: Callable[[Tool], Installed], tmp_path: Path) -> Iterator[Jaeger]:
    """A Jaeger of this test alone."""
    with Jaeger(tmp_path, installed=installed(JAEGER)) as server:
        yield server


def send(jaeger: Jaeger, records: Iterable[Record], protocol: Any = "http/protobuf") -> None:
    for body, _ in ENCODER.batches(records):
        post(jaeger, body, protocol)


def post(jaeger: Jaeger, body: bytes, protocol: Any = "http/protobuf") -> None:
    sender = open_sender(Collector(jaeger.otlp(protocol), protocol))
    assert sender.send(body).verdict is Verdict.TAKEN
    sender.close()


def spans_of(records: Iterable[Record]) -> list[Span]:
    return [span for record in records for span in PROJECTION.spans(record)]


def compared(jaeger: Jaeger, records: Iterable[Record]) -> Comparison:
    return compare(Expected.of(records, PROJECTION, RESOURCE), JaegerReader(jaeger.url))


def expecting(*spans: Span, log_id: str = HEADER.log_id) -> Expected:
    made = Expected(PROJECTION, resource_of(log_id, {}))
    for span in spans:
        made.traces[span.trace].append(span)
    return made


def claim_paid() -> list[Record]:
    """A claim that is approved by the model, remembered of its customer, and paid: three workflows."""
    run = Simulation(insurance_claim, others=[customer_memory, payment])
    run.fake(fetch_policy, lambda policy_id: POLICY)
    run.fake(assess_risk, lambda dossier: verdict("low risk"))
    run.fake(transfer, lambda due: "T-1")
    run.send(ClaimFiled(claim=CLAIM))
    memory, paid = run.other(customer_memory, CLAIM.customer_id), run.other(payment, "c-1")
    return [*run.records, *memory.records, *paid.records]


def ten_turns() -> list[Record]:
    """An agent that asks a tool nine times before it answers, killed in its midst."""
    pytest.importorskip("pydantic_ai")
    from tests.testing import survey  # noqa: PLC0415

    run = Simulation(survey.damage)
    run.fake(survey.weather_on, lambda place: survey.Weather(rain_mm=len(place.town)))
    asks = survey.weather_on.call(survey.Place(town="bonn"))
    run.fake_model("assessor", answers=[*([asks] * 9), survey.YES])
    run.crash_after(7)
    run.send(survey.Reported(town="bonn"))
    return run.records


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("lived", [claim_paid, ten_turns])
def test_what_jaeger_shows_is_what_the_records_say(
    empty: Jaeger, lived: Callable[[], list[Record]], protocol: str
) -> None:
    records = lived()
    send(empty, records, protocol)

    told = compared(empty, records)

    assert told.holds, told.names
    assert told.expected == told.found == len({span.id for span in spans_of(records)}) > 15
    assert told.traces >= 2


def test_an_agents_trace_is_read_back_as_a_person_would_see_it(empty: Jaeger) -> None:
    records = ten_turns()
    send(empty, records)
    first = next(record for record in records if record.ends)
    trace = next(span.trace for span in PROJECTION.spans(first) if span.name == "process Reported")

    held = JaegerReader(empty.url).trace(trace)

    drawn = tree(held.spans)
    assert drawn[0] == "process Reported"
    assert [name.strip() for name in drawn].count("execute_tool weather_on") == 9
    assert sum(name.strip().startswith("chat ") for name in drawn) == 10
    assert all(name.startswith("    ") for name in drawn if "chat " in name or "execute_tool" in name)
    assert all(span.named[names.KEY] == "bonn" for span in held.spans)


def test_workflows_that_follow_one_another_at_once_share_a_trace(empty: Jaeger) -> None:
    records = claim_paid()
    send(empty, records)
    roots = [span for span in spans_of(records) if span.name == "process ClaimFiled"]

    held = JaegerReader(empty.url).trace(roots[0].trace)

    assert {span.named[names.WORKFLOW] for span in held.spans} >= {"insurance-claim", "payment"}
    assert [span.parent for span in held.spans].count("") == 1


def test_the_same_sent_twice_is_shown_once(empty: Jaeger) -> None:
    records = [*claim_paid(), *ten_turns()]
    send(empty, records)
    send(empty, records)

    told = compared(empty, records)

    assert told.holds, told.names
    assert told.duplicates == 0


def test_an_emptied_jaeger_is_filled_again_from_the_records(
    installed: Callable[[Tool], Installed], tmp_path: Path
) -> None:
    records = claim_paid()
    jaeger = Jaeger(tmp_path, installed=installed(JAEGER))
    with jaeger:
        send(jaeger, records)
        before = compared(jaeger, records)
    with jaeger:
        emptied = compared(jaeger, records)
        send(jaeger, records)
        again = compared(jaeger, records)

    assert (emptied.found, emptied.missing) == (0, before.expected)
    assert before.holds
    assert again == before


def test_values_beyond_every_bound_come_back_cut_with_a_mark(empty: Jaeger) -> None:
    draft = made(
        attributes=(
            ("long", "ä" * 40_000),
            ("nul", "a\0b"),
            ("surrogate", "\ud800!"),
            ("huge", 1 << 80),
            ("least", -(1 << 63)),
            ("whole", 1),
            ("real", 1.0),
            ("tiny", 5e-324),
            ("yes", True),
            ("empty", ""),
            ("none", ()),
            ("list", ("a", "b")),
            ("numbers", (1, 2)),
            *((f"more.{number:03}", number) for number in range(200)),
        ),
        name="x" * 5_000,
    )
    post(empty, ENCODER.request([write_draft(draft)]))
    wanted = whole(draft)

    told = compare(expecting(wanted), JaegerReader(empty.url))

    assert told.holds, told.names
    found = JaegerReader(empty.url).trace(draft.trace).spans[0]
    assert found == as_shown(wanted)
    assert len(found.attributes) == MOST_ATTRIBUTES
    assert found.dropped > 0
    assert str(found.named["long"]).endswith("[cut, 80000 bytes]")
    assert len(str(found.named["long"]).encode()) <= LONGEST_VALUE
    assert (type(found.named["whole"]), type(found.named["real"]), found.named["yes"]) == (int, float, True)
    assert found.named["huge"] == str(1 << 80)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "name is 'other' in place of 'a span'"),
        ({"parent": "00000000000000aa"}, "parent is '00000000000000aa'"),
        ({"kind": 5}, "kind is 5 in place of 1"),
        ({"end_ns": 1_700_000_000_000_001_001}, "end_ns is 1700000000000001001"),
        ({"status": 2}, "status is 2 in place of 0"),
        ({"attributes": (("workflow.seq", 1.0),)}, "attribute workflow.seq is 1.0 in place of 1"),
        ({"attributes": ()}, "attribute workflow.seq is None in place of 1"),
        ({"dropped": 3}, "dropped is 3 in place of 0"),
    ],
)
def test_every_field_that_differs_is_told(change: dict[str, Any], words: str) -> None:
    span = whole(made(attributes=(("workflow.seq", 1),)))

    told = difference(span, replace(span, **change))

    assert told.startswith(words)


def test_what_is_missing_unknown_doubled_or_without_parent_is_counted(empty: Jaeger) -> None:
    sent = [made(id=f"{number:016x}", parent="00000000000000ff" if number == 3 else "") for number in (1, 2, 3)]
    other = made(id=f"{2:016x}", name="another body")
    post(empty, ENCODER.request([write_draft(draft) for draft in (*sent, other)]))
    wanted = [whole(sent[0]), whole(sent[1]), whole(made(id=f"{9:016x}", name="never sent"))]

    told = compare(expecting(*wanted, log_id="another-log"), JaegerReader(empty.url))

    assert not told.holds
    assert (told.expected, told.found, told.missing, told.different, told.unexpected) == (3, 2, 1, 1, 1)
    assert (told.duplicates, told.orphans, told.foreign) == (1, 1, 1)
    assert [each.rpartition(": ")[2] for each in told.names] == [
        "name is 'another body' in place of 'a span'",
        "the log does not know it",
        "it is missing",
        "its parent 00000000000000ff is not there",
    ]


def test_many_traces_are_read_at_once(empty: Jaeger) -> None:
    drafts = [made(trace=f"{number:032x}", id=f"{number:016x}") for number in range(1, 3_001)]
    post(empty, ENCODER.request([write_draft(draft) for draft in drafts]))

    told = compare(expecting(*map(whole, drafts)), JaegerReader(empty.url))

    assert told.holds
    assert told.traces == 3_000


def test_a_number_that_is_none_is_itself() -> None:
    raw = {"traceId": "a", "spanId": "b", "attributes": [{"key": "x", "value": {"doubleValue": "NaN"}}]}
    answer = {"result": {"resourceSpans": [{"scopeSpans": [{"spans": [raw]}]}]}}

    (span,) = read_traces(json.dumps(answer).encode()).spans

    assert isinstance(span.named["x"], float)
    assert math.isnan(span.named["x"])
    assert difference(span, replace(span, attributes=(("x", math.nan),))) == "nothing"


def test_a_wrong_address_is_told(jaeger: Jaeger) -> None:
    with pytest.raises(JaegerSilent, match=r"does not answer: .*is that a Jaeger's address\?"):
        JaegerReader("http://127.0.0.1:1").trace("0" * 31 + "1")
    with pytest.raises(JaegerSilent, match=r"answers 404|something else than a trace|answers 400"):
        JaegerReader(jaeger.url).trace("no trace")


def made(**changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "trace": f"{7:032x}",
        "id": f"{1:016x}",
        "parent": "",
        "name": "a span",
        "kind": 1,
        "start_ns": 1_700_000_000_000_000_123,
        "end_ns": 1_700_000_000_000_001_000,
        "common": Common(()),
    }
    return Draft(**{**fields, **changes})


def tree(spans: Sequence[Span]) -> list[str]:
    """Names, each indented below its parent, in the order of their times."""

    def below(parent: str, depth: int) -> list[str]:
        own = sorted((span for span in spans if span.parent == parent), key=lambda span: (span.start_ns, span.end_ns))
        return [line for span in own for line in ("  " * depth + span.name, *below(span.id, depth + 1))]

    return below("", 0)
