"""`longwatch grafana`: its words, its JSON and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, run

import pytest

from engine.cli.grafana import _unwritten
from grafana.pages import FLEET, WORKFLOW
from grafana.shipped import BOARDS
from tests.grafana.grafana_server import TOKEN, Grafana

ROOT = Path(__file__).parents[2]
CLAIMS = ("--app", "workflows.insurance_claim:application")
Longwatch = Callable[..., CompletedProcess[str]]


@pytest.fixture
def longwatch(tmp_path: Path, server: Grafana) -> Longwatch:
    """Run a command with the address and the token of the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LONGWATCH_")}
    ours = {"LONGWATCH_GRAFANA_URL": server.url, "LONGWATCH_GRAFANA_TOKEN": TOKEN, "LONGWATCH_APP_PATH": str(ROOT)}

    def call(*words: str, **environment: str) -> CompletedProcess[str]:
        return run(
            [sys.executable, "-m", "engine.cli", "grafana", *words],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": str(ROOT), **ours, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def test_a_push_names_each_board_and_what_became_of_it(longwatch: Longwatch, server: Grafana) -> None:
    said = longwatch("push", "--json", *CLAIMS)
    found = [json.loads(line) for line in said.stdout.splitlines()]

    assert said.returncode == 0, said.stderr
    assert [each["uid"] for each in found] == list(BOARDS)
    assert {each["outcome"] for each in found} == {"created"}
    assert found[0]["url"] == f"{server.url}/d/{FLEET}"


def test_the_applications_state_machines_are_drawn(longwatch: Longwatch, server: Grafana) -> None:
    longwatch("push", *CLAIMS)
    panels = server.boards[WORKFLOW].board["panels"]
    (picture,) = [panel for panel in panels if panel["type"] == "nodeGraph"]

    assert "insurance-claim>HumanReview>Approved" in picture["targets"][1]["expr"]
    assert "insurance-claim>Approved" in picture["targets"][0]["expr"]


def test_what_was_changed_there_is_named_and_ends_with_1(longwatch: Longwatch, server: Grafana) -> None:
    longwatch("push", *CLAIMS)
    server.change(FLEET, title="My fleet")
    said = longwatch("push", *CLAIMS)

    assert said.returncode == 1
    assert "was changed there by ann: left alone; --force overwrites it" in said.stdout
    assert longwatch("push", "--force", *CLAIMS).returncode == 0


def test_a_dry_run_says_would(longwatch: Longwatch, server: Grafana) -> None:
    said = longwatch("push", "--dry-run", *CLAIMS)

    assert "would be created" in said.stdout
    assert not server.writes


@pytest.mark.parametrize(
    ("environment", "words", "code"),
    [
        ({"LONGWATCH_GRAFANA_TOKEN": ""}, "LONGWATCH_GRAFANA_TOKEN is not set", 2),
        ({"LONGWATCH_GRAFANA_TOKEN": "wrong"}, "does not know the token", 3),
        ({"LONGWATCH_GRAFANA_URL": "grafana"}, "is no address of a Grafana", 2),
        ({"LONGWATCH_GRAFANA_URL": "http://127.0.0.1:9"}, "cannot be reached: connection refused; does", 8),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    longwatch: Longwatch, environment: dict[str, str], words: str, code: int
) -> None:
    said = longwatch("push", *CLAIMS, **environment)

    assert said.returncode == code
    assert words in said.stderr
    assert "Traceback" not in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_without_an_application_the_boards_are_pushed_all_the_same(longwatch: Longwatch, tmp_path: Path) -> None:
    said = longwatch("push", LONGWATCH_APP_PATH=str(tmp_path))

    assert said.returncode == 0
    assert "without the application" in said.stderr


def test_an_export_holds_all_that_is_read_from_files(longwatch: Longwatch, tmp_path: Path) -> None:
    said = longwatch("export", "out", "--prometheus", "http://prometheus:9090", *CLAIMS)

    assert said.returncode == 0, said.stderr
    assert {path.name for path in (tmp_path / "out" / "dashboards").iterdir()} == {f"{uid}.json" for uid in BOARDS}
    assert (tmp_path / "out" / "alerts.yaml").read_text(encoding="utf-8").startswith("# Made by")
    sources = (tmp_path / "out" / "provisioning" / "datasources" / "longwatch.yaml").read_text(encoding="utf-8")
    assert '"http://prometheus:9090"' in sources
    providers = (tmp_path / "out" / "provisioning" / "dashboards" / "longwatch.yaml").read_text(encoding="utf-8")
    assert str(tmp_path / "out" / "dashboards") in providers


@pytest.mark.parametrize(
    ("folder", "words"),
    [("/proc/x", "/proc/x cannot be written: "), ("afile", "cannot be written: not a directory; give a DIR")],
)
def test_a_folder_that_cannot_be_written_is_one_sentence(
    longwatch: Longwatch, tmp_path: Path, folder: str, words: str
) -> None:
    (tmp_path / "afile").touch()
    said = longwatch("export", folder, *CLAIMS)

    assert said.returncode == 2
    assert words in said.stderr
    assert "Errno" not in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_a_full_disk_is_not_a_wrong_word(tmp_path: Path) -> None:
    full = _unwritten(tmp_path, OSError(errno.ENOSPC, "No space left on device", "out/alerts.yaml"))

    assert full.exit_code == 8
    assert full.words.startswith("out/alerts.yaml cannot be written: no space left on device")


def test_the_bound_of_the_oldest_run_is_ones_own(longwatch: Longwatch, tmp_path: Path) -> None:
    longwatch("export", "out", "--oldest", "12h", *CLAIMS)
    said = longwatch("export", "out", "--oldest", "soon", *CLAIMS)

    assert "(longwatch_state_oldest_age_seconds) > 43200" in (tmp_path / "out" / "alerts.yaml").read_text("utf-8")
    assert said.returncode == 2
    assert "--oldest" in said.stderr


def test_nothing_but_what_generates_needs_the_sdk() -> None:
    """It is there for those who develop Longwatch alone."""
    program = """
import sys
sys.modules["grafana_foundation_sdk"] = None
import engine.cli.grafana, grafana.push, grafana.shipped
assert len(grafana.shipped.boards()) == 5 and grafana.queries() and grafana.alerts()
"""
    said = run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stderr


def test_an_export_needs_no_client_of_grafana() -> None:
    """It is in an extra."""
    program = """
import sys
sys.modules["grafana_client"] = sys.modules["requests"] = None
import grafana.shipped
from engine.cli.grafana import GrafanaFailed, _pushing
try:
    _pushing()
except GrafanaFailed as error:
    assert "pip install 'longwatch[grafana]'" in str(error), error
else:
    raise SystemExit("it was found")
"""
    said = run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stderr
