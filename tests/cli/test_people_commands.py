"""What waits is listed, taken and answered from the command line, and foreign text does nothing to the terminal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.query import _result
from engine.cli.shape import line_facts
from engine.core.entry import Used
from engine.core.ids import Position, RunId
from engine.core.record import Record
from engine.log.archive import Archive
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.reports import Line
from tests import desk
from tests.cli.inside import Call
from tests.plain_engine import PlainEngine

NASTY = "hail [bold red]now[/] \x1b]0;owned\x07\x1b[2J\r\u202e"


class Working:
    """An engine that works in a thread of its own, as one does beside a command."""

    def __init__(self, data: Path) -> None:
        self._ended = threading.Event()
        self._data, self._ready = data, threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        assert self._ready.wait(30)

    def _work(self) -> None:
        server = EmbeddedRedis(self._data, fsync="everysec")
        server.ensure()
        log = RedisLog.create(server.url, 4, archive=Archive(self._data / "archive"))
        engine = PlainEngine(desk.app, log, server.url)
        self._ready.set()
        while not self._ended.wait(0.01):
            engine.work()
        engine.close()
        log.close()
        server.stop()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGWATCH_APP", "tests.desk:app")
    monkeypatch.setenv("LONGWATCH_WHO", "ann")


@pytest.fixture
def desk_open(tmp_path: Path) -> Iterator[None]:
    working = Working(tmp_path / ".longwatch")
    yield
    working.end()


def send(call: Call, kind: str, key: str, **data: str) -> None:
    event = {"specversion": "1.0", "id": f"{kind} {key}", "source": "desk", "type": kind, "data": data}
    subject = {} if "claim" in data else {"subject": key}
    assert call("send", "-", "--until-rest", stdin=json.dumps(event | subject)).code == 0


def file(call: Call, claim: str = "4711", text: str = "hail") -> None:
    send(call, "ClaimFiled", claim, claim=claim, text=text)


@pytest.mark.usefixtures("desk_open")
def test_the_inbox_lists_and_shows_what_to_copy(call: Call) -> None:
    file(call)
    listed = call("inbox", "claims-reviewers")
    shown = call("inbox", "show", "4711")
    (facts,) = call("inbox", "--json").lines

    assert "Somebody reads the claim and decides." in listed.out
    assert "ReviewDecided or MoreWanted" in listed.out
    assert "longwatch answer claims/4711 ReviewDecided --visit 1 approve=true" in shown.out
    assert '"approve": {"title": "Approve", "type": "boolean"}' in shown.out
    assert (facts["group"], facts["visit"], facts["taken"]) == ("claims-reviewers", 1, None)
    assert [each["name"] for each in facts["answers"]] == ["ReviewDecided", "MoreWanted"]
    assert call("inbox", "nobody").out == "0 things waiting\n"
    assert call("inbox", "--count", "--json").lines[0]["waiting"] == 1


@pytest.mark.usefixtures("desk_open")
def test_the_command_to_copy_works(call: Call) -> None:
    file(call)
    words = ["ReviewDecided", "--visit", "1", "approve=true"]
    answered = call("answer", "claims/4711", *words, "--note", "fine")

    assert answered.out == "claims/4711: answered with ReviewDecided by ann; the run is in Decided (finished)\n"
    assert call("show", "4711", "--json").lines[0]["data"] == {"approve": True, "by": "ann"}


@pytest.mark.usefixtures("desk_open")
def test_who_comes_second_is_told_and_does_not_succeed(call: Call) -> None:
    file(call)
    assert call("answer", "4711", "reviewdecided", '{"approve": false}', "--as", "bob").code == 0
    late = call("answer", "4711", "ReviewDecided", "approve=true", "--visit", "1")

    assert late.code == 3
    assert "claims/4711: answered already, by bob" in late.err
    assert "Your answer changed nothing" in late.err


@pytest.mark.usefixtures("desk_open")
def test_what_is_taken_is_anothers_until_it_is_released(call: Call) -> None:
    file(call)
    assert call("take", "4711", "--as", "bob").out.startswith("claims/4711: taken by bob; the run is in HumanReview")
    refused = call("answer", "4711", "ReviewDecided", "approve=true")
    assert (refused.code, "taken by bob" in refused.err) == (3, True)
    assert call("take", "4711").code == 3
    assert "taken by bob" in call("show", "4711").out
    assert len(call("inbox", "--mine", "bob", "--json").lines) == 1
    assert call("release", "4711", "--json").lines[0]["who"] == "ann"
    assert call("release", "4711").code == 3


@pytest.mark.usefixtures("desk_open")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["Decided", "approve=true"], "'Decided' is no answer to HumanReview; choose ReviewDecided, MoreWanted"),
        ([], "say which: HumanReview may be answered with ReviewDecided, MoreWanted"),
        (["ReviewDecided", "approve=perhaps"], "approve: Input should be a valid boolean"),
        (["ReviewDecided", "{approve}"], "is neither JSON"),
        (["ReviewDecided", "approve=true", "more"], "'more' must be FIELD=VALUE"),
        (["MoreWanted", "what=x", "--note", "n"], "note: leave --note out: MoreWanted has what"),
        (["ReviewDecided", "approve=true", "mood=\x1b[2J"], "mood: Extra inputs are not permitted"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_in_words(call: Call, words: list[str], told: str) -> None:
    file(call)
    refused = call("answer", "4711", *words)

    assert refused.code == 3
    assert told in refused.err
    assert "\x1b" not in refused.err


@pytest.mark.usefixtures("desk_open")
def test_leave_is_given_and_refused_with_a_word(call: Call) -> None:
    for key, word, field in (("a", "yes", []), ("b", "no", ["--note", "too dear"])):
        file(call, key)
        assert call("answer", key, "MoreWanted", "what=a barn").code == 0
        answered = call("answer", f"claims/{key}", word, *field, "--json")
        assert (answered.code, answered.lines[0]["answer"]) == (0, "Leave")
    assert call("answer", "a", "colour=green", "depth=2").code == 0

    history = call("history", "b").out
    assert "survey; Order a survey for a barn?" in history
    assert "by ann; survey" in history
    assert "thinks about a barn" in history
    texts = [call("show", key, "--json").lines[0]["data"]["text"] for key in "ab"]
    assert texts == ["green survey, says ann", "no survey, says ann: too dear"]


@pytest.mark.usefixtures("desk_open")
def test_foreign_text_does_nothing_to_the_terminal(call: Call) -> None:
    file(call, text=NASTY)
    assert call("answer", "4711", "MoreWanted", json.dumps({"what": NASTY})).code == 0
    outs = [call("inbox"), call("inbox", "show", "4711"), call("show", "4711"), call("history", "4711")]
    outs.append(call("answer", "4711", "yes", "--as", NASTY))
    outs.append(call("show", "4711"))

    assert "thinks about hail [bold red]now[/] \\x1b]0;owned" in outs[2].out
    for ended in outs:
        assert ended.code == 0
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(ended.out + ended.err)
    assert "[bold red]now[/] \\x1b]0;owned\\x07" in outs[0].out
    assert "[bold red]now[/]" in outs[4].out


@pytest.mark.parametrize(
    ("cost", "told", "eur"), [(3100, "0.0031 EUR", "0.0031"), (None, "price not known", None), (0, "0.00 EUR", "0.00")]
)
def test_a_history_tells_what_a_model_took(cost: int | None, told: str, eur: str | None) -> None:
    used = Used("assessor", "gpt-9", "openai", input=1000, output=234, cost=cost, finish="stop")
    record = Record(
        workflow="claims",
        key="1",
        run=RunId("r"),
        version=1,
        seq=3,
        at=5,
        entry=Position("5-0"),
        cause="kept",
        name="assess",
        inner="model 3",
        used=used,
        again=True,
    )
    line = Line.of(record)
    facts = line_facts(line)

    assert (
        _result(line)
        == f"model 3; gpt-9: 1,234 tokens, {told}, stop; what an earlier attempt of it came to is not known"
    )
    assert (facts["inner"], facts["again"], facts["used"]["eur"]) == ("model 3", True, eur)


@pytest.mark.usefixtures("desk_open")
def test_budgets_are_shown_and_raised(call: Call) -> None:
    for key in "abc":
        send(call, "Dreamt", key, text=key)
    found = {facts["kind"]: facts for facts in call("budgets", "--json").lines}
    run = call("budgets", "dreams/a", "--json").lines[0]
    table = call("budgets").out

    assert found["account"]["day"]["at_most"] == {"eur": "0.70", "tokens": None}
    assert found["account"]["day"]["reserved"]["eur"] == "0.60"
    assert found["account"]["waiting"] == ["dreams/c"]
    assert found["workflow"]["run"]["at_most"] == {"eur": "0.50", "tokens": 1000}
    assert set(found["workflow"]["waiting"]) == {"dreams/a", "dreams/b", "dreams/c"}
    assert (run["run"]["reserved"], run["waiting"]) == ({"eur": "0.30", "tokens": 10}, ["dreams/a"])
    assert "nights (account): for more wait dreams/c" in table or "for more wait dreams/c" in table
    assert "budget   0.00 of 0.50 EUR and 0 of 1,000 tokens spent, reserved 0.30 EUR" in call("show", "a").out

    assert call("budgets", "raise", "nights", "--eur", "1").code == 0
    assert call("budgets", "raise", "dreams/a", "--eur", "1", "--as", "bob").code == 0
    assert "say how much more" in call("answer", "b", "raise").err
    assert "eur: Input should be a finite number" in call("answer", "b", "raise", "--eur", "nan").err
    assert call("answer", "b", "raise", "--eur", "1").code == 0
    assert {facts["key"] for facts in call("inbox", "budgets", "--json").lines} == {"c"}
    assert "asks 2 things, say which" in call("answer", "c", "no").err
    assert call("answer", "c", "no", "--call", "1.1").code == 0
    assert call("show", "c", "--json").lines[0]["data"]["text"] == "BudgetRefused: ann gave no more"


@pytest.mark.usefixtures("desk_open")
def test_mistakes_of_budgets_are_told(call: Call) -> None:
    assert call("budgets", "nobody").code == 4
    assert call("budgets", "raise", "nights").code == 2
    assert call("budgets", "raise", "nights", "--eur", "-1").code == 3
    assert call("budgets", "raise", "nights", "--eur", "much").code == 2
    assert call("budgets", "nights", "--eur", "1").code == 2


def test_an_empty_folder_has_an_empty_inbox(call: Call, tmp_path: Path) -> None:
    assert call("inbox").out == "0 things waiting\n"
    assert call("take", "4711").code == 4
    assert not (tmp_path / ".longwatch").exists()
