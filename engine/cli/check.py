"""`longwatch check`: every problem of the application's definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import typer

from engine.cli import exits, options
from engine.cli.output import cell, console, emit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Application
    from engine.settings import Settings


class Finding(NamedTuple):
    """One thing that is wrong (`problem`) or doubtful (`warning`)."""

    kind: str
    where: str
    words: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    application: options.App = None,
    *,
    strict: bool = typer.Option(False, "--strict", help="Warnings count as problems."),
    as_json: options.AsJson = False,
) -> None:
    """Import the application and print every problem of its workflows, each with what to do.

    Exit code 1 if there is a problem.

    Example: `longwatch check --app my_shop:app`
    """
    settings = options.settings(app=application)
    findings, loaded = find(settings)
    for finding in findings:
        _show(finding, as_json=as_json)
    problems = [finding for finding in findings if strict or finding.kind == "problem"]
    if as_json:
        names = list(loaded.workflows) if loaded else []
        emit({"ok": not problems, "problems": len(problems), "workflows": names})
    elif not problems and loaded:
        counts = f"{len(loaded.workflows)} workflow(s), {len(loaded.events)} event(s), {len(loaded.steps)} step(s)"
        console().print(f"[green]✓[/green] no problems: {counts}")
    if problems:
        raise typer.Exit(exits.DIFFERS)


def find(settings: Settings) -> tuple[list[Finding], Application | None]:
    """Gather what is wrong in every module that defines a workflow, and the application if it can be made."""
    from engine.core.errors import DefinitionError
    from engine.loader import AppError, load_application

    try:
        application = load_application(settings)
    except DefinitionError as error:
        return list(dict.fromkeys([*_problems(error), *_elsewhere(settings)])), None
    except AppError as error:
        return [Finding("problem", settings.app or "application", str(error))], None
    warnings = [
        Finding("warning", f"workflow {workflow.name!r}", words)
        for workflow in application.workflows.values()
        for words in workflow.warnings
    ]
    return warnings, application


def _elsewhere(settings: Settings) -> Iterator[Finding]:
    """Problems of the workflows that were not reached because an earlier one failed."""
    from engine.core.errors import DefinitionError
    from engine.loader import AppError, import_module, workflow_modules

    package = settings.app.partition(":")[0].partition(".")[0]
    for module in workflow_modules(settings.app_path):
        if package and module.partition(".")[0] != package:
            continue
        try:
            import_module(module, settings.app_path)
        except DefinitionError as error:
            yield from _problems(error)
        except AppError:
            continue


def _problems(error: object) -> list[Finding]:
    what, problems = getattr(error, "what", ""), getattr(error, "problems", ())
    return [Finding("problem", what, words) for words in problems]


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        emit(finding._asdict())
        return
    sign = "[red]✗[/red]" if finding.kind == "problem" else "[yellow]![/yellow]"
    console().print(f"{sign} {cell(finding.where)}: {cell(finding.words)}")
