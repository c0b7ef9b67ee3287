"""Which calls wait after a start, and what calls keep beside their run; without Flink."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from engine import Event, Final, State, StepContext, StepFailed, Workflow, runs, step
from engine.core.ids import CallId, Position
from engine.core.partition import flink_key
from engine.flink import recovery
from engine.flink.attempt import Request
from engine.flink.kept import KeptResults
from engine.flink.partition_engine import PartitionEngine
from engine.flink.recovery import Recovery
from tests.core.folding import Run
from tests.flink.test_engine_held import FakeQueue

END = Position("9-0")


def behind() -> Recovery:
    """Partition 0 with one run in flight, read up to 5, of a log that ends at 9; partition 1 is at its end."""
    found = Recovery()
    found.found(0, "a")
    found.found(1, "z")
    assert found.begin(0, Position("5-0"), END) == []
    assert found.begin(1, END, END) == ["z"]
    return found


def test_runs_are_looked_at_when_their_partition_has_caught_up() -> None:
    waiting = behind()
    waiting.hold(0, "b")
    waiting.hold(0, "a")

    assert waiting
    assert waiting.waits(0)
    assert not waiting.waits(1)
    assert waiting.caught_up({0: Position("8-7")}, [0, 1]) == []
    assert waiting.caught_up({0: END, 1: END}, [0, 1]) == ["a", "b"]
    assert not waiting


def test_a_partition_that_is_known_already_does_not_begin_again() -> None:
    waiting = behind()
    waiting.caught_up({0: END}, [0, 1])

    assert waiting.begin(0, END, Position("12-0")) == []
    assert not waiting


def test_an_empty_partition_has_nothing_to_catch_up_with() -> None:
    assert Recovery().begin(0, Position("0-0"), None) == []


def test_a_partition_whose_last_entry_is_gone_catches_up_all_the_same() -> None:
    waiting = behind()

    assert waiting.caught_up({}, [0, 1]) == []
    assert waiting.caught_up({}, [0, 1]) == ["a"]


def test_of_a_crowd_those_with_something_to_lose_wait_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOST", 2)
    waiting = behind()
    waiting.hold(0, "b")
    few = waiting.crowd(0)
    waiting.hold(0, "c")
    crowd = waiting.crowd(0)
    waiting.keep(0, "b")
    waiting.hold(0, "b")
    waiting.hold(0, "d")

    assert (few, crowd) == ([], ["a", "b", "c"])
    assert waiting.crowd(0) == []
    assert waiting.caught_up({0: END}, [0]) == ["d", "b"]
    assert waiting.crowd(0) == []


@step()
async def plain(text: str) -> int:
    return len(text)


@step()
async def keeping(text: str, context: StepContext) -> int:
    return len(text)


class Began(Event):
    pass


class Both(State):
    @runs(plain, keeping)
    def work(self) -> tuple[str, str]:
        return "a", "b"

    @work.done
    def done(self, a: int, b: int) -> Over:
        return Over()

    @work.failed
    def failed(self, failure: StepFailed) -> Over:
        return Over()


class Over(Final):
    pass


def start(event: Began) -> Both:
    return Both()


def test_a_call_that_may_have_kept_something_behind_the_checkpoint_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "MOST", 0)
    run = Run(Workflow("both", start=start, states=[Both, Over]))
    run.send(Began())
    key, stored = flink_key("both", "k"), bytes(9) + (run.stored or b"")
    begun: list[Request] = []
    calls: Any = SimpleNamespace(submit=begun.extend)
    engine: Any = PartitionEngine.__new__(PartitionEngine)
    engine.store = SimpleNamespace(select=lambda _: None, cell=lambda _: SimpleNamespace(read=lambda: stored))
    engine.application = SimpleNamespace(steps=run.workflow.steps)
    engine.recovery, engine.early, engine.restored = Recovery(), set(), True
    engine.recovery.found(0, key)
    engine.recovery.begin(0, Position("5-0"), END)

    engine._begin_again(engine.recovery.crowd(0), calls, 0)
    assert [request.call.step for request in begun] == ["plain"]
    begun.clear()
    engine._begin_again(engine.recovery.caught_up({0: END}, [0]), calls)
    assert [request.call.step for request in begun] == ["keeping"]


# What calls keep ------------------------------------------------------------------------------------------------------


class Queue(FakeQueue):
    def __iter__(self) -> Iterator[bytes]:
        return iter(list(super().__iter__()))


class Store:
    def __init__(self) -> None:
        self.kept = Queue()

    def queue(self, name: str) -> Queue:
        assert name in KeptResults.queues
        return self.kept


def test_what_a_call_has_kept_is_found_by_name() -> None:
    kept = KeptResults(Store())  # type: ignore[arg-type]  # it is a fake
    one, other = CallId("1.0"), CallId("1.1")
    kept.append(one, "a", Raw(b"1"))
    kept.append(other, "a", Raw(b"2"))
    kept.append(one, "b", Raw(b'{"x":"\xc3\xa4"}'))

    assert {n: bytes(o) for n, o in kept.of(one).items()} == {"a": b"1", "b": b'{"x":"\xc3\xa4"}'}
    assert {n: bytes(o) for n, o in kept.of(other).items()} == {"a": b"2"}


def test_what_is_forgotten_leaves_the_others_in_order() -> None:
    store = Store()
    kept = KeptResults(store)  # type: ignore[arg-type]  # it is a fake
    one, other = CallId("1.0"), CallId("1.1")
    for number, call in enumerate((one, other, one, other)):
        kept.append(call, str(number), Raw(b"null"))
    kept.forget(CallId("2.0"))
    kept.forget(one)

    assert list(kept.of(other)) == ["1", "3"]
    assert kept.of(one) == {}
    kept.forget(other)
    assert store.kept == []
    kept.append(one, "0", Raw(b"null"))
    kept.append(other, "1", Raw(b"null"))
    kept.forget(CallId(""))
    assert store.kept == []
