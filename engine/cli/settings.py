"""`longwatch settings`: what is set, and where each value came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.options import App, AsJson, Data, Log
from engine.cli.output import cell, console, emit, line

if TYPE_CHECKING:
    from engine.settings import Loaded


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("settings")(settings)


def settings(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these.", show_default=False)
    ] = None,
    data: Data = None,
    application: App = None,
    log: Log = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print every setting with its value, where it came from and what it does.

    Sources, later ones win: default, `[tool.longwatch]` in `pyproject.toml` or a `longwatch.toml` (nearest, upwards),
    environment `LONGWATCH_*`, flags.

    Example: `LONGWATCH_PARALLELISM=2 longwatch settings parallelism backend`
    """
    from engine.settings import load

    flags = {"data": data, "app": application, "log": log}
    loaded = load({name: value for name, value in flags.items() if value is not None})
    for name in _chosen(names, loaded):
        _as_json(loaded, name) if as_json else _as_words(loaded, name)


def _chosen(names: list[str] | None, loaded: Loaded) -> list[str]:
    known = list(loaded.origin)
    for name in names or ():
        if name not in known:
            message = f"there is no setting {name!r}; `longwatch settings` lists them all"
            raise typer.BadParameter(message)
    return names or known


def _as_json(loaded: Loaded, name: str) -> None:
    from engine.settings import rule, show, variable

    field = type(loaded.settings).model_fields[name]
    emit(
        {
            "name": name,
            "value": show(getattr(loaded.settings, name), name),
            "source": loaded.origin[name],
            "default": show(field.default, name),
            "allowed": rule(name),
            "environment": variable(name),
            "description": field.description,
        }
    )


def _as_words(loaded: Loaded, name: str) -> None:
    from engine.settings import show

    value = show(getattr(loaded.settings, name), name)
    said = (
        ("true" if value else "false")
        if isinstance(value, bool)
        else str(value)
        if value not in ("", {})
        else "(empty)"
    )
    what = str(type(loaded.settings).model_fields[name].description)
    out = console()
    if not out.is_terminal:
        line(f"{name} = {said}  ({loaded.origin[name]})")
        line(f"    {what}")
        return
    out.print(f"[bold]{name}[/bold] = [cyan]{cell(said)}[/cyan]  [dim]({cell(loaded.origin[name])})[/dim]")
    out.print(f"    [dim]{cell(what)}[/dim]")
