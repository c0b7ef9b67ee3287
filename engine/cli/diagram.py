"""`longwatch diagram`: the picture of a workflow, and where a run is in it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.cli import options
from engine.cli.output import cell, console, emit

if TYPE_CHECKING:
    from engine import Application, Workflow
    from engine.core.diagram import Marks
    from engine.settings import Settings

Format = Literal["terminal", "mermaid", "svg"]


class UnknownWorkflow(LookupError):
    """The application has no workflow of that name; the message names those that it has."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("diagram")(diagram)


def diagram(
    workflow: Annotated[str | None, typer.Argument(help="[default: all]", show_default=False)] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="Terminal, Mermaid text, or SVG.")] = "terminal",
    run: Annotated[
        str | None, typer.Option("--run", metavar="[WORKFLOW/]KEY", help="Mark where this run is and has been.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there.")] = None,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    *,
    as_json: options.AsJson = False,
) -> None:
    """Draw a workflow: its states, what can happen in each, and where that leads.

    Example: `longwatch diagram order --format svg --out order.svg`, `longwatch diagram --run order/1001`
    """
    from engine.core.diagram import UNMARKED
    from engine.loader import load_application

    settings = options.settings(app=application, data=data, log=log)
    loaded = load_application(settings)
    marks = UNMARKED
    if run is not None:
        found, marks = _marks(settings, loaded, run)
        if workflow not in (None, found):
            raise typer.BadParameter(f"{run} is a run of {found}, not of {workflow}", param_hint="--run")
        workflow = found
    pictures = {each.name: _draw(each, form, marks) for each in _chosen(loaded, workflow)}
    if as_json:
        for name, picture in pictures.items():
            emit({"workflow": name, "format": form, "here": marks.here or None, "diagram": picture})
        return
    if form == "svg" and len(pictures) > 1:
        raise typer.BadParameter(f"an SVG shows one workflow; name one of {', '.join(pictures)}")
    _hand_out("\n\n".join(pictures.values()), form, out)


def _chosen(application: Application, name: str | None) -> list[Workflow[Any]]:
    if name is None:
        return list(application.workflows.values())
    if name not in application.workflows:
        known = ", ".join(application.workflows)
        raise UnknownWorkflow(f"the application has no workflow {name!r}; it has {known}")
    return [application.workflows[name]]


def _draw(workflow: Workflow[Any], form: Format, marks: Marks) -> str:
    from engine.core import diagram as drawing
    from engine.core.svg import svg

    if form == "svg":
        return svg(workflow, marks=marks)
    if form == "mermaid":
        return drawing.mermaid(workflow, marks=marks)
    return drawing.terminal(workflow, width=shutil.get_terminal_size((100, 24)).columns, marks=marks)


def _hand_out(picture: str, form: Format, out: Path | None) -> None:
    if out is not None:
        out.write_text(picture + "\n", encoding="utf-8")
    elif form == "terminal" and sys.stdout.isatty():
        for line in picture.splitlines():
            console().print(_coloured(line))
    else:
        sys.stdout.write(picture + "\n")


def _coloured(line: str) -> str:
    text = cell(line)
    if "◉" in line:
        return f"[bold yellow]{text}[/bold yellow]"
    if "●" in line or "━━▶" in line:
        return f"[yellow]{text}[/yellow]"
    if line.startswith("┌"):
        return f"[bold]{text}[/bold]"
    return text


def _marks(settings: Settings, application: Application, run: str) -> tuple[str, Marks]:
    """Find the workflow of a run, and the way that it went."""
    import asyncio

    from engine.client import Client
    from engine.core.diagram import marks_of

    async def ask() -> tuple[str, Marks]:
        async with Client(application, settings=settings) as client:
            found = await client.show(run)
            lines = await client.history(run)
        return found.run.workflow, marks_of((line.from_, line.to) for line in lines if line.from_ != line.to)

    return asyncio.run(ask())
