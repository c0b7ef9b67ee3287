from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.entry import Used
from workflows.insurance_claim import demo
from workflows.insurance_claim.demo import empty_folder, main
from workflows.insurance_claim.demo_count import Summary, doubled, is_raise, lost, outcomes, resumed, turns_repeated
from workflows.insurance_claim.demo_desk import Desk
from workflows.insurance_claim.demo_people import LogClock, People, Receipt, claims
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
    workflow: str = "insurance-claim"

    @property
    def address(self) -> str:
        return f"{self.workflow}/{self.key}"


@dataclass(frozen=True)
class Told:
    entry: str
    position: str
    ignored: str = ""
    id: str = ""
    at: datetime | None = NOW
    who: str = ""
    inner: str = ""
    run_id: str = "run"
    used: Used | None = None
    again: bool = False
    body: Any = None


def summary(**changes: Any) -> Summary:
    facts: dict[str, Any] = {
        "claims": 2,
        "by_outcome": {"Approved": 2},
        "model_calls": 1,
        "answers_shared": 1,
        "calls_repeated": 0,
        "agents_resumed": 1,
        "turns_repeated": 0,
        "answers": 4,
        "payments": 2,
        "paid_eur": 1_800,
        "budgets_asked": 1,
        "tokens": 12_000,
        "cost_eur": 0.0012,
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


@pytest.mark.parametrize("broken", [{"lost": 1}, {"doubled": 1}, {"turns_repeated": 1}, {"replay_identical": False}])
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
    text = figures(timedelta(days=3, hours=12), Counter(Assessing=2, HumanReview=5, Approved=1, Withdrawn=1), 6)

    assert text.startswith("day  3.5 ·   9 filed ·   2 being assessed ·   6 in the inbox")
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
    everybody = list(crowd())
    people = People([each for each in everybody if each.sends_after is not None and not each.repeats][:1])
    (key,) = people.crowd
    for _ in range(3):
        people.look([Stands(key, "AwaitingDocuments")])

    assert people.planned == 1


def test_only_claims_are_counted() -> None:
    assert claims([Stands("c-1", "Open"), Stands("u-1", "Remembering", workflow="customer-memory")]) == [
        Stands("c-1", "Open")
    ]


# -- the inbox ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    key: str
    group: str = "claims-reviewers"
    call: str = ""
    name: str = ""
    visit: int = 4
    since: datetime | None = NOW

    @property
    def address(self) -> str:
        return f"insurance-claim/{self.key}"


@dataclass
class Terminal:
    """Stands in for `longwatch`, and writes down what was called."""

    refuses: bool = False
    called: list[tuple[str, ...]] = field(default_factory=list)

    async def command(self, *words: str) -> list[dict[str, Any]]:
        self.called.append(words)
        if self.refuses:
            raise DemoFailedError("refused")
        return [{"workflow": "insurance-claim", "key": "c-0001", "id": "e", "position": "1-0"}]


class Answers:
    """Stands in for the client."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, Any]]] = []

    async def answer(self, run: str, answer: object, **how: Any) -> Any:
        self.given.append((run, how))
        return SimpleNamespace(sent=SimpleNamespace(id="e", receipt=SimpleNamespace(position="1-0")))


def desk() -> Desk:
    people = next(each for each in crowd() if each.reviewed_after is not None and not each.repeats)
    everybody = dict.fromkeys(("c-0001", "c-0002"), people)
    return Desk(everybody, lambda words: None)


async def test_the_first_of_a_kind_is_answered_by_commands_and_the_others_by_the_client() -> None:
    people, terminal, client = desk(), Terminal(), Answers()
    for _ in range(2):
        people.look([Item("c-0001"), Item("c-0002"), Item("u-1", group="others")])
    people.answer(client, terminal, NOW)  # type: ignore[arg-type]  # not all of a client
    assert terminal.called == []

    people.answer(client, terminal, NOW + timedelta(days=5))  # type: ignore[arg-type]
    await people.settled()

    assert [words[0] for words in terminal.called] == ["inbox", "take", "answer"]
    assert [(run, how["call"], how["visit"]) for run, how in client.given] == [("insurance-claim/c-0002", "state", 4)]
    assert sorted(receipt.key for receipt in people.receipts) == ["c-0001", "c-0002"]
    assert people.is_idle


async def test_an_answer_that_is_refused_is_given_again_while_it_is_asked() -> None:
    people, terminal, client = desk(), Terminal(refuses=True), Answers()
    for _ in range(2):
        people.look([Item("c-0001")])
        people.answer(client, terminal, NOW + timedelta(days=5))  # type: ignore[arg-type]
        await people.settled()
        terminal.refuses = False

    assert [words[0] for words in terminal.called] == ["inbox", "inbox", "take", "answer"]
    assert [receipt.key for receipt in people.receipts] == ["c-0001"]


# -- agents ------------------------------------------------------------------------------------------------------------


def kept(name: str, *, at: int = 0, call: str = "3.0", started: int = 1_000) -> Told:
    body = {"started": started, "took": 500_000}
    return Told("kept assess_risk", "1-0", id=call, inner=name, at=NOW + timedelta(hours=at), body=body)


def test_an_agent_is_resumed_when_it_was_at_work_at_the_kill_and_went_on() -> None:
    killed = NOW + timedelta(hours=2)
    asked = Told("asked assess_risk", "1-0", id="4.0", at=NOW)
    over = Told("result assess_risk", "1-0", id="5.0", at=NOW)

    assert resumed([kept("turn 1"), kept("turn 2", at=3)], killed) == 1
    assert resumed([kept("turn 1"), kept("turn 2", at=1)], killed) == 0
    assert resumed([kept("turn 1", at=3), kept("turn 2", at=4)], killed) == 0
    assert resumed([kept("turn 1", call="4.0"), asked, kept("turn 2", call="4.0", at=3)], killed) == 0
    assert resumed([kept("turn 1", call="5.0"), over], killed) == 0
    assert resumed([kept("turn 1"), kept("turn 2", at=3)], None) == 0


def test_a_turn_is_repeated_when_it_is_stored_twice_or_asked_for_when_it_was_there() -> None:
    told, key = [kept("turn 1", started=1_000), kept("look 1.1")], "run.3.0.turn-1"

    assert turns_repeated(told, [(key, 0.5), (key, 1.0), ("run.3.0.turn-2", 9.0)]) == 0
    assert turns_repeated(told, [(key, 1.0), (key, 1.6)]) == 1
    assert turns_repeated([*told, kept("turn 1")], []) == 1


def test_an_answered_budget_is_counted() -> None:
    assert is_raise(Told("answer assess_risk", "1-0", inner="budget", who="fritz"))
    assert not is_raise(Told("answer assess_risk", "1-0", inner="leave for order_survey 1.1", who="eve"))


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
    monkeypatch.delenv(demo.MODEL_SETTING, raising=False)

    assert main(["--data", str(tmp_path / "demo")]) == 1
    assert "make setup" in capsys.readouterr().err
