"""The steps' loop by itself: which attempts run, what they keep and ask, and what becomes of them."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from engine.core.entry import AskedEntry, FailureEntry, KeptEntry, ResultEntry, read_entry
from engine.core.ids import CallId, RunId
from engine.core.transition import StartCall
from engine.flink import entrance
from engine.flink.attempt import Attempt, Flight, Request
from engine.flink.calls import Calls
from engine.limits import Pass
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from tests.flink import calling
from tests.flink.calling import BEGUN, FAILING, GO, SEEN, TRIES, application

pytestmark = pytest.mark.redis

PATIENCE = 30.0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RedisLog]:
    server = EmbeddedRedis(tmp_path)
    server.ensure()
    log = RedisLog.create(server.url, 1)
    yield log
    log.close()
    server.stop()


@pytest.fixture
def calls(log: RedisLog, tmp_path: Path) -> Iterator[Calls]:
    SEEN.clear()
    TRIES.clear()
    GO.clear()
    while BEGUN.acquire(blocking=False):
        pass
    calls = Calls(application, EmbeddedRedis(tmp_path).url, log.header)
    calls.start()
    yield calls
    for event in GO.values():
        event.set()
    calls.stop(seconds=10)


def request(
    step: str,
    input: str = "a",
    *,
    attempt: int = 1,
    kept: Mapping[str, bytes] | None = None,
    again: bool = False,
    call: str = "",
    failures: int = 0,
) -> Request:
    held = {name: Raw(value) for name, value in (kept or {}).items()}
    id_ = CallId(call or f"{step}.{input}")
    start = StartCall(RunId("r"), id_, step, Raw(b'"%b"' % input.encode()), attempt, 0, len(held), failures)
    return Request("lingering", "a", start, held, again)


def appended(log: RedisLog, ends: Callable[[list[Any]], object] = bool) -> list[Any]:
    """Everything on the log as soon as it says what is waited for."""
    found: list[Any] = []
    after: str | None = None
    until = datetime.now(UTC).timestamp() + PATIENCE
    while not ends(found):
        assert datetime.now(UTC).timestamp() < until, found
        for item in log.follow("log", {0: after}, 100).get(0, []):
            found.append(read_entry(item.payload))
            after = item.id
    return found


def last(kind: type[Any], count: int = 1) -> Callable[[list[Any]], bool]:
    return lambda found: sum(isinstance(entry, kind) for entry in found) >= count


def outputs(entries: list[Any]) -> list[bytes]:
    return [bytes(e.output) for e in entries if isinstance(e, ResultEntry)]


def kept(entries: list[Any]) -> list[KeptEntry]:
    return [e for e in entries if isinstance(e, KeptEntry) and e.kind != "progress"]


def test_a_later_attempt_takes_the_place_of_one_that_still_runs(calls: Calls, log: RedisLog) -> None:
    """After a restore an attempt runs again whose failure already stands on the log: the fold asks for the next."""
    calls.submit([request("linger")])
    BEGUN.acquire()
    calls.submit([request("linger", attempt=2), request("linger")])
    BEGUN.acquire()

    results = appended(log)

    assert [(type(r), r.attempt) for r in results] == [(ResultEntry, 2)]


# What once keeps ------------------------------------------------------------------------------------------------------


def test_what_once_keeps_stands_on_the_log_before_the_result(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("three")])

    *parts, result = appended(log, last(ResultEntry))

    assert [(p.index, p.name, bytes(p.output), p.kind, p.again) for p in parts] == [
        (0, "part 1", b"10", "once", False),
        (1, "part 2", b"20", "once", False),
        (2, "part 3", b"30", "once", False),
    ]
    assert bytes(result.output) == b"[10,20,30]"
    assert all(p.started and p.took >= 0 for p in parts)


def test_what_is_kept_runs_no_more(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("three", kept={"part 1": b"1", "part 2": b"2"}, again=True)])

    part, result = appended(log, last(ResultEntry))

    assert SEEN == ["a 3"]
    assert (part.index, part.name) == (2, "part 3")
    assert bytes(result.output) == b"[1,2,30]"


def test_only_the_first_that_is_not_kept_was_perhaps_begun_before(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("three", kept={"part 1": b"1"}, again=True)])

    assert [p.again for p in kept(appended(log, last(ResultEntry)))] == [True, False]


def test_a_failure_says_which_part_it_was(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("three", "fails at 2")])

    part, failure = appended(log, last(FailureEntry))

    assert part.name == "part 1"
    assert (failure.inner, failure.error, failure.message) == ("part 2", "ValueError", "the line is cut")


def test_a_part_that_takes_too_long_is_named(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("late")])

    (failure,) = appended(log)

    assert (failure.error, failure.inner) == ("Timeout", "the slow one")


def test_a_part_that_goes_on_when_its_attempt_has_failed_is_not_kept(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("stray")])
    appended(log, last(FailureEntry))
    GO["a"].set()
    BEGUN.acquire()
    calls.submit([request("stray", attempt=2)])

    found = appended(log, last(ResultEntry))

    assert SEEN == ["slow"]
    assert kept(found) == []


def test_a_name_that_is_used_twice_halts(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("twice")])

    _, failure = appended(log, last(FailureEntry))

    assert (failure.error, failure.halts, failure.inner) == ("NameTaken", True, "")
    assert "'same'" in failure.message


def test_what_is_kept_and_fits_no_more_halts(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("three", kept={"part 1": b'"ten"'})])

    (failure,) = appended(log, last(FailureEntry))

    assert (failure.error, failure.halts) == ("UnreadableResult", True)
    assert "'part 1'" in failure.message


@pytest.mark.parametrize("kept_before", [None, {"card": b'{"number":"4711"}', "pair": b"[1,2]"}])
def test_a_result_is_of_the_same_type_in_every_attempt(
    calls: Calls, log: RedisLog, kept_before: dict[str, bytes] | None
) -> None:
    calls.submit([request("keep_odd", "typed", kept=kept_before)])

    assert outputs(appended(log, last(ResultEntry))) == [b"\"(Card(number='4711'), (1, 2))\""]


@pytest.mark.parametrize(
    ("input", "words"),
    [
        ("untyped", "'card' keeps a Card, and nothing says so to a later attempt: give it gives=Card"),
        ("large", "the result of 'large' has 2097154 bytes, the limit is 1048576"),
        ("other", ""),
    ],
)
def test_a_result_that_cannot_be_kept_is_invalid(calls: Calls, log: RedisLog, input: str, words: str) -> None:
    calls.submit([request("keep_odd", input)])

    (failure,) = appended(log, last(FailureEntry))

    assert failure.error == "InvalidResult"
    assert words in failure.message


async def test_the_time_limit_counts_anew_from_what_is_kept() -> None:
    said: list[Any] = []

    class Loop:
        async def keep(self, request: Request, entry: KeptEntry) -> None:
            said.append(entry)

    flight = Flight(request("three"), calling.three, None, 0.0)  # type: ignore[arg-type]  # nothing runs
    runner = Attempt(Loop(), flight, {})  # type: ignore[arg-type]  # it keeps, and that is asked for alone
    runner.failures, before = 3, runner.context.deadline

    async def work() -> int:
        return 1

    assert await runner.once("a", work, None) == 1
    assert flight.deadline > 0
    assert runner.context.deadline > before
    assert runner.failures == 0


# How a step may fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("later", ("TryAgain", False, 90_000, False, False)),
        ("down", ("TryAgain", False, 0, True, False)),
        ("never", ("NeverAgain", True, 0, False, False)),
        ("halts", ("StepHalts", False, 0, False, True)),
        ("else", ("ValueError", False, 0, False, False)),
    ],
)
def test_what_a_step_raises_says_what_follows(calls: Calls, log: RedisLog, kind: str, expected: object) -> None:
    calls.submit([request("refuse", kind)])

    (f,) = appended(log)

    assert (f.error, f.final, f.wait, f.outage, f.halts) == expected


# People ---------------------------------------------------------------------------------------------------------------


def test_a_question_ends_the_attempt_without_a_failure(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("swallow")])
    (asked,) = appended(log, last(AskedEntry))
    answer = b'{"who":"ann","answer":{"granted":true}}'
    calls.submit([request("swallow", attempt=2, kept={"leave": answer})])

    found = appended(log, last(ResultEntry))

    assert (asked.name, asked.group, asked.question, asked.attempt) == ("leave", "chiefs", "May I?", 1)
    assert b'"granted"' in bytes(asked.schema)
    assert [type(entry) for entry in found] == [AskedEntry, ResultEntry]
    assert outputs(found) == [b'"ann: True"']


def test_an_attempt_that_asks_is_not_in_flight(calls: Calls, log: RedisLog) -> None:
    """The very same attempt may be asked for again, as after a crash between question and checkpoint."""
    calls.submit([request("swallow")])
    appended(log, last(AskedEntry))
    calls.submit([request("swallow")])

    assert len(appended(log, last(AskedEntry, 2))) == 2


def test_what_has_begun_is_kept_before_the_question(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("ask_among_others")])
    GO["a"].set()
    other, asked = appended(log, last(AskedEntry))
    answer = b'{"who":"ann","answer":{"granted":false}}'
    calls.submit([request("ask_among_others", attempt=2, kept={"other": bytes(other.output), "ask": answer})])

    found = appended(log, last(ResultEntry))

    assert (other.name, other.index, asked.name) == ("other", 0, "ask")
    assert outputs(found) == [b'"done False"']


# Progress -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("input", "end"), [("well", ResultEntry), ("fail", FailureEntry)])
def test_of_many_words_the_first_and_the_last_are_recorded(
    calls: Calls, log: RedisLog, input: str, end: type[Any]
) -> None:
    calls.submit([request("count", input)])

    first, second, result = appended(log, last(end))

    assert [(e.kind, e.note) for e in (first, second)] == [("progress", "0 of 50"), ("progress", "49 of 50")]
    assert isinstance(result, end)


# Steps that block -----------------------------------------------------------------------------------------------------


def test_a_step_that_blocks_runs_in_a_thread_of_its_own(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("block", "one"), request("block", "two"), request("share")])
    BEGUN.acquire()
    BEGUN.acquire()
    appended(log, lambda found: any(entry.call == "share.a" for entry in found))
    GO["one"].set()
    GO["two"].set()

    found = appended(log, lambda found: {"block.one", "block.two"} <= {e.call for e in found})

    assert {bytes(e.output) for e in found if e.call.startswith("block")} == {b'"longwatch-step"'}


def test_no_more_threads_than_are_allowed(calls: Calls, log: RedisLog) -> None:
    names = [f"n{i}" for i in range(entrance.BLOCKING_THREADS + 2)]
    calls.submit([request("block", name) for name in names])
    for _ in range(entrance.BLOCKING_THREADS):
        BEGUN.acquire()
    threads = {t for t in threading.enumerate() if t.name.startswith("longwatch-step_")}
    waiting = not BEGUN.acquire(timeout=0.05)
    for name in names:
        GO[name].set()

    assert waiting
    assert len(threads) == entrance.BLOCKING_THREADS
    assert len(appended(log, last(ResultEntry, len(names)))) == len(names)


def test_a_call_that_is_cancelled_behind_the_gate_gives_its_thread_back(calls: Calls, log: RedisLog) -> None:
    """Between its entrance and its beginning, which is one turn of the loop or many."""
    names = [f"c{i}" for i in range(entrance.BLOCKING_THREADS)]
    cancelled = threading.Event()

    def come_and_go() -> None:
        for name in names:
            calls._begin([request("block", name)])
        calls._cancel([(RunId("r"), CallId(f"block.{name}")) for name in names])
        cancelled.set()

    calls._loop.call_soon_threadsafe(come_and_go)
    assert cancelled.wait(PATIENCE)
    GO["next"].set()
    calls.submit([request("block", "next")])

    assert len(outputs(appended(log, last(ResultEntry)))) == 1


def test_a_thread_that_goes_on_after_its_time_is_given_up(
    calls: Calls, log: RedisLog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        calls.submit([request("hang")])
        note, failure = appended(log, last(FailureEntry))
    calls.submit([request("order", "new")])
    GO["a"].set()

    entries = appended(log, last(ResultEntry))

    assert (note.note, failure.error) == ("hangs", "Timeout")
    assert "step hang of lingering/a was given up, and its thread goes on" in caplog.text
    assert outputs(entries) == [b'"made"']


def test_a_thread_may_raise_anything(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("block", "generator")])

    (failure,) = appended(log)

    assert (failure.error, failure.message) == ("RuntimeError", "the step raised StopIteration")


# Limits ---------------------------------------------------------------------------------------------------------------


def test_calls_wait_at_the_limit_of_their_step(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("one_at_a_time", name) for name in ("x", "y", "z")])
    BEGUN.acquire()
    alone = list(SEEN)
    calls.cancel([(RunId("r"), CallId("one_at_a_time.y"))])
    GO["x"].set()
    BEGUN.acquire()
    GO["z"].set()

    found = outputs(appended(log, last(ResultEntry, 2)))

    assert alone == ["x in"]
    assert SEEN == ["x in", "x out", "z in", "z out"]
    assert found == [b'"x"', b'"z"']
    assert not calls.in_flight


def test_at_a_model_those_that_have_begun_go_first(calls: Calls, log: RedisLog) -> None:
    calls.submit([request("think", "x")])
    BEGUN.acquire()
    calls.submit([request("think", "y"), request("think", "z", kept={"turn 1": b"1"})])
    for name in ("x", "y", "z"):
        GO[name].set()

    assert len(outputs(appended(log, last(ResultEntry, 3)))) == 3
    assert [line for line in SEEN if line.endswith("first")] == ["x first", "z first", "y first"]


async def test_waiting_for_a_pass_takes_nothing_off_the_time_limit() -> None:
    class Loop:
        @asynccontextmanager
        async def passing(self, flight: Flight, gate: str, tokens: int) -> AsyncIterator[None]:
            assert flight.deadline == float("inf")
            yield

    flight = Flight(request("three"), calling.three, None, 5.0)  # type: ignore[arg-type]  # nothing runs
    runner = Attempt(Loop(), flight, {})  # type: ignore[arg-type]  # it passes, and that is asked for alone

    async with runner.passing("model:a"), runner.passing("model:b"):
        within = flight.deadline

    assert 5.0 <= within <= flight.deadline
    assert math.isfinite(flight.deadline)


@pytest.mark.parametrize(("serves", "told"), [(True, ["ended old"]), (False, ["returned old", "asked for model:a, 7"])])
async def test_a_pass_that_is_too_old_is_given_back_and_another_one_taken(serves: bool, told: list[str]) -> None:
    said: list[str] = []

    class Gate:
        def serves(self, passed: Pass, tokens: int) -> bool:
            return serves and tokens == 7

        def returned(self, passed: Pass) -> None:
            said.append(f"returned {passed.name}")

        def ended(self, passed: Pass) -> None:
            said.append(f"ended {passed.name}")

    class Loop:
        @asynccontextmanager
        async def passing(self, flight: Flight, gate: str, tokens: int) -> AsyncIterator[None]:
            said.append(f"asked for {gate}, {tokens}")
            yield

    flight = Flight(request("three"), calling.three, None, 5.0)  # type: ignore[arg-type]  # nothing runs
    flight.passes = {"model:a": Pass(Gate(), "old", 0)}  # type: ignore[arg-type]  # as much of a gate as is asked
    runner = Attempt(Loop(), flight, {})  # type: ignore[arg-type]  # likewise

    async with runner.passing("model:a", tokens=7):
        pass

    assert said == told
    assert flight.passes == {}


# What steps share, and what is looked up ------------------------------------------------------------------------------


def test_resources_are_made_once_in_order_and_closed_in_reverse(calls: Calls, log: RedisLog) -> None:
    FAILING.add("second")
    calls.submit([request("share")])
    (failure,) = appended(log)
    calls.submit([request("share", attempt=2), request("share", "b")])
    found = appended(log, last(ResultEntry, 2))
    calls.stop(seconds=10)

    assert (failure.error, failure.message) == ("ConnectionError", "not yet")
    assert outputs(found) == [b'"first=first second=second model:thinker=thinker"'] * 2
    made = ["first asked for", "second asked for", "second asked for"]
    assert [*made, "second closed by the same task", "first closed by the same task"] == TRIES


@pytest.mark.parametrize(
    ("input", "again", "answer", "looked"),
    [("done", True, b'"found"', ["done looked up"]), ("new", True, b'"made"', ["new looked up"]),
     ("done", False, b'"made"', [])],
)  # fmt: skip
def test_what_may_have_happened_is_looked_up(
    calls: Calls, log: RedisLog, input: str, again: bool, answer: bytes, looked: list[str]
) -> None:
    calls.submit([request("order", input, again=again)])

    assert outputs(appended(log)) == [answer]
    assert looked == SEEN
