"""The pages of `docs/`: what they show, to be tried out."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import typer.main

from engine.cli.app import app

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Page:
    """One page, by its name without `.md`."""

    name: str

    @property
    def text(self) -> str:
        return (ROOT / "docs" / f"{self.name}.md").read_text(encoding="utf-8")

    def blocks(self, language: str) -> list[str]:
        """What stands between fences; an indented block as it stands, without the indent."""
        found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", self.text, re.DOTALL | re.MULTILINE)
        return ["\n".join(line.removeprefix(indent) for line in block.splitlines()) + "\n" for indent, block in found]

    def module(self, folder: Path, *parts: str) -> ModuleType:
        """The parts, by default all Python of the page, as one module that has been imported."""
        path = folder / f"page_{self.name}.py"
        path.write_text("\n\n".join(parts or self.blocks("python")), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        made = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        return made

    def commands(self) -> Iterator[list[str]]:
        """The words behind each `longwatch` in a console block or between single ticks."""
        shown = [line[2:] for block in self.blocks("console") for line in block.splitlines() if line.startswith("$ ")]
        shown += re.findall(r"`(longwatch [^`]+)`", self.text)
        for line in shown:
            words = shlex.split(line, comments=True)
            if words[0] == "longwatch":
                yield words[1:]


def unknown(words: list[str]) -> str:
    """The first command or option among these words that there is not; empty: all are there."""
    name, *rest = words
    command: Any = COMMANDS.get_command(None, name)
    if command is None:
        return "" if name == "COMMAND" or name.startswith("-") else name
    for word in rest:
        if hasattr(command, "get_command"):
            command = command.get_command(None, word)
            if command is None:
                return word
        elif word.startswith("--") and word not in _options(command):
            return word
    return ""


COMMANDS: Any = typer.main.get_command(app)


def _options(command: Any) -> set[str]:
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
