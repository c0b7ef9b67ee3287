"""Names of traces and spans."""

from __future__ import annotations

import msgspec
import pytest

from engine.core import trace
from engine.core.record import Episode
from engine.core.trace import episode_trace, from_uber, parse_traceparent, run_trace, span_id, traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "text",
    [
        PARENT,
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-ff",
        f"01-{TRACE}-{SPAN}-01",
        f"fe-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"cc-{TRACE}-{SPAN}-01-",
    ],
)
def test_a_traceparent_names_a_trace_and_a_span(text: str) -> None:
    assert parse_traceparent(text) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "rubbish",
        TRACE,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0F",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"01-{TRACE}-{SPAN}-01.more",
        f"0-{TRACE}-{SPAN}-01",
        f" {PARENT}",
        f"{PARENT}\n",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
    ],
)
def test_a_broken_traceparent_names_nothing(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{TRACE}:{SPAN}:0:1", PARENT),
        (f"{TRACE}:{SPAN}:0000000000000000:0", f"00-{TRACE}-{SPAN}-00"),
        (f"{TRACE}:{SPAN}::1", PARENT),
        (f"{TRACE}%3A{SPAN}%3A0%3A1", PARENT),
        (f"{TRACE}%3a{SPAN}%3a0%3a1", PARENT),
        (f"{TRACE.upper()}:{SPAN.upper()}:0:3", PARENT),
        (f"{TRACE}:{SPAN}:0:2", f"00-{TRACE}-{SPAN}-00"),
        ("a3ce929d0e0e4736:f067aa0ba902b7:1:1", f"00-{'0' * 16}a3ce929d0e0e4736-{SPAN}-01"),
        ("1:2:0:01", f"00-{'1'.zfill(32)}-{'2'.zfill(16)}-01"),
        (f"0{TRACE[1:]}:{SPAN}:0:1", f"00-0{TRACE[1:]}-{SPAN}-01"),
    ],
)
def test_an_uber_trace_id_is_a_traceparent_too(text: str, expected: str) -> None:
    assert from_uber(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":::",
        f"0:{SPAN}:0:1",
        f"{TRACE}:0:0:1",
        f"{TRACE}:{SPAN}:0",
        f"{TRACE}:{SPAN}:0:1:2",
        f"{TRACE}0:{SPAN}:0:1",
        f"{TRACE}:{SPAN}0:0:1",
        f"{TRACE}:{SPAN}:0:",
        f"{TRACE}:{SPAN}:0:xyz",
        f"x{TRACE[1:]}:{SPAN}:0:1",
        PARENT,
    ],
)
def test_a_broken_uber_trace_id_is_none(text: str) -> None:
    assert from_uber(text) == ""


def test_an_attempt_is_named_like_any_span() -> None:
    assert trace.attempt_parent(TRACE, "r", "3.0", 2) == traceparent(TRACE, span_id("attempt", "r", "3.0", 2))


def test_ids_are_hashed_from_what_they_stand_for() -> None:
    ids = [span_id("episode", "r", 1), span_id("episode", "r", 11), span_id("run", "r"), span_id("transition", "r", 1)]

    assert ids == [span_id("episode", "r", 1), *ids[1:]]
    assert len(set(ids)) == len(ids)
    assert all(parse_traceparent(traceparent(run_trace("r"), span)) == (run_trace("r"), span) for span in ids)


def test_no_id_is_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        def __init__(self, _: bytes, digest_size: int) -> None:
            self.size = digest_size

        def hexdigest(self) -> str:
            return "00" * self.size

    monkeypatch.setattr(trace, "blake2b", Zero)

    assert span_id("run", "r") == "0000000000000001"
    assert parse_traceparent(traceparent(run_trace("r"), span_id("run", "r"))) is not None


def test_an_episode_goes_on_with_the_trace_of_the_run_that_caused_it() -> None:
    own = Episode(7, 1_000, traceparent=PARENT)
    inside = msgspec.structs.replace(own, inside=True)

    assert episode_trace("r", inside) == TRACE
    assert episode_trace("r", own) != TRACE
    assert episode_trace("r", own) == episode_trace("r", Episode(7, 2_000))
    assert episode_trace("r", own) != episode_trace("r", Episode(8, 1_000))
    assert episode_trace("r", own) != episode_trace("s", own)
    assert episode_trace("r", own) != run_trace("r")


def test_a_broken_traceparent_begins_a_trace_of_its_own() -> None:
    broken = Episode(7, 1_000, traceparent="00-broken", inside=True)

    assert episode_trace("r", broken) == episode_trace("r", Episode(7, 1_000))
