"""The short way through the fold does what the long way does, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec import Raw

from benchmarks.workload import Claim, Filed, Outcome, claim_3step, sleeper
from engine.core import transition as front
from engine.core.definition import Workflow
from engine.core.entry import Entry, EventEntry, FailureEntry, Order, OrderEntry, ResultEntry
from engine.core.errors import HandlerFailed, HandlerTimeout
from engine.core.ids import CallId, Position
from engine.core.reaction import Place, Reaction, Rules, StartCall
from engine.core.snapshot import Stored, read_stored, write_stored
from engine.core.transition import transition

quick = front._quick
START = 1_700_000_000_000
ORDERS: tuple[Order, ...] = ("resume", "skip", "retry", "cancel")


@contextmanager
def compared(patch: pytest.MonkeyPatch) -> Iterator[list[Reaction]]:
    """Every fold inside goes both ways and must come to the same; what the short way did is listed."""
    found: list[Reaction] = []

    def both(
        workflow: Workflow[Any], known: Stored | None, entry: Entry, place: Place, rules: Rules
    ) -> Reaction | None:
        short = quick(workflow, known, entry, place, rules)
        if short is not None:
            stored = None if known is None else write_stored(known)
            with patch.context() as inner:
                inner.setattr(front, "_quick", lambda *_: None)
                assert transition(workflow, stored, entry, place, rules=rules) == short
            found.append(short)
        return short

    with patch.context() as outer:
        outer.setattr(front, "_quick", both)
        yield found


def filed(key: str, amount: int = 1) -> EventEntry:
    data = Raw(Filed(claim=Claim(id=key, text="x", amount=amount)).model_dump_json().encode())
    return EventEntry(
        "claim-3step", key, f"e-{key}", "test", "Filed", data, traceparent="00-1-1-01", hops=3, baggage="a=1"
    )


def answered(key: str, call: StartCall, output: bytes = b'{"result":"r","score":1}') -> ResultEntry:
    return ResultEntry("claim-3step", key, call.run, call.id, call.attempt, Raw(output), START, 17, Raw(b"[1]"))


def fold(stored: bytes | None, entry: Entry, number: int) -> Reaction:
    return transition(claim_3step, stored, entry, Place(3, Position(f"{START + number}-0"), START + number))


def test_a_run_of_three_steps_takes_the_short_way_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    with compared(monkeypatch) as found:
        reaction = fold(None, filed("k"), 0)
        for number in range(1, 4):
            (call,) = reaction.commands
            assert isinstance(call, StartCall)
            reaction = fold(reaction.stored, answered("k", call), number)

    assert [r.records[0].to for r in found] == ["Policy", "Assess", "Decide", "Decided"]
    assert found[-1].wakes > START


def test_random_schedules_come_to_the_same_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(11)
    runs: dict[str, bytes | None] = {}
    entries: list[Entry] = [filed(f"k{n}", n) for n in range(60)]
    with compared(monkeypatch) as found:
        for number in range(1500):
            entry = entries.pop(dice.randrange(len(entries))) if entries else filed(f"k{dice.randrange(90)}")
            reaction = fold(runs.get(entry.key), entry, number)
            runs[entry.key] = reaction.stored
            for call in reaction.commands:
                assert isinstance(call, StartCall)
                done = answered(entry.key, call)
                lost = FailureEntry("claim-3step", entry.key, call.run, call.id, call.attempt, "OSError", final=True)
                entries += dice.choice([[done], [done], [done, done], [lost], [lost, done]])
            if dice.random() < 0.05:
                entries.append(OrderEntry("claim-3step", entry.key, dice.choice(ORDERS), "test"))

    assert len(found) > 150
    assert {r.records[0].to for r in found} == {"Policy", "Assess", "Decide", "Decided"}


def test_late_failed_and_unfit_results_take_the_long_way() -> None:
    began = fold(None, filed("k"), 0)
    (call,) = began.commands
    assert isinstance(call, StartCall)
    failure = FailureEntry("claim-3step", "k", call.run, call.id, 1, "OSError", "away")
    waiting = fold(began.stored, failure, 1)

    for stored, entry in (
        (waiting.stored, answered("k", call)),
        (began.stored, with_call(answered("k", call), call="7.0")),
        (began.stored, answered("k", call, b'{"result":1}')),
        (began.stored, failure),
    ):
        assert stored is not None
        known = read_stored(stored)
        place = Place(0, Position("5-0"), START + 2)
        assert quick(claim_3step, known, entry, place, Rules()) is None


def test_states_with_timers_take_the_long_way() -> None:
    entry = EventEntry("sleeper", "s", "e", "test", "Slept", Raw(b'{"id":"s"}'))

    assert quick(sleeper, None, entry, Place(0, Position("1-0"), START), Rules()) is None


def test_a_handler_that_hangs_on_the_short_way_fails_the_first_application(monkeypatch: pytest.MonkeyPatch) -> None:
    began = fold(None, filed("k"), 0)
    (call,) = began.commands
    assert isinstance(call, StartCall)

    def hang(*_: object) -> Outcome:
        raise HandlerTimeout

    (work,) = claim_3step.specs["Policy"].works
    assert work.done is not None
    monkeypatch.setitem(work.done.__dict__, "function", hang)
    with pytest.raises(HandlerFailed) as caught:
        fold(began.stored, answered("k", call), 1)

    assert caught.value.index == 0
    assert "HandlerTimeout" in caught.value.error


def with_call(entry: ResultEntry, call: str) -> ResultEntry:
    return ResultEntry(entry.workflow, entry.key, entry.run, CallId(call), entry.attempt, entry.output)
