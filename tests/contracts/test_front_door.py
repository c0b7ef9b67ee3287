"""`engine` is the front door: what it offers is listed, all of it, in order."""

from __future__ import annotations

import importlib.util
import types

import engine


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: ruff's own order (RUF022)."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def test_the_names_stand_in_order() -> None:
    assert list(engine.__all__) == sorted(engine.__all__, key=order)


def test_no_name_stands_twice() -> None:
    assert len(engine.__all__) == len(set(engine.__all__))


def test_every_name_is_there() -> None:
    missing = [name for name in engine.__all__ if not hasattr(engine, name)]

    assert not missing


def test_nothing_is_offered_that_is_not_listed() -> None:
    public = {
        name
        for name, thing in vars(engine).items()
        if not name.startswith("_")
        and not isinstance(thing, types.ModuleType)
        and name not in {"annotations", "TYPE_CHECKING"}
    }

    assert public <= set(engine.__all__)


def test_no_module_hides_a_name() -> None:
    """Importing `engine.answers` would put that module in the place of the function `engine.answers`."""
    hidden = [name for name in engine.__all__ if importlib.util.find_spec(f"engine.{name}")]

    assert not hidden
