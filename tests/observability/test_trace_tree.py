"""A run's records as a tree."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine import Leave
from engine.core.trace import run_trace
from engine.testing import Simulation
from observability.lineage import Run, first_of
from observability.trace_tree import EpisodeNode, episode_in, runs_of_trace, tree_of
from tests.core.zoo import Asked, Noise, Paid, Placed, Poked, Withdrawn, check_item, fetch, order, patient, tell, work
from tests.testing.office import Approved, TripWanted, World, book, customer, trip


@pytest.fixture
def shop() -> Simulation[Placed]:
    run = Simulation(order)
    run.fake(tell, lambda text: None)
    run.send(Placed(order="o1"))
    return run


def test_visits_have_their_lengths_and_episodes(shop: Simulation[Placed]) -> None:
    shop.advance(days=1)
    shop.send(Paid(amount=5))
    shop.advance(hours=1)
    tree = tree_of(shop.records)
    first, second = tree.visits

    assert [e.cause for e in tree.start] == ["event Placed"]
    assert (first.state, first.left - first.entered, first.left_by) == ("Waiting", 86_400_000, "event Paid")
    assert (second.state, second.left) == ("Packing", 0)
    assert [(e.cause, e.moves, [c.step for c in e.calls]) for e in first.episodes] == [
        ("event Paid", ["Packing"], ["tell"])
    ]
    assert tree.trace == run_trace(tree.run_id)


def test_a_run_that_is_over_waits_for_nothing(shop: Simulation[Placed]) -> None:
    shop.send(Withdrawn(why="no"))
    tree = tree_of(shop.records)

    assert (tree.status, tree.waits_for, tree.waits_until) == ("finished", (), "")
    assert tree.finished == shop.records[-1].at
    assert [type_ for _, type_, _ in tree.episodes[-1].published] == ["Sold"]


def test_what_is_ignored_and_what_halts_is_told(shop: Simulation[Placed]) -> None:
    shop.send(Noise())
    shop.send(Paid(amount=-1))
    shop.send(Noise())
    tree = tree_of(shop.records)
    noise, halt, held = tree.visits[0].episodes

    assert noise.ignored == "Waiting ignores Noise on purpose"
    assert halt.halted == "ValueError: a negative amount"
    assert held.ignored == "held: the run is halted"
    assert tree.waits_for == ("an operator: ValueError: a negative amount",)


def test_attempts_stand_under_their_call() -> None:
    run = Simulation(work)
    said: list[Any] = [OSError("no"), 3]

    def sometimes(name: str) -> int:
        answer = said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    run.fake(fetch, sometimes)
    run.fake(patient, lambda name: 4)
    run.fake(check_item, lambda item: item)
    run.send(Asked(items=(1, 2, 3)))
    run.advance(seconds=10)
    tree = tree_of(run.records)
    calls = [call for episode in tree.episodes for call in episode.calls]

    assert [(a.number, a.result, a.error) for a in calls[0].attempts] == [(1, "failed", "OSError: no"), (2, "ok", "")]
    assert [call.step for call in calls] == ["fetch", "patient", "check_item", "check_item", "check_item"]
    assert len(tree.episodes) == 1


def test_what_a_call_keeps_and_asks_is_told() -> None:
    run: Simulation[Any] = Simulation(trip, others=[customer])
    run.real(book, resources={"world": World()})
    run.send(TripWanted(trip="rome", customer="ann", asks=True))
    run.answer(Approved(), who="bo")
    asking = tree_of(run.records)
    call = asking.episodes[-1].calls[0]

    assert (call.waits, call.attempts[0].result, call.attempts[0].asks) == ("asking", "asked people", "A car in rome?")
    assert [part.name for part in call.attempts[0].parts] == ["flight", "hotel"]
    assert "people: bookers" in asking.waits_for

    run.answer(Leave(granted=True), who="cy")
    tree = tree_of(run.records)
    assert tree.episodes[-1].cause == "answer book"
    assert tree.episodes[-1].notes[0].endswith(": answered by cy")
    assert [(a.number, a.result) for a in tree.episodes[-1].calls[0].attempts] == [(2, "ok")]
    assert msgspec.json.encode(tree)


def test_an_answer_of_another_run_is_no_attempt_of_ones_own() -> None:
    run: Simulation[Any] = Simulation(trip, others=[customer])
    run.send(TripWanted(trip="rome", customer="ann"))
    tree = tree_of(run.records)

    assert tree.start[0].calls[0].attempts[0].result == "asked another run"
    assert tree.visits[0].episodes[0].cause == "failure ask TripsAsked"
    assert tree.visits[0].episodes[0].goes_on


def test_an_episode_is_found_by_any_of_its_numbers_and_by_its_trace(shop: Simulation[Placed]) -> None:
    shop.send(Paid(amount=5))
    tree = tree_of(shop.records)
    (paid,) = tree.visits[0].episodes

    def found(wanted: str) -> EpisodeNode | None:
        return episode_in(tree, wanted)

    assert found("2") == found("3") == found(paid.trace) == paid
    assert found("1") == tree.start[0]
    assert found("0") is None
    assert found(str(len(shop.records) + 1)) is None
    assert found("99") is None
    assert found("x") is None


def test_a_trace_leads_to_the_run_that_began_it(shop: Simulation[Placed]) -> None:
    shop.send(Paid(amount=5))
    tree = tree_of(shop.records)
    runs = [("0123456789abcdef", 9), (tree.run_id, 3)]

    assert runs_of_trace(tree.trace, runs) == (tree.run_id, 0)
    assert runs_of_trace(tree.visits[0].episodes[0].trace, runs) == (tree.run_id, 2)
    assert runs_of_trace("f" * 32, runs) is None


def test_records_from_before_episodes_have_one_each(shop: Simulation[Placed]) -> None:
    shop.send(Paid(amount=5))
    old = [msgspec.structs.replace(r, episode=None, ends=False, left=(), began=0) for r in shop.records]
    tree = tree_of(old)

    assert len(tree.episodes) == len(old)
    assert [visit.state for visit in tree.visits] == ["Waiting", "Packing"]
    assert tree.visits[0].left


def test_what_the_journal_has_lost_is_counted(shop: Simulation[Placed]) -> None:
    shop.send(Paid(amount=5))

    assert tree_of(shop.records[1:]).missing == 1
    with pytest.raises(ValueError, match="without records"):
        tree_of([])


def test_a_long_run_is_told_visit_by_visit(shop: Simulation[Placed]) -> None:
    for _ in range(30):
        shop.send(Poked())
    shop.send(Withdrawn(why="no"))
    run = Run(shop.records)
    entered = [r for r in shop.records if r.to and (r.from_ != r.to or r.left)]

    assert [run.entered(r.seq) for r in entered[1:]] == [first_of(r) for r in entered[:-1]]
    assert run.entered(1) == 0
    assert [v.visit for v in tree_of(shop.records).visits] == sorted({r.visit for r in shop.records if r.visit})
    assert all(v.left for v in tree_of(shop.records).visits[:-1])
