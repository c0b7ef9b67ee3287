"""What `longwatch run` prints where nobody looks: lines for people, or lines of a log in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.cli.run import _observer
from engine.gauges import Figures
from engine.supervisor import Progress

PROGRESS = Progress(Figures({"waiting": 3}), 1.0, None, "running")


def printed(capsys: pytest.CaptureFixture[str], *, quiet: bool, log_format: str) -> list[str]:
    observer = _observer(quiet, False, log_format)
    observer.say("running", "running, from checkpoint 2", metrics=["127.0.0.1:9250"], level="its own")
    observer.say("restart", "it died", error="asked http://ann:hunter2@models.example/")
    observer.show(PROGRESS)
    observer.show(PROGRESS)
    return capsys.readouterr().out.splitlines()


def test_in_json_each_line_is_an_event_of_the_log_with_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in printed(capsys, quiet=False, log_format="json")]

    assert [(line["level"], line["what"]) for line in lines] == [
        ("info", "running"),
        ("warning", "restart"),
        ("info", "figures"),
    ]
    assert lines[0]["metrics"] == ["127.0.0.1:9250"]
    assert lines[1]["error"] == "asked http://***@models.example/"
    assert lines[2]["runs"] == {"waiting": 3}


@pytest.mark.parametrize(("log_format", "count"), [("human", 1), ("json", 1)])
def test_quiet_tells_only_what_goes_wrong(capsys: pytest.CaptureFixture[str], log_format: str, count: int) -> None:
    lines = printed(capsys, quiet=True, log_format=log_format)

    assert len(lines) == count
    assert "it died" in lines[0]


def test_for_people_a_line_is_a_time_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, quiet=False, log_format="human")[0].endswith(" running, from checkpoint 2")
