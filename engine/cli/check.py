"""`longwatch check`: every problem of the application's definitions."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from engine.cli import exits, options
from engine.cli.output import cell, console, emit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Application
    from engine.core.errors import DefinitionError
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
        found = {"workflow": len(loaded.workflows), "event": len(loaded.events), "step": len(loaded.steps)}
        counts = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in found.items())
        console().print(f"[green]✓[/green] no problems: {counts}")
    if problems:
        raise typer.Exit(exits.DIFFERS)


def find(settings: Settings) -> tuple[list[Finding], Application | None]:
    """Gather what is wrong in every workflow that the application imports, and the application if it can be made."""
    from engine.core.errors import DefinitionError
    from engine.loader import AppError, load_application

    with _collected() as errors:
        application: Application | None = None
        try:
            application = load_application(settings)
        except DefinitionError as error:
            errors.append(error)
        except AppError as error:
            if not errors:
                return [Finding("problem", settings.app or "application", str(error))], None
    findings = [finding for error in errors for finding in _problems(error)]
    workflows = application.workflows.values() if application else ()
    findings += [Finding("warning", f"workflow {w.name!r}", words) for w in workflows for words in w.warnings]
    return findings, application


@contextmanager
def _collected() -> Iterator[list[DefinitionError]]:
    """Let a workflow with problems be made all the same, so that an import comes to the next one; the problems."""
    from engine.core.definition import Workflow
    from engine.core.errors import DefinitionError

    errors: list[DefinitionError] = []
    make = Workflow.__init__

    def make_anyhow(self: Workflow[Any], *arguments: Any, **named: Any) -> None:  # noqa: ANN401 (passed on)
        try:
            make(self, *arguments, **named)
        except DefinitionError as error:
            errors.append(error)

    Workflow.__init__ = make_anyhow  # type: ignore[method-assign]
    try:
        yield errors
    finally:
        Workflow.__init__ = make  # type: ignore[method-assign]


def _problems(error: DefinitionError) -> list[Finding]:
    return [Finding("problem", error.what, words) for words in error.problems]


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        emit(finding._asdict())
        return
    sign = "[red]✗[/red]" if finding.kind == "problem" else "[yellow]![/yellow]"
    console().print(f"{sign} {cell(finding.where)}: {cell(finding.words)}")
