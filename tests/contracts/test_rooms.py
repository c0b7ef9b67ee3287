"""The rooms have doors in one direction, and the linter that says so does bite."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")

STRAY_IMPORTS = [
    ("engine.core", "time", "core-is-pure"),
    ("engine.core", "os", "core-is-pure"),
    ("engine.core", "asyncio", "core-is-pure"),
    ("engine.core", "redis", "core-is-pure"),
    ("engine.core", "engine.log", "core-is-pure"),
    ("engine.core", "engine.llm", "core-is-pure"),
    ("engine.core", "workflows", "core-is-pure"),
    ("engine.view", "pyflink", "only-flink-knows-flink"),
    ("workflows", "py4j", "only-flink-knows-flink"),
    ("workflows", "engine.core", "workflows-see-the-front-door"),
    ("workflows", "engine.flink", "workflows-see-the-front-door"),
    ("observability", "engine.flink", "observability-reads-records"),
    ("observability", "engine.log", "observability-reads-records"),
    ("engine.log", "engine.flink", "log-and-view-serve"),
    ("engine.view", "engine.cli", "log-and-view-serve"),
    ("engine.cli", "workflows", "engine-knows-no-workflow"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINTER, "--no-logo", "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def house_with_strays(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of empty rooms with one forbidden import each."""
    house = tmp_path_factory.mktemp("house")
    settings = (ROOT / "pyproject.toml").read_text()
    (house / "pyproject.toml").write_text(settings)
    for room in rooms(settings):
        folder = house.joinpath(*room.split("."))
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    for number, (room, forbidden, _) in enumerate(STRAY_IMPORTS):
        house.joinpath(*room.split("."), f"stray{number}.py").write_text(f"import {forbidden}\n")
    (house / "engine/flink/allowed.py").write_text("import pyflink\nimport engine.core\nimport engine.log\n")
    (house / "workflows/allowed.py").write_text("import engine\nimport datetime\n")
    return lint(house).stdout


def rooms(settings: str) -> list[str]:
    """Every package that the contracts name, parents first."""
    linter = tomllib.loads(settings)["tool"]["importlinter"]
    packages: list[str] = linter["root_packages"]
    named = {room for contract in linter["contracts"] for room in contract["forbidden_modules"]}
    inside = {room for room in named if room.startswith("engine.") and "*" not in room}
    return [*packages, "engine.core", *sorted(inside)]


def test_every_contract_holds() -> None:
    verdict = lint(ROOT)

    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


@pytest.mark.parametrize(("room", "forbidden", "contract"), STRAY_IMPORTS)
def test_a_stray_import_breaks_its_contract(room: str, forbidden: str, contract: str, house_with_strays: str) -> None:
    number = STRAY_IMPORTS.index((room, forbidden, contract))
    broken = section(house_with_strays, contract)

    assert f"{room}.stray{number} -> {forbidden}" in broken, house_with_strays


def test_what_is_allowed_breaks_nothing(house_with_strays: str) -> None:
    assert ".allowed ->" not in house_with_strays


def section(verdict: str, contract: str) -> str:
    """What the linter says of one broken contract: the text under its name, up to the next underlined name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    name: str = next(each["name"] for each in contracts if each["id"] == contract)
    _, _, after = verdict.partition(f"{name}\n{'-' * len(name)}\n")
    return re.split(r"^-{5,}$", after, maxsplit=1, flags=re.MULTILINE)[0]
