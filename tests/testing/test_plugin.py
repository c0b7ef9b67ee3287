"""The fixtures, as a project of a user's finds them."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
from engine import Application
from engine.testing import plugin
from engine.testing import Simulation, Simulations
from tests.testing.office import ROME, Approved, Trips, ask_trips, book, customer, trip



def test_one_run(simulate):
    run = simulate(trip)
    assert type(run) is Simulation
    run.fake(ask_trips, lambda question: Trips())
    run.fake(book, lambda wish: ["all"])
    run.send(ROME)
    run.answer(Approved())
    assert run.finished


def test_all_runs(simulate):
    assert type(simulate(Application(workflows=[trip, customer]))) is Simulations


def test_a_provider(providers):
    one, other = providers(), providers()
    assert one.url != other.url


def test_that_fails(simulate):
    run = simulate(trip, others=[customer])
    run.send(ROME)
    assert run.finished
"""


def test_a_failed_test_tells_what_its_runs_did(tmp_path: Path) -> None:
    (tmp_path / "test_trips.py").write_text(TESTS, encoding="utf-8")
    plugin = ["-p", "no:longwatch", "-p", "engine.testing.plugin"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *plugin, str(tmp_path)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 failed, 3 passed" in ran.stdout, ran.stdout + ran.stderr
    assert "history of trip/rome" in ran.stdout
    assert "event TripWanted" in ran.stdout
    assert "Looking -> Deciding" in ran.stdout


def test_the_plugin_is_where_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plugin = import_module(project["entry-points"]["pytest11"]["longwatch"])

    assert {"simulate", "providers"} <= set(vars(plugin))
