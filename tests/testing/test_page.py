"""What `docs/testing.md` shows runs as it stands there, in a project of a user's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
FILES = ["trips.py", "test_trips.py", "test_crashes.py", "test_agents.py", "test_several.py", "test_fixture.py"]


def test_the_pages_tests_pass(tmp_path: Path) -> None:
    pytest.importorskip("pydantic_ai")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for name, block in zip(FILES, blocks, strict=True):
        (tmp_path / name).write_text(block, encoding="utf-8")
    plugin = ["-p", "no:longwatch", "-p", "engine.testing.plugin", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "--rootdir", str(tmp_path), str(tmp_path)],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "8 passed" in ran.stdout, ran.stdout + ran.stderr
