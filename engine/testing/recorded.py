"""What the calls of a recorded run kept, in a file, to be played again in a test: a model's answers and its tools'.

    recorded = RecordedAnswers.from_records(log, row)   # or: longwatch record RUN --out answers.json
    recorded.write(path)

    run.play(path)

The file is JSON for people to read and to edit: calls in their order, each with what it kept, by name.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from engine.core.entry import KeptEntry, Kind, Used, read_entry
from engine.core.errors import LongwatchError
from engine.flink.attempt import Attempt, Flight, Loop, _adapter, _returned
from engine.testing.thinking import NotFaked

if TYPE_CHECKING:
    from engine.core.record import Record
    from engine.log.protocol import Log
    from engine.view.view import RunRow

T = TypeVar("T")
FORMAT = 1


class NotRecorded(NotFaked):
    """What is played does not fit: other names, or more or fewer results than were recorded."""


class NothingRecorded(LongwatchError):
    """A run whose calls have kept nothing, or a file that is no recording."""


class RecordedResult(Struct, frozen=True, omit_defaults=True):
    """A result that a call kept."""

    name: str
    output: Raw
    kind: Kind = "once"
    used: Used | None = None


class RecordedCall(Struct, frozen=True):
    """A call and what it kept, in order."""

    step: str
    kept: list[RecordedResult]


class RecordedAnswers(Struct, frozen=True):
    """The calls of a run that kept anything, in the order in which they began to."""

    workflow: str
    key: str
    calls: list[RecordedCall]
    format: int = FORMAT

    @classmethod
    def from_records(cls, log: Log, row: RunRow) -> RecordedAnswers:
        """Read them from log and archive; `row` is the run as the view tells it.

        Raises:
            NothingRecorded: its calls have kept nothing, or the archive does not hold it any more.
        """
        from engine.view.history import history  # noqa: PLC0415 - only a recording needs it

        found: dict[str, RecordedCall] = {}
        for record in history(log, row):
            entry = _kept_by(log, row.partition, record)
            if entry is not None:
                call = found.setdefault(record.id, RecordedCall(record.name, []))
                call.kept.append(RecordedResult(entry.name, entry.output, entry.kind, entry.used))
        if not found:
            message = f"no call of {row.workflow}/{row.key} has kept anything that could be played"
            raise NothingRecorded(message)
        return cls(row.workflow, row.key, list(found.values()))

    @classmethod
    def read(cls, path: str | Path) -> RecordedAnswers:
        """Read a file that `write` wrote.

        Raises:
            NothingRecorded: it is none.
        """
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except msgspec.DecodeError as error:
            message = f"{path} is no recording: {error}"
            raise NothingRecorded(message) from None

    def write(self, path: str | Path) -> None:
        """Write it as JSON."""
        told = json.loads(msgspec.json.encode(self))
        Path(path).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def steps(self) -> list[str]:
        """The steps whose calls are recorded."""
        return list(dict.fromkeys(call.step for call in self.calls))


def _kept_by(log: Log, partition: int, record: Record) -> KeptEntry | None:
    """The entry behind a record, if it kept a result."""
    if record.cause != "kept" or record.ignored:
        return None
    item = log.get("log", partition, record.entry)
    entry = None if item is None else read_entry(item.payload)
    return entry if isinstance(entry, KeptEntry) and entry.kind != "progress" else None


class Played:
    """The recorded calls of one step, given to a test's calls in order."""

    def __init__(self, step: str, calls: list[RecordedCall]) -> None:
        self._step, self._calls = step, calls
        self._given: dict[tuple[str, str], RecordedCall] = {}

    def call(self, key: str, call: str) -> RecordedCall:
        """What is recorded for this call, the same for each attempt of it."""
        if (key, call) not in self._given:
            if len(self._given) >= len(self._calls):
                message = f"{self._step} is called {len(self._given) + 1} times, recorded are {len(self._calls)}"
                raise NotRecorded(message)
            self._given[key, call] = self._calls[len(self._given)]
        return self._given[key, call]


class Playing(Attempt):
    """What stands behind a step to which a recording is played: its work is not run."""

    def __init__(self, loop: Loop, flight: Flight, resources: Mapping[str, Any], call: RecordedCall) -> None:
        super().__init__(loop, flight, resources)
        self._call = call
        self._recorded = {result.name: result for result in call.kept}
        self._asked: set[str] = set()

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: object,
        *,
        kind: str = "once",
        used: Callable[[T], Used | None] | None = None,
    ) -> T:
        """The recorded result of this name, kept as any result is."""
        del used
        found = self._recorded.get(name)
        if found is None:
            names = ", ".join(self._recorded) or "nothing"
            message = f"{self._call.step} comes to {name!r}, which is not recorded; recorded are: {names}"
            raise NotRecorded(message)
        self._asked.add(name)
        gives = _returned(work) if gives is None else gives

        async def played() -> T:
            value: T = _adapter(gives).validate_json(bytes(found.output))
            return value

        return await super().once(name, played, gives, kind=kind, used=lambda _: found.used)

    def check(self) -> None:
        """Raise NotRecorded if the call is over and something recorded was not asked for."""
        if left := [name for name in self._recorded if name not in self._asked]:
            message = f"{self._call.step} ended without {', '.join(map(repr, left))}, which its recording has"
            raise NotRecorded(message)
