"""Finding and importing an application: the only one of a project, or the one that a setting names."""

from __future__ import annotations

import ast
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Application
    from engine.settings import Settings

_SKIP: Final = {"tests", "test", "build", "dist", "docs", "node_modules", "site-packages", "venv", "env", "__pycache__"}
_DEPTH: Final = 4


class AppError(Exception):
    """No application, too many, or one that cannot be imported; the message says what to do."""


def load_application(settings: Settings) -> Application:
    """Import the application that the settings name or, when they name none, the only one of the project.

    Raises:
        AppError: if there is none, or more than one, or its import fails.
        DefinitionError: as the import raised it.

    """
    return import_application(settings.app or find_application(settings.app_path), settings.app_path)


def find_application(folder: Path) -> str:
    """Find the only `name = Application(...)` in the modules of `folder`, as `module:name`, without running any code.

    Raises:
        AppError: if there is none, or more than one.

    """
    found = list(_applications(folder))
    if not found:
        raise AppError(
            f"no application in {folder}: no module there has a line `app = Application(workflows=[...])`. "
            "Go to your project's folder, give --app MODULE:NAME, or begin one with `longwatch new NAME`."
        )
    if len(found) > 1:
        raise AppError(
            f"{len(found)} applications in {folder}: {', '.join(found)}. "
            "Choose one with --app, or with `app` in [tool.longwatch] of pyproject.toml."
        )
    return found[0]


def import_application(app: str, folder: Path) -> Application:
    """Import an application given as `module:name`, looking in `folder` first.

    Raises:
        AppError: if it cannot be imported, or is none.
        DefinitionError: as the import raised it.

    """
    from engine import Application  # noqa: PLC0415 (pydantic only where an application is needed)

    module, _, name = app.partition(":")
    value: object = import_module(module, folder)
    for part in (name or "app").split("."):
        if not hasattr(value, part):
            known = [name for name, item in vars(value).items() if isinstance(item, Application)]
            there = f"it has {', '.join(f'{module}:{name}' for name in known)}" if known else "it has no application"
            raise AppError(f"application {app}: {module} has no name {part!r}; {there}")
        value = getattr(value, part)
    if not isinstance(value, Application):
        raise AppError(f"application {app} is a {type(value).__name__}; it must be an engine.Application")
    return value


def import_module(module: str, folder: Path) -> object:
    """Import a module, looking in `folder` first.

    Raises:
        AppError: with the file and line where the import failed.
        DefinitionError: as the import raised it.

    """
    from engine.core.errors import LongwatchError  # noqa: PLC0415

    place = str(folder)
    if place not in sys.path:
        sys.path.insert(0, place)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(module)
    except LongwatchError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(error.name + ".")):
            raise AppError(f"there is no module {module!r} in {folder} or among the installed packages") from None
        raise AppError(f"{module} cannot be imported: {_words(error, folder)}") from error
    except (Exception, SystemExit) as error:
        raise AppError(f"{module} cannot be imported: {_words(error, folder)}") from error


def _applications(folder: Path) -> Iterator[str]:
    return (f"{module}:{name}" for module, name in _assigned(folder, "Application"))


def _assigned(folder: Path, kind: str) -> Iterator[tuple[str, str]]:
    for path in _modules(folder, _DEPTH):
        source = path.read_bytes()
        if kind.encode() + b"(" not in source:
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        module = _module_name(path, folder)
        yield from ((module, name) for name in _names(tree, kind))


def _modules(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "test_")) or path.name in _SKIP:
            continue
        if path.is_dir() and depth and (path / "__init__.py").is_file():
            yield from _modules(path, depth - 1)
        elif path.suffix == ".py" and path.is_file():
            yield path


def _module_name(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _names(tree: ast.Module, kind: str) -> Iterator[str]:
    """Names that a module binds to a call of `kind(...)`, `kind[...](...)` or `package.kind(...)`."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        called = node.value.func.value if isinstance(node.value.func, ast.Subscript) else node.value.func
        if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) != kind:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _words(error: BaseException, folder: Path) -> str:
    """Name an error and the line of the user's own code that it came from."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return words
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)
    ]
    return f"{words} ({frames[-1].filename}:{frames[-1].lineno})" if frames else words
