"""The commands that send, ask and order, beside an engine without Flink on the data folder's own server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from engine.log.server import EmbeddedRedis
from tests import shop
from tests.cli.inside import Call
from tests.plain_engine import PlainEngine
from tests.shop import POISON

FILED = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "shop",
    "type": "OrderPlaced",
    "data": {"order": {"order_id": "4711", "region": "north", "eur": 5}},
}


@pytest.fixture(autouse=True)
def _project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGWATCH_APP", "tests.shop:app")


def event(kind: str = "OrderPlaced", key: str = "4711", **data: Any) -> str:
    fields = {**FILED, "id": f"{kind} {key} {data}", "type": kind}
    if kind == "OrderPlaced":
        return json.dumps(fields | {"data": {"order": {"order_id": key, "region": "north", "eur": 5} | data}})
    return json.dumps(fields | {"subject": key, "data": data})


def test_send_before_run_starts_the_server_and_ends_it(call: Call, tmp_path: Path) -> None:
    sent = call("send", "-", "--json", stdin=event())

    assert sent.code == 0
    assert sent.lines[0] == {"workflow": "orders", "key": "4711", "id": "OrderPlaced 4711 {}"} | {
        name: sent.lines[0][name] for name in ("partition", "position")
    }
    assert not EmbeddedRedis(tmp_path / ".longwatch").running()
    listed = call("list")
    assert (listed.code, listed.out) == (0, "0 runs\n")
    assert call("replay").out.splitlines()[0].startswith("identical: 1 entries of 1 runs, 0 records")


def test_what_a_shell_gives_as_a_pipe_is_sent(call: Call) -> None:
    end, begin = os.pipe()
    with os.fdopen(begin, "w") as file:
        file.write(event())
    sent = call("send", f"/dev/fd/{end}", "--json")
    os.close(end)

    assert sent.lines[0]["key"] == "4711"
    assert call("send", ".").code == 2


def test_asking_in_an_empty_folder_makes_nothing(call: Call, tmp_path: Path) -> None:
    assert call("list").code == 0
    assert call("show", "4711").code == 4
    assert call("halted").out == "no run is halted\n"
    assert not (tmp_path / ".longwatch").exists()


def test_a_file_holds_one_event_an_array_or_lines(call: Call, engine: PlainEngine, tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(json.loads(event(key="1")), indent=2), encoding="utf-8")
    (tmp_path / "many.json").write_text(f"[{event(key='2')},\n{event(key='3')}]", encoding="utf-8")
    lines = f"\n{event(key='4')}\n\n{event(key='5')}"
    sent = call("send", "one.json", "many.json", "-", "--json", stdin=lines)

    assert [line["key"] for line in sent.lines] == ["1", "2", "3", "4", "5"]
    assert engine.work() == 10


def test_what_is_refused_is_named_and_the_rest_is_sent(call: Call, engine: PlainEngine) -> None:
    bad = event(key="2", eur="five")
    sent = call(
        "send", "-", "--json", stdin=f"{event(key='1')}\n{bad}\nno json\n{event('Nothing', 'x')}\n{event(key='3')}\n"
    )

    assert sent.code == 3
    assert [line["key"] for line in sent.lines] == ["1", "3"]
    errors = sent.err.splitlines()
    assert errors[0].startswith("longwatch: standard input:2: refused: data.order.eur: ")
    assert errors[1].startswith("longwatch: standard input:3: refused: the event is no JSON")
    assert "'Nothing'" in errors[2]
    assert engine.work() == 4


def test_files_that_are_missing_are_a_wrong_argument(call: Call) -> None:
    ended = call("send", "nowhere.json")

    assert ended.code == 2
    assert "nowhere.json" in ended.err


def test_waiting_has_an_exit_code_of_its_own(call: Call, engine: PlainEngine) -> None:
    assert call("send", "-", "--wait", "--timeout", "0.1", stdin=event()).code == 5

    engine.work()
    again = call("send", "-", "--json", "--until-rest", "--timeout", "0.1", stdin=event())

    assert again.code == 5  # the repeat has no record yet
    assert len(again.lines) == 1


def test_show_tells_where_why_and_what_next(call: Call, engine: PlainEngine) -> None:
    call("send", "-", stdin=event())
    engine.work()
    words = call("show", "4711")
    facts = call("show", "orders/4711", "--json").lines[0]

    assert words.code == 0
    for part in ("orders/4711", "Review (waiting) since", "because  result charge", "Decided -> Shipped or GivenUp"):
        assert part in words.out
    assert facts["state"] == "Review"
    assert facts["because"]["from"] == "Charging"
    assert {move["trigger"] for move in facts["waits_for"]} == {"Decided", "Shouted", "every 3 d", "after 14 d"}
    assert facts["wakes_at"].endswith("Z")
    assert facts["wakes_at"] == next(m["due"] for m in facts["waits_for"] if m["trigger"] == "every 3 d")


def test_show_without_an_application_says_so(call: Call, engine: PlainEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    call("send", "-", stdin=event())
    engine.work()
    monkeypatch.setenv("LONGWATCH_APP", "nowhere:app")
    shown = call("show", "4711")

    assert shown.code == 0
    assert "without the application" in shown.err
    assert "timer    Review.nudge at" in shown.out


def test_list_filters_pages_and_counts(call: Call, engine: PlainEngine) -> None:
    call("send", "-", stdin="\n".join(event(key=f"k{n}", region=f"r{n % 2}", eur=n - 1) for n in range(5)))
    engine.work()
    names = {"workflow", "key", "run_id", "version", "state", "status", "since", "wakes_at"}
    found = call("list", "--status", "waiting", "--where", "region=r1", "--json").lines

    assert {row["key"] for row in found} == {"k1", "k3"}
    assert names <= set(found[0])
    page = call("list", "--limit", "3")
    after = page.out.splitlines()[-1].removeprefix("the next ones: --after ").strip("'")
    rest = call("list", "--after", after, "--json").lines
    assert len(rest) == 2
    counts = call("list", "--count", "--json").lines
    assert [(row["state"], row["runs"]) for row in counts] == [("GivenUp", 1), ("Review", 4)]
    assert call("list", "--after", "orders/nobody").code == 4
    assert call("list", "--status", "asleep").code == 2
    assert call("list", "--where", "region").code == 2


def test_history_has_every_entry_and_the_reason_of_what_was_ignored(call: Call, engine: PlainEngine) -> None:
    call("send", "-", stdin=f"{event()}\n{event()}")
    engine.work()
    lines = call("history", "4711", "--json").lines

    assert [line["seq"] for line in lines] == [1, 2, 3]
    assert {"seq", "at", "entry", "from", "to", "ignored"} <= set(lines[0])
    assert [line["entry"] for line in lines if not line["ignored"]] == ["event OrderPlaced", "result charge"]
    assert "repeat" in next(line["ignored"] for line in lines if line["ignored"])
    assert "Charging -> Review" in call("history", "4711").out
    assert call("history", "4711", "--entries").lines[0]["body"]["t"] == "event"


def test_halted_runs_are_shown_and_go_on(call: Call, engine: PlainEngine) -> None:
    call("send", "-", stdin=f"{event()}\n{event(key='2')}")
    engine.work()
    call(
        "send",
        "-",
        stdin=f"{event('Decided', approve=True, note=POISON)}\n{event('Decided', '2', approve=True, note=POISON)}",
    )
    engine.work()
    listed = call("halted")

    assert "[bold]cannot[/bold] be\\x1b[31m read" in listed.out
    assert {row["key"] for row in call("halted", "--json").lines} == {"4711", "2"}
    assert "go on with: longwatch resume orders/4711" in call("show", "4711").out

    call("send", "-", stdin=event("Decided", "2", approve=True, note="later"))
    engine.work()
    assert "  held: the run is halted" in call("history", "2").out

    assert call("resume", "4711", "--skip", "--why", "poison", "--who", "ann").code == 0
    engine.work()

    assert call("resume", "4711").code == 3
    resumed = call("resume", "--all", "--skip", "--state", "Review", "--json").lines
    assert [(line["order"], line["key"]) for line in resumed] == [("skip", "2")]
    engine.work()
    assert call("halted").out == "no run is halted\n"
    assert call("resume", "--all").code == 1
    assert call("resume").code == 2
    assert "by ann; poison" in call("history", "4711").out


def test_cancel_and_retry_are_refused_where_they_do_not_fit(call: Call, engine: PlainEngine) -> None:
    call("send", "-", stdin=event())
    engine.work()

    assert call("retry", "4711").code == 3
    assert call("cancel", "4711", "--why", "filed twice").code == 0
    engine.work()
    assert call("cancel", "4711").code == 3
    assert call("cancel", "nobody").code == 4
    assert call("cancel", "--all", "--yes").code == 1


def test_dead_letters_are_shown_resent_and_dropped(call: Call, engine: PlainEngine) -> None:
    engine.log.append(0, b"\xff\x1b[31m")
    engine.log.append(1, event().encode())
    engine.work()
    first, second = (row["id"] for row in call("dead-letters", "list", "--json").lines)

    assert call("dead-letters", "show", first, "--json").lines[0]["body_base64"] == "/xtbMzFt"
    assert "OrderPlaced" in call("dead-letters", "show", second).out
    assert call("dead-letters", "resend", "--all").code == 3
    engine.work()
    assert call("show", "4711").code == 0
    assert call("dead-letters", "drop", first).code == 0
    assert call("dead-letters", "list").out == "no dead letters\n"
    assert len(call("dead-letters", "list", "--done", "--json").lines) == 2
    assert "resent" in call("dead-letters", "list", "--done").out
    assert call("dead-letters", "drop", "0/1-0/0").code == 4
    assert call("dead-letters", "drop").code == 2


def test_a_replay_says_identical_or_shows_the_first_difference(
    call: Call, engine: PlainEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("send", "-", stdin=event())
    engine.work()

    assert call("replay").out.startswith("identical: 2 entries of 1 runs, 2 records compared")
    assert call("replay", "--run", "4711", "--json").lines[0]["identical"] is True
    assert call("replay", "--run", "nobody").code == 4
    assert call("replay", "--until", "yesterday").code == 2

    fields = type(shop.orders.specs["Review"]).fields
    monkeypatch.setattr(type(shop.orders.specs["Review"]), "fields", lambda *given: fields(*given) | {"new": "1"})
    differs = call("replay", "--json")

    assert differs.code == 1
    assert differs.lines[0]["differences"][0]["folded"] == {"fields": {"region": "north", "new": "1"}}


def test_an_emptied_server_is_not_begun_anew_silently(call: Call, engine: PlainEngine, tmp_path: Path) -> None:
    call("send", "-", stdin=event())
    engine.work()
    call("list")
    server = EmbeddedRedis(tmp_path / ".longwatch")
    server.stop()
    for path in (tmp_path / ".longwatch" / "redis").glob("*.aof"):
        path.unlink()
    refused = call("send", "-", stdin=event())

    assert refused.code == 7
    assert "it is empty" in refused.err


def test_a_diagram_marks_runs_of_its_own_workflow_only(call: Call, engine: PlainEngine) -> None:
    call("send", "-", stdin=event())
    engine.work()

    assert "◉" in call("diagram", "orders", "--run", "4711").out
    assert call("diagram", "returns", "--run", "4711").code == 2
