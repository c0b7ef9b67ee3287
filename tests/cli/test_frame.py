from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from engine.cli import exits
from engine.cli.app import PANELS, main
from engine.cli.output import cell, emit, plain, rfc3339
from engine.log.errors import LogBusy, LogLost, LogUnavailable
from tests.cli.conftest import Longwatch

HEAVY = ("pyflink", "sqlalchemy", "pydantic_ai", "pandas", "redis", "hiredis")


def test_the_help_teaches_and_lists_the_exit_codes(longwatch: Longwatch) -> None:
    answer = longwatch("--help")

    assert answer.returncode == 0
    assert "Exit codes" in answer.stdout
    for panel in PANELS:
        assert panel in answer.stdout


@pytest.mark.parametrize("command", [name for panel in PANELS.values() for name in panel])
def test_every_command_has_a_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    assert "Example" in capsys.readouterr().out


def test_the_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from engine.cli.app import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in {HEAVY!r} if name in sys.modules])
"""

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_exit_code_2(longwatch: Longwatch) -> None:
    assert longwatch("rnu").returncode == exits.USAGE


def test_errors_find_their_exit_code() -> None:
    assert exits.code_of(LogBusy("x")) == exits.BUSY
    assert exits.code_of(LogLost("x")) == exits.MISMATCH
    assert exits.code_of(LogUnavailable("x")) == exits.UNAVAILABLE


def test_foreign_text_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31mb\n\u202ec") == "a\\x1b[31mb\\n\\u202ec"
    assert cell("[red]x[/red]") == r"\[red]x\[/red]"


def test_json_cannot_either_and_reads_back_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "a\x1b[31mb\n\u202ec\x9b31m\x7f\U000e0001 \u00e4\u4e2d"}
    emit(value)
    printed = capsys.readouterr().out

    assert printed.removesuffix("\n").isprintable()
    assert "\u00e4\u4e2d" in printed
    assert json.loads(printed) == value


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(datetime(2026, 1, 5, 9, tzinfo=UTC)) == "2026-01-05T09:00:00.000Z"
    assert rfc3339(1_767_603_600_123) == "2026-01-05T09:00:00.123Z"
