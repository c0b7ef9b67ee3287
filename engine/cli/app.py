"""The `longwatch` command.

Each command is in a file of its own that is imported when it is called. Here errors become words.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from engine.cli import exits
from engine.cli.output import complain, line

if TYPE_CHECKING:
    from collections.abc import Sequence

PANELS: Final = {
    "Write a workflow": {
        "new": "engine.cli.new",
        "check": "engine.cli.check",
        "diagram": "engine.cli.diagram",
        "events": "engine.cli.events",
    },
    "Run it": {
        "run": "engine.cli.run",
        "up": "engine.cli.up",
        "status": "engine.cli.status",
        "settings": "engine.cli.settings",
    },
    "Talk to runs": {
        "send": "engine.cli.send",
        "list": "engine.cli.query",
        "show": "engine.cli.query",
        "history": "engine.cli.query",
        "trace": "engine.cli.trace",
        "lineage": "engine.cli.lineage",
    },
    "Answer what runs ask": {
        "inbox": "engine.cli.inbox",
        "take": "engine.cli.operate",
        "answer": "engine.cli.inbox",
        "release": "engine.cli.operate",
        "budgets": "engine.cli.budgets",
    },
    "Operate": {
        "halted": "engine.cli.operate",
        "resume": "engine.cli.operate",
        "cancel": "engine.cli.operate",
        "retry": "engine.cli.operate",
        "dead-letters": "engine.cli.dead_letters",
        "replay": "engine.cli.replay",
        "record": "engine.cli.record",
        "grafana": "engine.cli.grafana",
    },
}
"""Commands in the order of the help, and the file that registers each (`register(app)`).

These files import nothing heavy at their head.
"""

_MODULES: Final = {name: module for panel in PANELS.values() for name, module in panel.items()}


class LazyCommands(TyperGroup):
    """Imports a command's file when that command is called, and all of them for the help."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 (click's signature; its context type is private to typer)
        """Name every command, in the order of the help."""
        return list(_MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401, ARG002
        """Import a command; None if there is none of that name."""
        if cmd_name not in _MODULES:
            return None
        part = typer.Typer(rich_markup_mode="markdown")
        import_module(_MODULES[cmd_name]).register(part)
        command = get_group(part).commands[cmd_name]
        command.rich_help_panel = next(title for title, names in PANELS.items() if cmd_name in names)  # type: ignore[attr-defined]
        return command


app = typer.Typer(
    name="longwatch",
    cls=LazyCommands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exits.epilog(),
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        line(f"longwatch {version('longwatch')}")
        raise typer.Exit


@app.callback()
def longwatch(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Run processes that live for months: typed state machines in Python, run by Apache Flink.

    Begin with `longwatch new my-shop`: the README.md in it goes on from there, and tells how to write your own
    workflow.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process.

    A user's mistake and a fault that the engine knows are said in words on standard error, and end with a code of
    `exits`; anything else is a bug of Longwatch's own and keeps its traceback.
    """
    _show_every_character()
    try:
        get_command(app).main(args=arguments, prog_name="longwatch")
    except Exception as error:
        if not _is_known(error):
            raise
        complain(error)
        sys.exit(exits.code_of(error))


def _is_known(error: Exception) -> bool:
    """Whether the error's own words serve a user: an error of the house, or a log or file that cannot be reached."""
    if isinstance(error, OSError):
        return True
    return any(
        kind.__module__.startswith(("engine.", "redis.exceptions")) and kind is not Exception
        for kind in type(error).__mro__
    )


def _show_every_character() -> None:
    """A terminal or pipe that cannot show a character gets an escape, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
