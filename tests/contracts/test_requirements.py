"""What is pinned is pinned by hash, and the files name no place to download from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> list[str]:
    return [normal(name) for name in re.findall(r"^([A-Za-z0-9][\w.-]*)==", text, re.MULTILINE)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_requirement_file_names_no_address_and_no_option(file: Path) -> None:
    lines = file.read_text().splitlines()

    assert not [line for line in lines if "://" in line or line.startswith("-")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_version_has_its_hashes(file: Path) -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", file.read_text(), flags=re.MULTILINE)[1:]

    assert blocks
    assert not [block for block in blocks if "==" not in block or "--hash=sha256:" not in block]


def test_every_dependency_of_the_project_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *(each for group in groups.values() for each in group if isinstance(each, str)),
    ]
    names = {normal(re.split(r"[\[<>=!~;\s]", each)[0]) for each in wanted}
    have = {name for file in FILES for name in pinned(file.read_text())}

    assert names <= have
