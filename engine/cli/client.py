"""How a command gets its client, and how it says when, who and which."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from engine.cli import options
from engine.cli.output import complain, rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime
    from pathlib import Path

    from engine import Application
    from engine.client import Client
    from engine.settings import Settings
    from engine.view.view import Filter

T = TypeVar("T")

Target = Annotated[str, typer.Argument(metavar="[WORKFLOW/]KEY", help="The run.", show_default=False)]
MaybeTarget = Annotated[
    str | None, typer.Argument(metavar="[WORKFLOW/]KEY", help="The run; or give --all.", show_default=False)
]
OfWorkflow = Annotated[str, typer.Option("--workflow", metavar="NAME", help="Runs of this workflow.")]
InState = Annotated[str, typer.Option("--state", metavar="NAME", help="Runs in this state.")]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FIELD=VALUE", help="Runs with this searchable field; may be given several times."),
]
Who = Annotated[str, typer.Option("--who", help="Who orders it, for the history. [default: the user's name]")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
As = Annotated[
    str, typer.Option("--as", "--who", metavar="WHO", help="Whose word it is. [default: the setting, the user's name]")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the records are in the view.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait; then exit code 5.")]


def ask(work: Callable[[Client], Awaitable[T]], settings: Settings, application: Application | None = None) -> T:
    """Run `work` with a client; what the client started has ended when this returns."""
    from engine.client import Client

    async def with_client() -> T:
        async with Client(application, settings=settings) as client:
            return await work(client)

    return asyncio.run(with_client())


def settings_of(data: Path | None, log: str | None, application: str | None = None) -> Settings:
    return options.settings(data=data, log=log, app=application)


def application_of(settings: Settings) -> Application:
    """The application.

    Raises:
        AppError, DefinitionError: there is none, or it cannot be imported.
    """
    from engine.loader import load_application

    return load_application(settings)


def application_if_any(settings: Settings, *, wanted: bool) -> Application | None:
    """The application where it only adds to an answer: without it a note is made, and the answer is shorter.

    With `wanted` it was named on the command line, and must be there.
    """
    from engine.core.errors import DefinitionError
    from engine.loader import AppError

    try:
        return application_of(settings)
    except (AppError, DefinitionError) as error:
        if wanted:
            raise
        complain(f"without the application: {error}")
        return None


def filter_of(workflow: str = "", state: str = "", status: str = "", where: list[str] | None = None) -> Filter:
    """A filter from options.

    Raises:
        BadParameter: a `--where` is no FIELD=VALUE.
    """
    from engine.view.view import Filter

    pairs = [each.partition("=") for each in where or ()]
    if wrong := next((name for name, sign, _ in pairs if not (name and sign)), None):
        raise typer.BadParameter(f"{wrong!r} must be FIELD=VALUE", param_hint="--where")
    return Filter(workflow, state, status, {name: value for name, _, value in pairs})


def who_of(who: str, settings: Settings | None = None) -> str:
    """Who gives an order: as was said, as is set, or the user's name."""
    if who or (settings and settings.who):
        return who or (settings.who if settings else "")
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "somebody"


def time(moment: datetime | None) -> str:
    """A time for people: to the second, in UTC."""
    return "" if moment is None else rfc3339(moment).replace("T", " ").partition(".")[0] + "Z"
