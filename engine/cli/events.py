"""`longwatch events`: the events that the application knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.output import cell, console, emit, table

if TYPE_CHECKING:
    from engine import Application


class UnknownEvent(LookupError):
    """The application has no event of that name; the message names those that it has."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("events")(events)


def events(
    type: Annotated[str | None, typer.Argument(metavar="[TYPE]", help="One event, with schema and example.")] = None,
    application: options.App = None,
    *,
    example: Annotated[
        bool, typer.Option("--example", help="Only the example: a whole CloudEvent to edit and send.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the events that can be sent, where each holds the run's key, and which workflows take it.

    With a TYPE: its JSON schema, and an example that `longwatch send` accepts.

    Example: `longwatch events OrderPlaced --example > order.json && longwatch send order.json`
    """
    from engine.loader import load_application

    loaded = load_application(options.settings(app=application))
    names = _chosen(loaded, type)
    if example:
        for name in names:
            _print_json(_example(loaded, name), as_json=as_json)
    elif as_json:
        for name in names:
            emit(_facts(loaded, name))
    elif type is None:
        rows = [_row(loaded, name) for name in names]
        table(["event", "key", "starts", "moves"], rows)
    else:
        _describe(_facts(loaded, type))


def _chosen(application: Application, name: str | None) -> list[str]:
    if name is None:
        return sorted(application.events)
    if name not in application.events:
        raise UnknownEvent(
            f"no workflow takes {name!r}; this application knows {', '.join(sorted(application.events))}"
        )
    return [name]


def _facts(application: Application, name: str) -> dict[str, Any]:
    kind = application.events[name]
    return {
        "type": name,
        "description": (kind.__doc__ or "").strip() if kind.__doc__ else "",
        "key": _key(application, name),
        "workflows": [workflow.name for workflow in application.takers(name)],
        "starts": [workflow.name for workflow in application.takers(name) if name in workflow.starts_on],
        "schema": kind.model_json_schema(),
        "example": _example(application, name),
    }


def _key(application: Application, name: str) -> str:
    """Where the key stands in the event: for each workflow, if they differ."""
    paths = {workflow.name: workflow.key_path(name) for workflow in application.takers(name)}
    places = {workflow: f"data.{path}" if path else "subject" for workflow, path in paths.items()}
    if len(set(places.values())) == 1:
        return next(iter(places.values()))
    return ", ".join(f"{place} ({workflow})" for workflow, place in places.items())


def _row(application: Application, name: str) -> tuple[str, str, str, str]:
    facts = _facts(application, name)
    moves = [workflow for workflow in facts["workflows"] if workflow not in facts["starts"]]
    return name, facts["key"], ", ".join(facts["starts"]), ", ".join(moves)


def _example(application: Application, name: str) -> dict[str, Any]:
    from engine.example import cloud_event

    paths = {workflow.key_path(name) for workflow in application.takers(name)}
    return cloud_event(application.events[name], "" if "" in paths else min(paths))


def _describe(facts: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]{cell(facts['type'])}[/bold]  {cell(facts['description'])}")
    out.print(f"key        {cell(facts['key'])}")
    out.print(f"workflows  {cell(', '.join(facts['workflows']))}" + (" (starts a run)" if facts["starts"] else ""))
    out.print("\n[bold]JSON schema of data[/bold]")
    _print_json(facts["schema"], as_json=False)
    out.print("\n[bold]Example[/bold]")
    _print_json(facts["example"], as_json=False)


def _print_json(value: dict[str, Any], *, as_json: bool) -> None:
    import json
    import sys

    if as_json:
        emit(value)
    else:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
