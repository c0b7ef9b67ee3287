"""What is counted, once each, whatever is killed and in whatever order partitions are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.entry import Used
from engine.core.ids import Position
from engine.core.record import (
    DeadLetter,
    Episode,
    Group,
    Halted,
    Published,
    Record,
    read_record,
    write_record,
)
from engine.core.telling import HELD
from engine.core.trace import episode_trace, run_trace
from engine.testing import Simulation
from observability import metric as m
from observability.metric import CATALOGUE, MOST_VALUES
from observability.metrics import Exposition
from observability.metrics_server import Counting
from observability.tally import Tally, read_seen
from tests.core import zoo
from tests.core.test_properties import actions, parse, play, scripts
from tests.observability.counted import MemoryJournal, numbers, record, tally_of

DAY = 86_400_000


def counting(journal: MemoryJournal, path: Path) -> Counting:
    return Counting(journal, Exposition(Tally()), path, wait_ms=0)


def recorded(script: list[int], schedule: list[tuple[int, int]]) -> list[Record]:
    """What a random machine does under a random schedule, crashes among it."""
    made = [parse(raw) for raw in play(script, schedule).outputs.values()]
    return [each for each in made if isinstance(each, Record)]


# -- exactness ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(scripts, actions, st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12))
def test_kills_at_any_instant_lose_nothing_and_double_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    script: list[int],
    schedule: list[tuple[int, int]],
    life: list[tuple[int, bool]],
) -> None:
    records = recorded(script, schedule)
    path = tmp_path_factory.mktemp("tally") / "metrics.json"
    journal = MemoryJournal()
    left = list(records)
    alive = counting(journal, path)
    for count, saves in life:
        for each in left[:count]:
            journal.add("ab".index(each.key), each)
        del left[:count]
        alive.step()
        if saves:
            alive.save()
        alive = counting(journal, path)  # it was killed, and another one begins where the file ends
    for each in left:
        journal.add("ab".index(each.key), each)
    while alive.step():
        pass
    whole = counting(journal, path.with_name("other.json"))
    while whole.step():
        pass

    assert numbers(alive.tally) == numbers(whole.tally) == numbers(tally_of(records))
    assert alive.tally.records == len(records)


@settings(max_examples=60)
@given(scripts, actions)
def test_what_is_counted_is_what_runs_did(script: list[int], schedule: list[tuple[int, int]]) -> None:
    records = recorded(script, schedule)
    found = numbers(tally_of(records))
    runs = {each.run for each in records if each.run}
    taken = [r for r in records if r.cause == "result" and r.attempt and not r.ignored and r.halted is None]
    fired = [r for r in records if r.cause == "timer" and not r.name.startswith("retry ") and not r.ignored]
    over = {r.run for r in records if r.status == "finished" and r.run}

    assert sum(found.get("longwatch_runs_started_total", {}).values()) == len(runs)
    assert sum(found.get("longwatch_runs_finished_total", {}).values()) == len(over)
    assert sum(v for k, v in found.get("longwatch_step_attempts_total", {}).items() if k[2] == "ok") == len(taken)
    assert sum(found.get("longwatch_timers_fired_total", {}).values()) == sum(r.halted is None for r in fired)
    entered = Counter((r.workflow, r.to) for r in records if r.to != r.from_ and not r.halted)
    assert found.get("longwatch_state_entered_total", {}) == entered
    dwelt = found.get("longwatch_state_dwell_seconds", {})
    for (workflow, state), times in found.get("longwatch_state_entered_total", {}).items():
        assert sum(dwelt.get((workflow, state), ((), 0))[0]) <= times


@given(st.lists(st.integers(0, 10**9), max_size=50), st.randoms(use_true_random=False))
def test_the_order_in_which_records_come_makes_no_difference(values: list[int], random: object) -> None:
    records = [record(cause="result", name="assess", attempt=1, took=value, started=1) for value in values]
    shuffled = records[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert numbers(tally_of(records)) == numbers(tally_of(shuffled))


def test_the_quick_reading_of_a_record_sees_what_the_whole_one_says() -> None:
    one = record(
        cause="kept",
        name="assess",
        used=Used("claims-assessor", input=10, output=5, cached=2, thought=1, cost=700),
        kind="model",
        again=True,
        from_="A",
        to="B",
        since=1_700_000_000_000,
        left=(Group("A", 1, 1_600_000_000_000),),
        began=1_600_000_000_000,
        published=(Published("p", "Decided"),),
        starts=3,
        episode=Episode(1, 2),
    )
    quick, whole = Tally(), Tally()
    quick.take(read_seen(write_record(one)))
    whole.take(read_record(write_record(one)))

    assert numbers(quick) == numbers(whole)
    assert len(numbers(quick)) > 8


# -- what counts as what -----------------------------------------------------------------------------------------------


def test_an_application_that_halts_its_run_counts_as_a_halt_and_as_nothing_else() -> None:
    halting = record(cause="result", name="assess", attempt=1, started=1, took=5, halted=Halted("ValueError: no"))

    assert numbers(tally_of([halting])) == {"longwatch_halts_total": {("claims",): 1}}


@pytest.mark.parametrize("ignored", [HELD, "kept for a later state: Review names Decided in later="])
def test_what_is_held_or_kept_is_counted_when_it_is_done_with(ignored: str) -> None:
    assert numbers(tally_of([record(name="Decided", ignored=ignored)])) == {}


def test_an_event_that_is_kept_for_a_later_state_is_counted_once() -> None:
    run = Simulation(zoo.order)
    run.fake(zoo.tell, lambda _: None)
    run.send(zoo.Placed(order="test"))
    run.send(zoo.Shipped(parcel="p"))
    run.send(zoo.Noise())
    run.send(zoo.Paid(amount=3))
    found = numbers(tally_of(run.records))["longwatch_events_total"]

    assert found == {
        ("order", "Placed", "yes"): 1,
        ("order", "Shipped", "yes"): 1,
        ("order", "Noise", "no"): 1,
        ("order", "Paid", "yes"): 1,
    }


def test_a_run_that_is_finished_is_counted_with_its_outcome_and_its_length() -> None:
    done = record(to="Paid", from_="Review", status="finished", at=1_700_000_000_000, began=1_700_000_000_000 - DAY)
    gone = record(cause="order", name="cancel", from_="Review", to="Review", status="finished", at=10, began=5)
    never = record(cause="order", name="skip", status="finished", at=10, began=10)
    tally = tally_of([done, gone, never])
    found = numbers(tally)

    assert found["longwatch_runs_finished_total"] == {
        ("claims", "Paid"): 1,
        ("claims", "cancelled"): 1,
        ("claims", "left out"): 1,
    }
    assert found["longwatch_run_duration_seconds"]["claims",][1] == DAY + 5


def test_an_exemplar_names_the_trace_of_the_run_or_of_the_episode() -> None:
    episode = Episode(3, 4)
    tally = tally_of(
        [
            record(to="Paid", from_="Review", status="finished", began=1_600_000_000_000),
            record(cause="result", name="assess", attempt=1, started=1, took=30_000, episode=episode),
        ]
    )
    (duration,) = tally.histograms[m.RUN_DURATION].values()
    (step,) = tally.histograms[m.STEP_DURATION].values()

    assert [each.trace for each in duration.exemplars.values()] == [run_trace("ab" * 8)]
    assert [each.trace for each in step.exemplars.values()] == [episode_trace("ab" * 8, episode)]


def test_a_failed_attempt_is_counted_by_the_class_of_its_error() -> None:
    failed = record(cause="failure", name="assess", attempt=1, started=1, error="TimeoutError: after 3 s: given up")

    assert numbers(tally_of([failed]))["longwatch_step_failures_total"] == {("claims", "assess", "TimeoutError"): 1}


def test_late_results_and_retries_are_no_attempts_and_no_timers() -> None:
    late = record(cause="result", name="assess", attempt=1, started=1, ignored="late: nobody waits for this call")
    retry = record(cause="timer", name="retry assess", id="3.0")
    grant = record(cause="result", name="assess", id="3.0.budget", attempt=1)
    nothing = record(cause="result", name="check each", attempt=0)

    assert numbers(tally_of([late, retry, grant, nothing])) == {"longwatch_attempts_recorded_total": {("claims",): 1}}


def test_model_calls_are_counted_with_tokens_and_cost_though_they_come_too_late() -> None:
    used = Used("claims-assessor", input=100, output=50, cached=20, thought=10, cost=1_500)
    free = Used("claims-assessor", input=1, output=1)
    found = numbers(
        tally_of(
            [
                record(cause="kept", name="assess", kind="model", used=used),
                record(cause="kept", name="", kind="model", used=free, ignored="late: nobody waits for this call"),
                record(cause="failure", name="assess", attempt=1, error="InvalidAnswer: it was told often enough"),
            ]
        )
    )

    assert found["longwatch_llm_calls_total"] == {
        ("claims", "assess", "claims-assessor"): 1,
        ("claims", "", "claims-assessor"): 1,
    }
    assert found["longwatch_llm_tokens_total"]["claims", "claims-assessor", "input"] == 101
    assert found["longwatch_llm_cost_euros_total"] == {("claims", "claims-assessor"): 1_500}
    assert found["longwatch_llm_unpriced_calls_total"] == {("claims", "claims-assessor"): 1}
    assert found["longwatch_llm_invalid_answers_total"] == {("claims", "assess", "claims-assessor"): 1}


def test_timers_are_counted_with_how_late_they_fired() -> None:
    found = numbers(tally_of([record(cause="timer", name="Review.expire", late=1_500)]))

    assert found["longwatch_timers_fired_total"] == {("claims", "Review.expire"): 1}
    assert found["longwatch_timer_late_seconds"]["claims",][1] == 1_500


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_ten_thousand_error_classes_are_a_hundred_and_one_labels() -> None:
    tally = tally_of(
        record(cause="failure", name="assess", attempt=1, error=f"Error{number}: no", id=str(number))
        for number in range(10_000)
    )
    found = numbers(tally)["longwatch_step_failures_total"]

    assert len(found) == MOST_VALUES + 1
    assert found["claims", "assess", "other"] == 10_000 - MOST_VALUES
    assert sum(found.values()) == 10_000


def test_bounds_hold_after_a_restart(tmp_path: Path) -> None:
    first = tally_of(record(name=f"Event{number}") for number in range(MOST_VALUES))
    first.write(tmp_path / "metrics.json")
    second = Tally.read(tmp_path / "metrics.json", "test-log")
    second.take(record(name="Event0"))
    second.take(record(name="One more"))
    found = numbers(second)["longwatch_events_total"]

    assert (found["claims", "Event0", "yes"], found["claims", "other", "yes"]) == (2, 1)


@pytest.mark.parametrize("label", ["key", "run", "run_id", "id", "event_id", "instance", "seq", "visit"])
def test_no_metric_has_a_label_that_names_one_run(label: str) -> None:
    assert not [metric.name for metric in CATALOGUE if label in metric.labels]


def test_a_run_key_and_an_event_id_are_in_no_label() -> None:
    tally = tally_of(
        [
            record(key="claim-4711", name="Decided", id="event-4711"),
            record(key="claim-4711", cause="failure", id="call-4711", name="assess", attempt=1, error="E: claim-4711"),
        ]
    )

    assert "4711" not in repr(numbers(tally))


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_was_counted_comes_back_whole(tmp_path: Path) -> None:
    tally = tally_of(
        [
            record(cause="result", name="assess", attempt=1, started=1, took=30_000, episode=Episode(3, 4)),
            record(cause="kept", name="assess", used=Used("m", input=3, cost=5)),
        ]
    )
    tally.places[3] = "5-0"
    tally.write(tmp_path / "metrics.json")
    found = Tally.read(tmp_path / "metrics.json", "test-log")

    assert numbers(found) == numbers(tally)
    assert found.dump() == tally.dump()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"form":"older"}'])
def test_a_file_that_cannot_be_read_means_to_count_anew(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "metrics.json").write_bytes(raw)

    assert Tally.read(tmp_path / "metrics.json", "test-log").places == {}


def test_the_numbers_of_another_log_or_of_other_rules_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = tally_of([record()])
    tally.places[0] = "5-0"
    tally.write(tmp_path / "metrics.json")

    assert Tally.read(tmp_path / "metrics.json", "other-log").places == {}
    monkeypatch.setattr("observability.tally.FORMAT", 1_000)
    assert Tally.read(tmp_path / "metrics.json", "test-log").places == {}


def test_a_journal_that_lost_its_end_is_counted_anew(tmp_path: Path) -> None:
    journal = MemoryJournal()
    journal.add(0, *(record(name="Decided") for _ in range(5)))
    one = counting(journal, tmp_path / "metrics.json")
    one.step()
    one.save()
    journal.lose(0, 2)
    two = counting(journal, tmp_path / "metrics.json")
    two.step()

    assert numbers(two.tally)["longwatch_events_total"] == {("claims", "Decided", "yes"): 3}


def test_dead_letters_are_counted_once_with_a_bounded_label(tmp_path: Path) -> None:
    journal = MemoryJournal()
    for number in range(3 * MOST_VALUES):
        journal.add_dead(
            number % 2, DeadLetter(reason="no", at=1, entry=Position("1-0"), body=b"", workflow=f"w{number}")
        )
    one = counting(journal, tmp_path / "metrics.json")
    one.step()
    one.step()
    one.save()
    two = counting(journal, tmp_path / "metrics.json")
    two.step()
    found = numbers(two.tally)["longwatch_dead_letters_total"]

    assert sum(found.values()) == 3 * MOST_VALUES
    assert len(found) == MOST_VALUES + 1


def test_a_record_that_cannot_be_read_holds_nobody_up(tmp_path: Path) -> None:
    journal = MemoryJournal()
    journal.add(0, record(name="Decided"))
    journal.items[0].append(journal.items[0][0]._replace(id="7-0", payload=b"not json"))
    one = counting(journal, tmp_path / "metrics.json")
    one.step()

    assert one.tally.places == {0: "7-0"}
    assert numbers(one.tally)["longwatch_events_total"] == {("claims", "Decided", "yes"): 1}


def test_counters_are_told_only_when_all_is_counted_that_the_journal_held(tmp_path: Path) -> None:
    journal = MemoryJournal()
    journal.add(0, *(record() for _ in range(1_200)))
    exposition = Exposition(Tally())
    one = Counting(journal, exposition, tmp_path / "metrics.json", wait_ms=0)
    seen = []
    for _ in range(5):
        one.step()
        seen.append(exposition.is_whole)

    assert seen == [False, False, False, True, True]


def test_what_alerts_look_at_begins_at_nothing_so_that_the_first_one_is_seen() -> None:
    tally = tally_of(
        [
            record(seq=1, name="Submitted"),
            record(cause="result", name="assess", attempt=1, started=1),
        ]
    )

    assert tally.counters[m.HALTS]["claims",] == 0
    assert tally.counters[m.DEAD_LETTERS_TOTAL] == {("claims",): 0}
    assert tally.counters[m.STEP_ATTEMPTS] == {("claims", "assess", "ok"): 1, ("claims", "assess", "failed"): 0}
