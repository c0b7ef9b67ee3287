"""`longwatch dead-letters`: what could not be read or belongs to no run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import exits, options
from engine.cli.client import Who, Why, application_if_any, ask, settings_of, time, who_of
from engine.cli.output import cell, console, emit, line, table
from engine.cli.shape import letter_facts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from engine.client import Client
    from engine.letters import Letter

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID ...", help="As `list` shows them; or give --all.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Every letter that is listed.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    letters = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help=(
            "What could not be read or belongs to no run, with its reason and its bytes.\n\n"
            "Example: `longwatch dead-letters list`"
        ),
    )
    letters.command("list")(list_letters)
    letters.command("show")(show)
    letters.command("resend")(resend)
    letters.command("drop")(drop)
    app.add_typer(letters, name="dead-letters")


def list_letters(
    *,
    done: Annotated[bool, typer.Option("--done", help="Also those that were resent or dropped.")] = False,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """List dead letters by partition, in order. Exit code 0 also when there is none.

    Example: `longwatch dead-letters list --json`
    """
    found = ask(lambda client: client.dead_letters(done=done), settings_of(data, log))
    if as_json:
        for letter in found:
            emit(letter_facts(letter))
    elif found:
        columns = ["id", "at", "run", "type", "reason", *(["fate"] if done else [])]
        rows = [(e.id, time_of(e), _address(e), e.letter.type, e.letter.reason, e.fate) for e in found]
        table(columns, (row[: len(columns)] for row in rows))
    else:
        console().print("no dead letters")


def show(letter: Id, *, data: options.Data = None, log: options.Log = None, as_json: options.AsJson = False) -> None:
    """Show a dead letter with its bytes.

    Example: `longwatch dead-letters show 3/1764000000000-0/0`
    """
    found = ask(lambda client: client.dead_letter(letter), settings_of(data, log))
    facts = letter_facts(found, body=True)
    if as_json:
        emit(facts)
        return
    out = console()
    out.print(f"[bold]{cell(found.id)}[/bold]  {time_of(found)}  {cell(_address(found))} {cell(found.letter.type)}")
    out.print(f"reason  {cell(found.letter.reason)}")
    if found.fate:
        out.print(f"fate    {found.fate}")
    line(facts.get("body") or f"base64: {facts['body_base64']}")


def resend(
    letters: Ids = None,
    *,
    everything: Everything = False,
    who: Who = "",
    why: Why = "",
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Append letters to the log again, for instance when the code now knows their event.

    Exit code 3 if one would only be a dead letter again; the others are sent.

    Example: `longwatch dead-letters resend 3/1764000000000-0/0 --why "version 2 knows it"`
    """
    settings = settings_of(data, log, application)
    loaded = application_if_any(settings, wanted=application is not None)

    async def one(client: Client, name: str) -> None:
        await client.resend(name, who=who_of(who), why=why)

    ask(lambda client: _each(client, letters, one, "resent", everything=everything, as_json=as_json), settings, loaded)


def drop(
    letters: Ids = None,
    *,
    everything: Everything = False,
    who: Who = "",
    why: Why = "",
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """List letters no more. Their bytes stay until their retention ends; `list --done` shows them.

    Example: `longwatch dead-letters drop 3/1764000000000-0/0 --why "a test of ours"`
    """

    async def one(client: Client, name: str) -> None:
        await client.drop(name, who=who_of(who), why=why)

    settings = settings_of(data, log)
    ask(lambda client: _each(client, letters, one, "dropped", everything=everything, as_json=as_json), settings)


async def _each(
    client: Client,
    names: Sequence[str] | None,
    act: Callable[[Client, str], Awaitable[None]],
    fate: str,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    from engine.core.errors import EventRefused

    if bool(names) == everything:
        raise typer.BadParameter("name letters, or give --all", param_hint="ID")
    refused = 0
    for name in names or [letter.id for letter in await client.dead_letters()]:
        try:
            await act(client, name)
        except EventRefused as error:
            refused += 1
            _say(name, "refused", str(error), as_json=as_json)
        else:
            _say(name, fate, "", as_json=as_json)
    if refused:
        raise typer.Exit(exits.REFUSED)


def _say(name: str, fate: str, reason: str, *, as_json: bool) -> None:
    if as_json:
        emit({"id": name, "fate": fate, "reason": reason or None})
    else:
        line(f"{fate}: {name}" + (f": {reason}" if reason else ""))


def time_of(letter: Letter) -> str:
    from engine.reports import when

    return time(when(letter.letter.at))


def _address(letter: Letter) -> str:
    dead = letter.letter
    return f"{dead.workflow}/{dead.key}" if dead.workflow else ""
