"""The README's picture is made by the code, and its folders are there."""

from __future__ import annotations

import re
from pathlib import Path

from workflows.insurance_claim import insurance_claim

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_picture_is_the_one_that_the_workflow_draws() -> None:
    found = re.search(r"```mermaid\n(.*?)```", README, re.DOTALL)

    assert found is not None
    assert found[1].strip() == insurance_claim.mermaid().strip()


def test_every_place_that_is_named_is_there() -> None:
    links = re.findall(r"\]\(([\w/.-]+)\)", README)
    places = re.findall(r"^\| `([\w/.]+)`", README, re.MULTILINE)
    missing = [name for name in (*links, *places) if not (ROOT / name).exists()]

    assert links
    assert places
    assert not missing
