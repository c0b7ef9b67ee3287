"""Options that many commands share, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from engine.settings import Settings

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where everything of an embedded engine lives. [default: .longwatch]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line, for programs.")]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:NAME",
        help="The application. [default: the setting, or the only one found in this folder]",
    ),
]
Log = Annotated[
    str | None,
    typer.Option(
        "--log", metavar="URL", help="A Redis of one's own, as redis://host:6379/0. [default: the embedded one]"
    ),
]


def settings(**flags: object) -> Settings:
    """Load the settings as this command sees them; a flag that is None was not given, the others win over all sources.

    Raises:
        SettingsError: for a value that no rule allows, naming where it came from.

    """
    from engine.settings import load

    return load({name: value for name, value in flags.items() if value is not None}).settings
