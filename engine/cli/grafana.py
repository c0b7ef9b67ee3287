"""`longwatch grafana`: the boards into a Grafana, or into files that a Grafana reads."""

from __future__ import annotations

import errno
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli import exits, options
from engine.cli.output import cell, console, emit, table

if TYPE_CHECKING:
    from types import ModuleType

    from grafana.picture import Machine
    from grafana.push import Pushed

TOKEN: Final = "LONGWATCH_GRAFANA_TOKEN"  # noqa: S105 (the variable's name)
ADDRESS: Final = "LONGWATCH_GRAFANA_URL"

_CODES: Final = {"usage": exits.USAGE, "refused": exits.REFUSED, "away": exits.UNAVAILABLE}
_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class GrafanaFailed(Exception):
    """The boards could not be handed out; `exit_code` is the command's."""

    def __init__(self, words: str, exit_code: int) -> None:
        self.words, self.exit_code = words, exit_code
        super().__init__(words)

    def __reduce__(self) -> tuple[type[GrafanaFailed], tuple[str, int]]:
        """Survive pickling, which calls the class with its facts."""
        return GrafanaFailed, (self.words, self.exit_code)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    boards = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help=(
            "The boards *Fleet*, *Workflow*, *Steps and models*, *Engine* and *Shadow*, into a Grafana.\n\n"
            "Example: `longwatch grafana push --url https://grafana.example.org`"
        ),
    )
    boards.command("push")(push)
    boards.command("export")(export)
    app.add_typer(boards, name="grafana")


def push(
    url: Annotated[
        str, typer.Option("--url", metavar="URL", envvar=ADDRESS, help="The address that a browser opens.")
    ] = "http://127.0.0.1:3000",
    folder: Annotated[
        str, typer.Option("--folder", help="Title of the folder; made where it is missing.")
    ] = "Longwatch",
    application: options.App = None,
    data: options.Data = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also over boards that somebody has changed there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Bring the boards in a running Grafana up to date.

    The token of a service account with the role Editor is read from LONGWATCH_GRAFANA_TOKEN. A board that is as it
    should be is not saved again; one that somebody has changed there is left alone and named, and the command ends
    with 1. With an application, the board *Workflow* draws its state machines.

    Example: `LONGWATCH_GRAFANA_TOKEN=glsa_... longwatch grafana push --url http://127.0.0.1:3000 --dry-run`
    """
    found = _push_to(url, folder, _machines(application, data), force=force, dry=dry_run)
    if as_json:
        for each in found:
            emit({"board": each.title, "uid": each.uid, "outcome": each.outcome, "version": each.version} | _rest(each))
    else:
        would = "would be " if dry_run else ""
        table(["board", "", "where"], [(each.title, _words(each, would), each.url) for each in found])
    if any(each.outcome == "changed there" for each in found):
        raise typer.Exit(exits.DIFFERS)


def export(
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Made where it is missing.", show_default=False)],
    application: options.App = None,
    data: options.Data = None,
    prometheus: Annotated[
        str, typer.Option("--prometheus", metavar="URL", help="Where Grafana finds Prometheus.")
    ] = "http://127.0.0.1:9090",
    jaeger: Annotated[
        str, typer.Option("--jaeger", metavar="URL", help="Where Grafana finds Jaeger.")
    ] = "http://127.0.0.1:16686",
    installed: Annotated[
        Path | None,
        typer.Option("--installed", metavar="DIR", help="Where Grafana will see the boards. [default: DIR/dashboards]"),
    ] = None,
    oldest: Annotated[
        str, typer.Option("--oldest", metavar="TIME", help="A run in one state for longer is an alert, as 30d or 12h.")
    ] = "30d",
    *,
    as_json: options.AsJson = False,
) -> None:
    """Write boards, provisioning files and the rules of alerts, for a Grafana and a Prometheus that read files.

    Example: `longwatch grafana export grafana --prometheus http://prometheus:9090`
    """
    bound = _length(oldest)
    machines = _machines(application, data)
    from grafana import shipped

    place = str(installed or (to / "dashboards").absolute())
    try:
        found = shipped.export(to, machines, prometheus=prometheus, jaeger=jaeger, installed=place, oldest=bound)
    except OSError as error:
        raise _unwritten(to, error) from None
    if as_json:
        emit({"files": [str(path) for path in found]})
        return
    for path in found:
        console().print(cell(path))


def _push_to(url: str, folder: str, machines: list[Machine], *, force: bool, dry: bool) -> list[Pushed]:
    token = os.environ.get(TOKEN, "")
    if not token:
        raise GrafanaFailed(
            f"{TOKEN} is not set: make a token for a service account with the role Editor, and export it", exits.USAGE
        )
    grafana = _pushing()
    from grafana.shipped import boards

    try:
        return list(grafana.push(grafana.Target(url, token), boards(machines), folder, force=force, dry=dry))
    except grafana.PushFailed as error:
        raise GrafanaFailed(str(error), _CODES[error.kind]) from error


def _pushing() -> ModuleType:
    from importlib import import_module

    try:
        return import_module("grafana.push")
    except ModuleNotFoundError as error:
        raise GrafanaFailed(
            f"{error.name} is not installed: pip install 'longwatch[grafana]', or `longwatch grafana export`",
            exits.USAGE,
        ) from error


def _unwritten(to: Path, error: OSError) -> GrafanaFailed:
    """A folder that cannot be one is the user's to change; a disk that is full or broken is not."""
    code = exits.UNAVAILABLE if error.errno in _DISK else exits.USAGE
    what = (error.strerror or str(error)).lower()
    return GrafanaFailed(f"{error.filename or to} cannot be written: {what}; give a DIR that you may write to", code)


def _length(text: str) -> timedelta:
    from engine.settings import read_duration

    try:
        found = read_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--oldest") from None
    return found if isinstance(found, timedelta) else timedelta()


def _machines(application: str | None, data: Path | None) -> list[Machine]:
    """What the board of workflows draws; without an application it draws what was seen to run."""
    from engine.cli.client import application_if_any
    from engine.core.diagram import START, graph
    from grafana.picture import Machine

    found = application_if_any(options.settings(app=application, data=data), wanted=application is not None)
    drawn = [graph(workflow) for workflow in found.workflows.values()] if found else []
    return [
        Machine(
            each.name,
            [node.name for node in each.nodes],
            [(arrow.source, arrow.target) for arrow in each.arrows if arrow.source != START],
        )
        for each in drawn
    ]


def _rest(each: Pushed) -> dict[str, str]:
    return {"url": each.url} | ({"changed_by": each.by} if each.by else {})


def _words(each: Pushed, would: str) -> str:
    if each.outcome == "unchanged":
        return "is up to date"
    if each.outcome == "changed there":
        by = f" by {each.by}" if each.by else ""
        return f"was changed there{by}: left alone; --force overwrites it"
    return f"{would}{each.outcome}"
