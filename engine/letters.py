"""Dead letters: entries that nobody could read or that belong to no run, and what became of each.

The log keeps them as they came. What an operator did with one, sending it again or dropping it, is written to a file
beside the log, a line each, and a letter with such a line is listed no more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from engine.core.entry import EventEntry, read_entry, write_entry
from engine.core.errors import EventRefused, LongwatchError
from engine.core.partition import partition_of
from engine.core.record import DeadLetter, read_letter
from engine.intake import read
from engine.log.protocol import output_id, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.core.application import Application
    from engine.core.entry import Entry
    from engine.log.protocol import Log, Receipt

Fate = Literal["resent", "dropped"]


class UnknownLetter(LongwatchError, LookupError):
    """No dead letter has this id."""

    exit_code = 4


@dataclass(frozen=True)
class Letter:
    """A dead letter and where it stands."""

    id: str
    """`partition/position/index`."""
    letter: DeadLetter
    fate: str = ""
    """`resent` or `dropped`, when it was."""


class _Done(Struct, omit_defaults=True):
    """A line of the file."""

    id: str
    fate: Fate
    at: int
    """Wall ms."""
    who: str = ""
    why: str = ""


class Letters:
    """The dead letters of a log, and the file that says what was done with them."""

    def __init__(self, log: Log, path: Path) -> None:
        self.log = log
        self.path = path

    def all(self, *, done: bool = False) -> Iterator[Letter]:
        """Every letter, by partition and in order; with `done` also those that were resent or dropped."""
        fates = self._fates()
        for partition in range(self.log.header.partitions):
            for item in self.log.scan("dead", partition):
                position, index = place_of(item.id)
                name = f"{partition}/{position}/{index}"
                if done or name not in fates:
                    yield Letter(name, read_letter(item.payload), fates.get(name, ""))

    def find(self, name: str) -> Letter:
        """One letter.

        Raises:
            UnknownLetter: there is none of this id.
        """
        partition, position, index = _parse(name)
        if partition < self.log.header.partitions:
            item = self.log.get("dead", partition, output_id(position, index))
            if item is not None:
                return Letter(name, read_letter(item.payload), self._fates().get(name, ""))
        raise UnknownLetter(f"there is no dead letter {name}; `longwatch dead-letters list` names those there are")

    def resend(self, letter: Letter, application: Application | None, *, who: str = "", why: str = "") -> list[Receipt]:
        """Append again what the letter holds: an entry as it was, anything else if it is an event that can be taken.

        Raises:
            EventRefused: its bytes are neither.
        """
        count = self.log.header.partitions
        payloads = [
            (partition_of(each.workflow, each.key, count), write_entry(each))
            for each in _entries(letter.letter, application)
        ]
        receipts = self.log.append_many(payloads)
        self._note(letter, "resent", who, why)
        return receipts

    def drop(self, letter: Letter, *, who: str = "", why: str = "") -> None:
        """List it no more."""
        self._note(letter, "dropped", who, why)

    def _fates(self) -> dict[str, Fate]:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        return {done.id: done.fate for done in map(_read_done, filter(None, raw.splitlines()))}

    def _note(self, letter: Letter, fate: Fate, who: str, why: str) -> None:
        line = msgspec.json.encode(_Done(letter.id, fate, int(time.time() * 1000), who, why))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(line + b"\n")


_read_done = msgspec.json.Decoder(_Done).decode


def _entries(letter: DeadLetter, application: Application | None) -> list[Entry]:
    try:
        entry = read_entry(letter.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if application is None:
            raise EventRefused(
                f"its bytes are no entry ({error}), and without the application nothing else can be tried"
            ) from None
        return list(read(letter.body, application))
    if isinstance(entry, EventEntry) and application is not None:
        _check(entry, application)
    return [entry]


def _check(entry: EventEntry, application: Application) -> None:
    """Whether today's application would take it."""
    if entry.workflow not in application.workflows:
        raise EventRefused(f"this application has no workflow {entry.workflow!r}", "workflow")
    if entry.type not in application.workflows[entry.workflow].events:
        raise EventRefused(f"workflow {entry.workflow!r} still does not know {entry.type!r}", "type")


def _parse(name: str) -> tuple[int, str, int]:
    try:
        partition, position, index = name.split("/")
        output_id(position, int(index))
        return int(partition), position, int(index)
    except ValueError:
        raise UnknownLetter(f"{name!r} is no id of a dead letter; it has the form PARTITION/POSITION/INDEX") from None
