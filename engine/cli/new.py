"""`longwatch new`: a small project that runs at once."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli.options import AsJson
from engine.cli.output import emit, line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

_SUFFIX: Final = ".tmpl"
_TAKEN: Final = {"engine", "workflows", "observability", "grafana", "tests", "events", "longwatch", "test"}


class ProjectError(ValueError):
    """A project that cannot be made under this name; the message says why and what to do."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("new")(new)


def new(
    name: Annotated[str, typer.Argument(help="The project's name and its folder, such as my-shop.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Begin a project: one workflow with its steps, tests and example events, which runs at once.

    Example: `longwatch new my-shop && cd my-shop && longwatch run`
    """
    folder = Path(name)
    package = package_name(folder.name)
    written = write_project(folder, package)
    if as_json:
        emit({"folder": folder.absolute(), "package": package, "files": written})
        return
    line(f"{folder} is ready. Next:")
    for command, why in (
        (f"cd {folder}", ""),
        ("pytest", "the workflow without an engine"),
        ("longwatch run", "the engine; go on in a second terminal"),
        ("longwatch send events/order-placed.json --until-rest", ""),
        ("longwatch show order/1001", ""),
    ):
        line(f"  {command:54}{'# ' + why if why else ''}".rstrip())
    line("README.md there says what each file is for.")


def package_name(name: str) -> str:
    """Turn a project's name into the name of its package.

    Raises:
        ProjectError: if Python cannot import a package of that name, or another one has it.

    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,62}", name) or name.endswith(("-", "_")):
        raise ProjectError(
            f"{name!r} cannot be a project's name: begin with a letter, go on with letters, digits, - and _, "
            "end with a letter or digit, such as my-shop"
        )
    package = name.replace("-", "_").lower()
    if keyword.iskeyword(package) or package in _TAKEN or package in sys.stdlib_module_names:
        raise ProjectError(
            f"{name!r} cannot be a project's name: Python knows another {package!r}; choose another name"
        )
    return package


def write_project(folder: Path, package: str) -> list[str]:
    """Write all files of a project and name them.

    Raises:
        ProjectError: if the folder is there and not empty.

    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ProjectError(f"{folder} is there already; choose another name, or take it away first")
    if not folder.absolute().parent.is_dir():
        raise ProjectError(f"{folder.absolute().parent} is no folder; make it first")
    written = []
    for path, text in _templates(files("engine.cli") / "template"):
        target = path.replace("PACKAGE", package).replace("gitignore", ".gitignore")
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_text(
            text.replace("@NAME@", folder.name).replace("@PACKAGE@", package), encoding="utf-8"
        )
        written.append(target)
    return written


def _templates(place: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for item in sorted(place.iterdir(), key=lambda each: each.name):
        if item.is_dir():
            yield from _templates(item, f"{above}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            yield above + item.name.removesuffix(_SUFFIX), item.read_text(encoding="utf-8")
