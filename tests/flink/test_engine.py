"""One engine, everything once: the flow, bad input, handlers and steps that fail, archive and trimming."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

import pytest
from msgspec import Raw

from engine.core.entry import EventEntry, OrderEntry, write_entry
from engine.core.record import read_record
from engine.flink import held as held_entries
from engine.log.janitor import Janitor
from tests.flink.harness import Stage
from tests.flink.world import OrderPlaced, OrderTouched, Poked, TrialBegun, TroubleBegun, TroubleEnded

pytestmark = [pytest.mark.flink, pytest.mark.redis]

LAPSE = 20_000.0
"""A day of the log in 4.3 seconds."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("engine"), lapse=LAPSE) as stage:
        stage.start(handler_timeout_ms=1000)
        yield stage


def orders(count: int, prefix: str = "o") -> list[OrderPlaced]:
    """Orders of ten customers; every fifth is shipped at the third attempt, every eleventh never."""
    return [
        OrderPlaced(
            id=f"{prefix}{i}",
            customer=f"c{i % 10}",
            items=tuple(f"item {j}" for j in range(i % 4)),
            flaky=9 if i % 11 == 10 else 2 if i % 5 == 0 else 0,
        )
        for i in range(count)
    ]


def test_the_flow_of_everything_ends_as_the_pure_fold_says(stage: Stage) -> None:
    stage.send(*orders(200))
    stage.send(*(OrderTouched(id=f"o{i}") for i in range(200)))
    stage.until_status("order", "finished", 200)
    pure = stage.proven()

    ends = {record.key: record.to for record in pure.records if record.workflow == "order"}
    refused = {f"o{i}" for i in range(200) if i % 11 == 10}
    assert {key for key, state in ends.items() if state == "Refused"} == refused
    assert len(pure.outputs["outbox"]) == 200 - len(refused)
    assert not stage.letters()
    accounts = {r.key: r for r in pure.records if r.workflow == "account"}
    assert len(accounts) == 10
    reminders = [r for r in pure.records if r.name == "Resting.remind"]
    assert len(reminders) == 2 * len(pure.outputs["outbox"])
    assert all((r.at - r.since) % 36_000_000 == 0 for r in reminders)


# Bad input straight on the log ---------------------------------------------------------------------------------------

MANY_BYTES = (1 << 20) + 1


def event_entry(workflow: str = "trouble", key: str = "bad", kind: str = "TroubleBegun", data: bytes = b"{}") -> bytes:
    return write_entry(EventEntry(workflow, key, f"{key}-{kind}", "test", kind, Raw(data)))


BAD = {
    "no JSON": (b"\x00\xffnothing", "no entry"),
    "a JSON of another kind": (b'{"t":"gossip","workflow":"trouble","key":"bad"}', "no entry"),
    "no object": (b"[1,2,3]", "no entry"),
    "nothing": (b"", "no entry"),
    "a field of another type": (b'{"t":"tick","workflow":"trouble","key":"bad","due":"soon"}', "no entry"),
    "a workflow that nobody has": (event_entry(workflow="lunch"), "no workflow 'lunch'"),
    "an event that nobody knows": (event_entry(kind="Lunch"), "knows no event 'Lunch'"),
    "a start that fails its schema": (event_entry(data=b'{"id":7}'), "does not fit its schema: id"),
    "an order for a run that is not there": (
        write_entry(OrderEntry("trouble", "bad", "resume", who="operator")),
        "there is no run trouble/bad to resume",
    ),
    "too many bytes": (event_entry(data=b'{"id":"%b"}' % (b"x" * MANY_BYTES)), "at most 1048576"),
}


def test_what_cannot_be_read_or_belongs_to_nobody_is_a_dead_letter_with_its_bytes(stage: Stage) -> None:
    right = stage.partition("trouble", "bad")
    places = {name: stage.log.append(right, payload).position for name, (payload, _) in BAD.items()}
    astray = stage.log.append((right + 1) % 16, event_entry(data=b'{"id":"bad"}'))
    stage.send(TroubleBegun(id="after bad input"))
    stage.until_status("trouble", "waiting", 1)
    stage.until_quiet()

    letters = stage.letters()
    for name, (payload, reason) in BAD.items():
        assert reason in letters[places[name]].reason, name
        if "no entry" in reason or "many" in name:
            assert letters[places[name]].body == payload, name
    assert "where its run is not" in letters[astray.position].reason
    assert len(letters) == len(BAD) + 1
    assert ("trouble", "bad") not in stage.journal.latest


def test_an_event_that_its_state_does_not_know_or_that_comes_twice_is_ignored_and_recorded(stage: Stage) -> None:
    begun, poked = (entry for entry in stage.entries(TroubleBegun(id="twice"), Poked(id="twice")))
    stage.log.append_many([begun, poked, poked, begun])
    stage.send(TroubleEnded(id="twice"), Poked(id="twice"))
    stage.until(lambda: len(stage.journal.of("trouble", "twice")) == 6, "six records")

    ignored = [record.ignored for record in stage.journal.of("trouble", "twice")]
    assert ignored[:2] == ["", ""]
    assert "a repeat" in ignored[2]
    assert "a repeat" in ignored[3]
    assert "finished (Over)" in ignored[5]


# Handlers that fail --------------------------------------------------------------------------------------------------

FAILURES = {
    "raise": "ValueError: this handler is broken",
    "wrong": "TypeError: poked answered with str, but its annotation says Calm",
    "loop": "HandlerTimeout: it did not end within 1 s",
    "exit": "SystemExit: 3",
    "deep": "RecursionError: maximum recursion depth exceeded",
    "odd words": "OddError: (its words cannot be had: RuntimeError)",
}


def test_a_handler_that_fails_halts_its_run_by_a_verdict_and_later_entries_wait_in_order(stage: Stage) -> None:
    for how in FAILURES:
        stage.send(TroubleBegun(id=how), Poked(id=how), Poked(id=how, how=how), Poked(id=how), TroubleEnded(id=how))  # type: ignore[arg-type]
    stage.until(lambda: all(stage.journal.latest["trouble", how].seq == 5 for how in FAILURES), "all are halted")

    for how, words in FAILURES.items():
        records = stage.journal.of("trouble", how)
        assert [r.status for r in records] == ["waiting", "waiting", "halted", "halted", "halted"]
        assert records[2].halted is not None
        assert words in records[2].halted.error
        assert records[2].halted.cause == "event Poked in Calm"
        assert ":" in records[2].halted.where or how == "wrong"
        assert [r.ignored for r in records[3:]] == ["held: the run is halted"] * 2
    verdicts = sum(len(stage.log.verdicts(p, None)) for p in range(16))
    assert verdicts == len(FAILURES)


def test_skip_leaves_out_what_halted_and_folds_what_was_held(stage: Stage) -> None:
    for how in FAILURES:
        stage.order("trouble", how, "skip")
    stage.until(lambda: all(stage.journal.latest["trouble", how].to == "Over" for how in FAILURES), "all go on")

    for how in FAILURES:
        *_, left_out, poked, ended = stage.journal.of("trouble", how)
        assert left_out.ignored == "left out by an order"
        assert (poked.ignored, ended.ignored, ended.status) == ("", "", "finished")


def test_resume_without_a_fix_halts_again_and_cancel_ends_the_run(stage: Stage) -> None:
    stage.send(TroubleBegun(id="again"), Poked(id="again", how="raise"), Poked(id="again"))
    stage.until(lambda: len(stage.journal.of("trouble", "again")) == 3, "it is halted")
    stage.order("trouble", "again", "resume")
    stage.until(lambda: len(stage.journal.of("trouble", "again")) == 5, "it is halted again")
    assert stage.journal.latest["trouble", "again"].status == "halted"
    stage.order("trouble", "again", "cancel")
    stage.until(lambda: stage.journal.latest["trouble", "again"].status == "finished", "it is cancelled")

    assert [r.ignored for r in stage.journal.of("trouble", "again")[-2:]] == ["the run was cancelled"] * 2


def test_a_start_that_fails_halts_a_run_that_an_order_can_leave_out(stage: Stage) -> None:
    stage.send(TroubleBegun(id="bad start", how="raise"), Poked(id="bad start"))
    stage.until(lambda: len(stage.journal.of("trouble", "bad start")) == 2, "it is halted")
    stage.order("trouble", "bad start", "skip")
    stage.until_quiet()
    stage.send(TroubleBegun(id="bad start"))
    stage.until(lambda: stage.journal.latest["trouble", "bad start"].to == "Calm", "it begins after all")

    assert stage.letters()[stage.receipts[-2].position].reason == "the run that it waited for was left out by an order"


def test_a_start_without_an_end_halts_its_run_too(stage: Stage) -> None:
    stage.send(TroubleBegun(id="endless", how="loop"))
    stage.until(lambda: stage.journal.latest["trouble", "endless"].status == "halted", "it is halted")

    halted = stage.journal.latest["trouble", "endless"].halted
    assert halted is not None
    assert "HandlerTimeout: it did not end within 1 s" in halted.error


def test_more_than_fits_is_held_in_a_file_and_still_in_order(stage: Stage) -> None:
    padding = "x" * 900_000
    stage.send(TroubleBegun(id="long"), Poked(id="long", how="raise"))
    count = held_entries.MOST_BYTES // len(padding) + 12
    stage.send(*(Poked(id="long", padding=padding) for _ in range(count)), TroubleEnded(id="long"))
    stage.until(lambda: len(stage.journal.of("trouble", "long")) == count + 3, "all are held")
    spilled = list((stage.data / "held").glob("*.held"))
    assert len(spilled) == 1
    assert 10 * len(padding) < spilled[0].stat().st_size < 15 * len(padding)
    stage.order("trouble", "long", "skip")
    stage.until(lambda: stage.journal.latest["trouble", "long"].status == "finished", "all are folded")

    *_, last, ended = stage.journal.of("trouble", "long")
    assert last.data == Raw(b'{"pokes":%d}' % count)
    assert ended.to == "Over"
    assert not list((stage.data / "held").glob("*.held"))


# Steps that fail -----------------------------------------------------------------------------------------------------

TRIALS = {
    "raise": ("RuntimeError", "no luck", 2),
    "never": ("Shown", "no use to try again", 1),
    "exit": ("SystemExit", "4", 2),
    "slow": ("Timeout", "no answer within 1 s", 2),
    "stubborn": ("Timeout", "no answer within 1 s", 2),
    "cancelled": ("Cancelled", "the step cancelled itself", 2),
    "type": ("InvalidResult", "", 2),
    "object": ("InvalidResult", "", 2),
    "lambda": ("InvalidResult", "", 2),
    "surrogate": ("InvalidResult", "", 2),
    "large": ("InvalidResult", "the result has 2097154 bytes, the limit is 1048576", 2),
}


def test_a_step_that_fails_is_tried_again_and_then_given_up(stage: Stage) -> None:
    stage.send(*(TrialBegun(id=how, how=how) for how in (*TRIALS, "fine")))
    stage.until_status("trial", "finished", len(TRIALS) + 1)

    for how, (kind, words, attempts) in TRIALS.items():
        end = stage.journal.latest["trial", how]
        assert end.to == "GivenUp", how
        failed = [r for r in stage.journal.of("trial", how) if r.cause == "failure"]
        assert [r.attempt for r in failed] == list(range(1, attempts + 1)), how
        assert all(r.error.startswith(f"{kind}: ") for r in failed), (how, failed)
        assert words in failed[0].error
    assert stage.journal.latest["trial", "fine"].data == Raw(b'{"answer":"fine at 1"}')


def test_a_step_that_blocks_the_loop_is_named_in_the_log(stage: Stage) -> None:
    stage.send(TrialBegun(id="blocks", how="block"))
    stage.until_logged("step attempt of trial/blocks blocks the loop")

    assert "world.py" in stage.engine_log().partition("trial/blocks blocks the loop")[2]


# A disk that is full -------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_costs_checkpoints_and_nothing_else(stage: Stage) -> None:
    """No file may grow beyond some bytes for a while, which is how a full disk looks to Flink."""
    assert stage.engine is not None
    jvm = stage.jvm
    limits = resource.prlimit(jvm, resource.RLIMIT_FSIZE)
    stage.send(TroubleBegun(id="disk"))
    resource.prlimit(jvm, resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        stage.engine.wait_for("checkpoint_failed")
        stage.send(Poked(id="disk"))
        stage.until(lambda: stage.journal.latest["trouble", "disk"].seq == 2, "runs go on meanwhile")
    finally:
        resource.prlimit(jvm, resource.RLIMIT_FSIZE, limits)
    room = int(time.time() * 1000)
    while stage.engine.wait_for("checkpoint")["newest_trigger"] < room:
        pass


# A clock that is set back --------------------------------------------------------------------------------------------


def test_when_the_clock_is_behind_the_log_its_time_stands_and_timers_come_neither_early_nor_twice(
    stage: Stage,
) -> None:
    """An entry from the future leaves the server's clock seconds behind its last id, as one that is set back does."""
    key = "clock"
    here = stage.partition("order", key)
    stage.send(OrderPlaced(id=key, customer="clock"))
    stage.until(lambda: stage.journal.latest["order", key].to == "Resting", "it rests")
    ((_, touched),) = stage.entries(OrderTouched(id=key))
    future = int(time.time() * 1000) + 5_000
    stage.redis("XADD", f"lw:log:{here}", f"{future}-0", "e", touched)
    ((_, again),) = stage.entries(OrderTouched(id=key))
    assert stage.log.append(here, again).position == f"{future}-1"
    other = next(f"after{i}" for i in range(1000) if stage.partition("order", f"after{i}") == here)
    stage.send(OrderPlaced(id=other, customer="clock"))
    stage.until(lambda: stage.journal.latest["order", key].to == "Closed", "the first one closes")
    stage.until(lambda: stage.journal.latest["order", other].to == "Closed", "the one after the jump closes")

    times = [stage.log.header.log_time(item.stamp) for item in stage.log.scan("log", here)]
    assert times == sorted(times)
    for run in (key, other):
        records = stage.journal.of("order", run)
        assert [r.name for r in records if r.cause == "timer"] == ["Resting.remind", "Resting.remind", "Resting.close"]
        assert all(
            r.at == r.since + 36_000_000 * (i + 1)
            for i, r in enumerate(r for r in records if "remind" in r.name and r.cause == "timer")
        )
    ticks = [item for item in stage.log.scan("log", here) if b'"tick"' in item.payload and b'"after' in item.payload]
    assert len(ticks) < 10


# The end: everything at once, again ----------------------------------------------------------------------------------


def test_all_of_it_is_what_the_pure_fold_says_also_from_the_archive(stage: Stage) -> None:
    pure = stage.proven()
    assert stage.engine is not None
    trigger = int(time.time() * 1000)
    while (line := stage.engine.wait_for("checkpoint"))["oldest_trigger"] < trigger:
        pass
    tidying = Janitor(stage.log, stage.archive).tidy(line["oldest_trigger"], everything=True)
    stage.send(*orders(20, "late"))
    stage.until(
        lambda: all(stage.journal.latest["order", f"late{i}"].status == "finished" for i in range(20)), "they close"
    )
    again = stage.proven()

    assert sum(stage.log.held("log", p)[0] for p in tidying.trimmed) < again.entries - pure.entries + 16
    assert pure.outputs["journal"].items() <= again.outputs["journal"].items()
    assert sum(1 for _ in stage.archive.scan("journal", 0)) > 0
    calls = {key for key, _ in stage.effects()}
    assert calls <= again.calls
    named = {r.id for r in map(read_record, again.outputs["journal"].values()) if r.cause == "result" and not r.ignored}
    assert named
