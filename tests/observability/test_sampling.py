"""Rules for traces, and what they take of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.entry import Used
from engine.core.ids import Position, RunId
from engine.core.record import Group, Halted, Record, write_record
from engine.log.protocol import Header, output_id
from observability.sampling import Rule, Sampler, WrongRule

DAY = 86_400_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", Rule(share=1_000_000)),
        ("10%", Rule(share=100_000)),
        ("0.5 %", Rule(share=5_000)),
        (" Errors , halted ", Rule(errors=True, halted=True)),
        ("over 2d", Rule(over_ms=2 * DAY)),
        ("over 1.5 h", Rule(over_ms=5_400_000)),
        ("cost over 1.50", Rule(cost=1_500_000)),
        ("cost over 3 EUR", Rule(cost=3_000_000)),
        (
            "errors, halted, over 2d, cost over 1.50, 10%",
            Rule(share=100_000, errors=True, halted=True, over_ms=2 * DAY, cost=1_500_000),
        ),
    ],
)
def test_a_rule_is_said_in_words(text: str, expected: Rule) -> None:
    assert Rule.read(text) == expected


@pytest.mark.parametrize(
    "text", ["", "some", "over 2", "over two days", "101%", "-1%", "errors,", "cost 3", "10 % of it"]
)
def test_what_is_no_rule_is_told(text: str) -> None:
    with pytest.raises(WrongRule, match=r"is no part of a rule for traces; parts are, .*all, errors"):
        Rule.read(text)


@pytest.mark.parametrize("text", ["10%, 20%", "all, 10%", "errors, errors"])
def test_what_is_said_twice_is_told(text: str) -> None:
    with pytest.raises(WrongRule, match="has two parts like"):
        Rule.read(text)


def test_a_share_of_the_runs_is_taken() -> None:
    rule = Rule.read("10%")
    taken = {number for number in range(20_000) if rule.takes(f"run {number}")}

    assert 1_800 < len(taken) < 2_200
    assert taken == {number for number in range(20_000) if Rule.read("10%").takes(f"run {number}")}
    assert taken < {number for number in range(20_000) if Rule.read("20%").takes(f"run {number}")}


class Memory:
    """A journal that lies in memory."""

    def __init__(self) -> None:
        self.header = Header("memory", 4, 0)
        self.items: dict[str, Record] = {}

    def record(self, partition: int, place: str) -> Record | None:
        return self.items.get(place)

    def add(self, run: str, seq: int, prev: str, **more: Any) -> tuple[Record, str]:
        number = len(self.items) + 1
        given = {"at": 1_000 * seq, "cause": "event", "key": run, "status": "waiting", **more}
        made = Record(
            workflow="w", run=RunId(run), version=1, seq=seq, entry=Position(f"{number}-0"), prev=prev, **given
        )
        self.items[output_id(f"{number}-0", 0)] = made
        return made, f"{number}-0/0"


def journal_of(*runs: Sequence[dict[str, Any]]) -> Memory:
    """Runs whose records come in turn."""
    memory = Memory()
    prevs = [""] * len(runs)
    for seq in range(max(map(len, runs))):
        for number, run in enumerate(runs):
            if seq < len(run):
                _, prevs[number] = memory.add(f"run{number}", seq + 1, prevs[number], **run[seq])
    return memory


def name_of(record: Record) -> bytes:
    return f"{record.run}.{record.seq}".encode()


def exported(memory: Memory, rule: str, known_runs: int = 100, restart: int = -1) -> list[str]:
    def sampler() -> Sampler:
        return Sampler(Rule.read(rule), memory, lambda record: [name_of(record)], known_runs)

    found: list[bytes] = []
    one = sampler()
    for number, record in enumerate(memory.items.values()):
        if number == restart:
            one = sampler()
        found += one(write_record(record))
    return [each.decode() for each in found]


PLAIN: dict[str, Any] = {}
FAILED = {"cause": "failure", "error": "Boom: no"}
HALTED = {"halted": Halted("Boom"), "status": "halted"}
LONG = {"at": 5 * DAY, "began": 1, "status": "finished"}
LEFT = {"at": 5 * DAY, "left": (Group("A", 1, 1_000),)}
DEAR = {"cause": "kept", "used": Used("m", cost=800_000)}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [("errors", FAILED), ("errors", HALTED), ("halted", HALTED), ("over 2d", LONG), ("over 2d", LEFT)],
)
def test_a_run_that_shows_a_reason_is_exported_whole(rule: str, reason: dict[str, Any]) -> None:
    memory = journal_of([PLAIN, PLAIN, reason, PLAIN], [PLAIN, PLAIN, PLAIN, PLAIN])

    assert exported(memory, rule) == ["run0.1", "run0.2", "run0.3", "run0.4"]


def test_the_cost_of_a_run_is_summed() -> None:
    memory = journal_of([PLAIN, DEAR, DEAR, PLAIN], [PLAIN, DEAR, PLAIN])

    assert exported(memory, "cost over 1.50") == ["run0.1", "run0.2", "run0.3", "run0.4"]


def test_all_is_all() -> None:
    memory = journal_of([PLAIN, FAILED], [PLAIN])

    assert exported(memory, "all") == ["run0.1", "run1.1", "run0.2"]


def test_what_is_not_there_any_more_is_passed_over() -> None:
    memory = journal_of([PLAIN, PLAIN, FAILED])
    del memory.items[output_id("1-0", 0)]

    assert exported(memory, "errors") == ["run0.2", "run0.3"]


KINDS = st.sampled_from([PLAIN, PLAIN, PLAIN, FAILED, HALTED, LEFT, DEAR])


@given(
    st.lists(st.lists(KINDS, min_size=1, max_size=6), min_size=1, max_size=5),
    st.sampled_from(["errors", "halted", "over 2d, 20%", "cost over 1.50", "50%", "errors, cost over 0.5"]),
    st.integers(1, 3),
    st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_what_is_exported_depends_on_journal_and_rule_alone(
    runs: list[list[dict[str, Any]]], rule: str, known: int, restart: int
) -> None:
    memory = journal_of(*runs)
    read = Rule.read(rule)

    expected = set[str]()
    for number, run in enumerate(runs):
        cost, wanted = 0, read.takes(f"run{number}")
        for record in (r for r in memory.items.values() if r.run == f"run{number}"):
            cost += record.used.cost or 0 if record.used else 0
            wanted = wanted or bool(read.reason(record, cost))
        expected |= {f"run{number}.{seq + 1}" for seq in range(len(run))} if wanted else set()

    assert sorted(exported(memory, rule)) == sorted(expected)
    assert set(exported(memory, rule, known, restart)) == expected
