"""What commands print: JSON lines for programs, tables for people, one line for an error.

Text that comes from outside (keys, errors of steps, event data) may hold anything. Before it reaches a terminal,
control characters are shown as escapes and rich's markup is switched off: use `plain` for a line and `cell` inside
markup or tables.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories that act on a terminal or turn the direction of text in place of being seen."""


def emit(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line, at once, so that a reader of a pipe sees it.

    What a terminal would obey stands escaped, as JSON allows: it reads back the same.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_encode)
    if not text.isprintable():
        text = "".join(_json_visible(character) for character in text)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def rfc3339(moment: datetime | int) -> str:
    """A time in UTC as RFC 3339 with milliseconds; an int is milliseconds since the epoch."""
    if isinstance(moment, int):
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(text: object) -> str:
    """Foreign text with everything that a terminal would obey shown as an escape."""
    return "".join(_visible(character) for character in str(text))


def cell(text: object) -> str:
    """Foreign text for a rich table or a line with markup."""
    from rich.markup import escape

    return escape(plain(text))


def console() -> Console:
    """Standard output for people. Lines are never cut when it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, title: str = "") -> None:
    """Print a table; every cell is treated as foreign text."""
    from rich.table import Table

    drawn = Table(*columns, title=title or None, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        drawn.add_row(*(cell(value) for value in row))
    out = console()
    if not out.is_terminal:
        out.width = 1000
        out.soft_wrap = False
    out.print(drawn)


def line(text: str) -> None:
    """Print one plain line."""
    sys.stdout.write(plain(text) + "\n")
    sys.stdout.flush()


def complain(error: object) -> None:
    """Say on standard error what went wrong, in one line (further lines of a message are indented)."""
    first, *more = str(error).splitlines() or [type(error).__name__]
    sys.stderr.write(
        "\n  ".join(["longwatch: " + plain(first), *(plain(each.strip()) for each in more if each.strip())]) + "\n"
    )


def _visible(character: str) -> str:
    if character == "\t":
        return "    "
    if unicodedata.category(character) in _HIDDEN:
        return character.encode("unicode_escape").decode("ascii")
    return character


def _json_visible(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return json.dumps(character)[1:-1] if not character.isascii() else f"\\u{ord(character):04x}"


def _encode(value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
