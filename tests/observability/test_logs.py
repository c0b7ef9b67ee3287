"""The lines of the engine's own log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import structlog

from engine import logs
from engine.logs import About, Lines, about, bind, of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLAIM = About("claims", "4711", "ab12", "Assessing", "assess", "3.0", 2, f"00-{TRACE}-{SPAN}-01")


@pytest.fixture
def written() -> Iterator[StringIO]:
    """What the process logs, as JSON unless a test says otherwise."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    handler = logging.StreamHandler(StringIO())
    handler.setFormatter(Lines("json"))
    root.handlers[:] = [handler]
    root.setLevel("INFO")
    yield handler.stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def lines(written: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def human() -> None:
    logging.getLogger().handlers[0].setFormatter(Lines("human"))


def test_a_line_names_the_run_the_step_and_the_trace_that_it_is_about(written: StringIO) -> None:
    with about(CLAIM):
        logging.getLogger("claims.steps").warning("the %s is late", "letter")
    (line,) = lines(written)

    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "the letter is late",
        "workflow": "claims",
        "key": "4711",
        "run": "ab12",
        "state": "Assessing",
        "step": "assess",
        "call": "3.0",
        "attempt": 2,
        "trace_id": TRACE,
        "span_id": SPAN,
        "logger": "claims.steps",
    }


def test_a_line_about_nothing_says_nothing_of_a_run(written: StringIO) -> None:
    logging.getLogger("engine").info("hello")

    assert set(lines(written)[0]) == {"at", "level", "event", "logger"}


def test_what_a_line_is_about_can_be_given_with_it(written: StringIO) -> None:
    with about(CLAIM):
        logging.getLogger("engine").info("halts", extra=of("claims", "42", state="Deciding"))
    (line,) = lines(written)

    assert (line["key"], line["state"]) == ("42", "Deciding")
    assert "trace_id" not in line


async def test_what_is_bound_in_a_task_is_not_bound_in_another(written: StringIO) -> None:
    async def attempt(key: str) -> None:
        bind("claims", key, step="assess")
        await asyncio.sleep(0)
        logging.getLogger("claims").info("done")

    await asyncio.gather(*(attempt(str(number)) for number in range(5)))
    logging.getLogger("claims").info("outside")

    assert [line.get("key") for line in lines(written)] == ["0", "1", "2", "3", "4", None]


def test_a_broken_traceparent_gives_no_trace_id(written: StringIO) -> None:
    with about(CLAIM._replace(traceparent="00-xyz")):
        logging.getLogger("claims").info("done")

    assert "trace_id" not in lines(written)[0]


def test_an_exception_is_one_field_of_one_line_and_scrubbed(written: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEBODYS_API_KEY", "opaque/key")
    logging.getLogger("claims").error("it failed", exc_info=ValueError("the key opaque/key\nis bad"))
    (line,) = lines(written)

    assert "opaque" not in written.getvalue()
    assert "ValueError: the key ***\nis bad" in line["exception"]


def test_words_with_line_ends_stay_one_line(written: StringIO) -> None:
    human()
    logging.getLogger("claims").info("first\nsecond", extra={"note": "a\nb"})

    assert written.getvalue().count("\n") == 1
    assert "first\\nsecond note=a\\nb" in written.getvalue()


def test_for_people_the_exception_stands_below_its_line(written: StringIO) -> None:
    human()
    with about(CLAIM):
        logging.getLogger("claims").error("it failed", exc_info=ValueError("bad"))
    first, *rest = written.getvalue().splitlines()

    assert " ERROR claims it failed workflow=claims key=4711" in first
    assert rest[-1] == "ValueError: bad"


def test_facts_are_scrubbed_and_what_json_does_not_know_is_written_as_text(written: StringIO) -> None:
    url = "http://ann:hunter2@models.example/v1"
    facts = {"url": url, "path": Path("a"), "count": 3, "sure": True, "tried": [{"url": url}, None]}
    logging.getLogger("claims").info("asked", extra=facts)
    (line,) = lines(written)

    assert line["url"] == "http://***@models.example/v1"
    assert line["path"] == repr(Path("a"))
    assert line["tried"] == [{"url": "http://***@models.example/v1"}, None]
    assert (line["count"], line["sure"]) == (3, True)


def test_what_is_logged_through_structlog_comes_out_in_the_same_form(written: StringIO) -> None:
    logging.getLogger("claims").info("the first line makes the formatter")
    with about(CLAIM):
        structlog.get_logger("claims.steps").info("asked", url="http://ann:hunter2@models.example/v1", count=3)
    line = lines(written)[1]

    assert (line["event"], line["logger"], line["key"], line["count"]) == ("asked", "claims.steps", "4711", 3)
    assert line["url"] == "http://***@models.example/v1"


def test_a_process_can_write_a_line_by_itself() -> None:
    line = json.loads(logs.line("engine", "warning", "Redis has ended", "json", error="away"))

    assert (line["level"], line["event"], line["error"]) == ("warning", "Redis has ended", "away")


def test_a_fact_does_not_take_the_place_of_what_every_line_says(written: StringIO) -> None:
    with about(CLAIM):
        logging.getLogger("claims").info("asked", extra={"key": "mine", "level": "mine"})

    assert (lines(written)[0]["key"], lines(written)[0]["level"]) == ("4711", "info")


def test_a_file_is_opened_once_and_other_handlers_are_scrubbed(written: StringIO, tmp_path: Path) -> None:
    root = logging.getLogger()
    root.addHandler(other := logging.StreamHandler(StringIO()))
    for _ in range(2):
        logs.open_file(tmp_path / "logs" / "engine.log", "json", "warning")
    logging.getLogger("claims").info("too little to tell")
    logging.getLogger("claims").warning("asked http://ann:hunter2@models.example/")
    root.handlers[-1].close()

    (line,) = map(json.loads, (tmp_path / "logs" / "engine.log").read_text().splitlines())
    assert line["event"] == "asked http://***@models.example/"
    assert "hunter2" not in other.stream.getvalue()


def test_threads_that_write_at_once_write_whole_lines(written: StringIO) -> None:
    def write(number: int) -> None:
        with about(CLAIM._replace(key=str(number))):
            for _ in range(50):
                logging.getLogger("claims").info("number %d", number)

    threads = [Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(line["event"] == f"number {line['key']}" for line in lines(written))
    assert len(lines(written)) == 200
