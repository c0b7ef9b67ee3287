from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from workflows.insurance_claim import demo
from workflows.insurance_claim.demo import empty_folder, main
from workflows.insurance_claim.demo_count import Summary, doubled, lost, outcomes
from workflows.insurance_claim.demo_people import LogClock, People, Receipt
from workflows.insurance_claim.demo_screen import figures, lines
from workflows.insurance_claim.errors import DemoFailedError, ModelNotInstalledError
from workflows.insurance_claim.generator import crowd

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Stands:
    key: str
    state: str
    status: str = "waiting"
    since: datetime | None = NOW


@dataclass(frozen=True)
class Told:
    entry: str
    position: str
    ignored: str = ""
    id: str = ""


def summary(**changes: Any) -> Summary:
    facts: dict[str, Any] = {
        "claims": 2,
        "by_outcome": {"Approved": 2},
        "model_calls": 1,
        "answers_shared": 1,
        "calls_repeated": 0,
        "timers_fired": 3,
        "reminders": 2,
        "entries": 9,
        "ignored": 1,
        "dead_letters": 0,
        "kills": 1,
        "restart_seconds": 12.0,
        "lost": 0,
        "doubled": 0,
        "replay_identical": True,
        "seconds": 150.0,
    }
    return Summary(**{**facts, **changes})


def test_a_receipt_without_a_record_is_a_loss() -> None:
    receipts = [Receipt("c-1", "a", "1-0"), Receipt("c-1", "b", "2-0"), Receipt("c-2", "c", "1-0")]
    histories = {"c-1": [Told("event ClaimFiled", "1-0"), Told("event ReviewDecided", "2-0", "late")], "c-2": []}

    assert lost(receipts, histories) == 1


def test_an_event_that_was_kept_for_later_is_found_by_its_id() -> None:
    histories = {"c-1": [Told("event DocumentsReceived", "7-0", id="a")]}

    assert lost([Receipt("c-1", "a", "1-0")], histories) == 0


def test_an_event_or_a_decision_that_comes_twice_is_doubled() -> None:
    assert doubled([("e-1", "c-1"), ("e-2", "c-2")]) == 0
    assert doubled([("e-1", "c-1"), ("e-1", "c-1")]) == 1
    assert doubled([("e-1", "c-1"), ("e-2", "c-1")]) == 1


def test_outcomes_name_the_states() -> None:
    assert outcomes([Stands("a", "Expired"), Stands("b", "Approved"), Stands("c", "Approved")]) == {
        "Approved": 2,
        "Expired": 1,
    }


@pytest.mark.parametrize("broken", [{"lost": 1}, {"doubled": 1}, {"replay_identical": False}])
def test_a_broken_promise_is_a_failure(broken: dict[str, Any]) -> None:
    assert summary().holds
    assert not summary(**broken).holds


def test_the_summary_says_what_to_try_next() -> None:
    text = "\n".join(lines(summary(dead_letters=1), Path(".longwatch", "demo")))

    assert "2: 2 Approved" in text
    assert "the same bytes" in text
    assert "dead-letters list --data .longwatch/demo" in text
    assert all(f"longwatch {name} " in text for name in ("list", "history", "diagram"))


def test_the_moving_line_counts_claims_where_they_are() -> None:
    text = figures(timedelta(days=3, hours=12), Counter(Assessing=2, HumanReview=5, Approved=1, Withdrawn=1))

    assert text.startswith("day  3.5 ·   9 filed ·   2 with the model ·   5 with reviewers")
    assert text.endswith("  2 decided")


def test_log_time_runs_with_the_lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.insurance_claim.demo_people.time.time", lambda: 1_002.0)

    assert LogClock(NOW, wall=1_000.0, lapse=20_000).now() == NOW + timedelta(seconds=40_000)


def test_people_are_done_when_all_claims_are_over() -> None:
    people = People(list(crowd(2)))
    people.look([Stands(key, "Approved", "finished") for key in people.crowd])

    assert people.are_done
    assert not People(list(crowd(2))).are_done


def test_people_answer_a_state_once() -> None:
    people = People(list(crowd(1)))
    (key,) = people.crowd
    for _ in range(3):
        people.look([Stands(key, "HumanReview")])
    expected = 0 if people.crowd[key].reviewed_after is None else 1

    assert people.planned == expected * (2 if people.crowd[key].repeats else 1)


def test_the_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")

    with pytest.raises(DemoFailedError, match="something else than a demo"), empty_folder(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_a_second_demo_in_one_folder_is_refused(tmp_path: Path) -> None:
    with (
        empty_folder(tmp_path / "demo"),
        pytest.raises(DemoFailedError, match="another demo"),
        empty_folder(tmp_path / "demo"),
    ):
        pass


def test_a_missing_model_ends_the_demo_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModelNotInstalledError

    monkeypatch.setattr(demo, "running_server", missing)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.delenv("LONGWATCH_MODEL", raising=False)

    assert main(["--data", str(tmp_path / "demo")]) == 1
    assert "make setup" in capsys.readouterr().err
