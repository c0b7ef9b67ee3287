"""What goes into a fold beside a run and an entry, and what comes out of it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import Raw, Struct

from engine.core.entry import Asker, Entry
from engine.core.ids import CallId, Position, RunId
from engine.core.model import Event, Question
from engine.core.record import CloudEvent, DeadLetter, Record

DAY = 86_400_000
MAX_SNAPSHOT = 4 << 20


@dataclass(frozen=True)
class Rules:
    """What a log's settings say to the fold. Log ms."""

    early_hold: int = 3_600_000
    """How long an event waits for its run to start."""
    retention: int = 7 * DAY
    """How long a finished run is remembered; also how long event ids are."""


class Place(Struct, frozen=True, gc=False):
    """Where an entry stands."""

    partition: int
    position: Position
    at: int
    """Log time, ms; never less than the entry's before it in the partition."""
    lapse: float = 1.0


class Held(NamedTuple):
    """An entry that came while the run was halted."""

    position: Position
    at: int
    entry: Entry


class Verdict(Struct, frozen=True, omit_defaults=True):
    """That the application `index` of an entry halts the run, and why."""

    index: int
    error: str
    where: str = ""
    cause: str = ""


class StartCall(Struct, frozen=True, gc=False):
    """Run an attempt of a step. A second one for the same call is harmless: its result is dropped by its id."""

    run: RunId
    id: CallId
    step: str
    input: Raw
    attempt: int
    since: int
    kept: int = 0
    """How many results of it are kept: they are to be handed in."""
    failures: int = 0
    again: bool = False
    """It was in flight when the run halted: it may still be, or have begun in an engine that is gone."""
    trace: str = ""
    """The attempt's own place in the trace, as a `traceparent`."""
    tracestate: str = ""
    baggage: str = ""


class Keep(NamedTuple):
    """Keep a result of a call beside the run."""

    run: RunId
    call: CallId
    name: str
    output: Raw


class Forget(NamedTuple):
    """A call is over: what was kept of it is not needed any more."""

    run: RunId
    call: CallId
    """Empty: all calls are, of a run whose stored bytes could not be read."""


class AskRun(NamedTuple):
    """Ask the run that answers this question; its answer is the result of the asker's call."""

    question: Question[Any]
    asker: Asker
    traceparent: str = ""
    id: str = ""
    tracestate: str = ""
    baggage: str = ""


class Reply(NamedTuple):
    """The answer for a run that asked: its call's result, or a failure for good."""

    asker: Asker
    output: Raw = Raw(b"")
    error: str = ""
    message: str = ""


class CancelCall(NamedTuple):
    """Nobody waits for this call any longer."""

    run: RunId
    id: CallId


class PublishEvent(NamedTuple):
    """Hand an event to the outbox and to the application's workflows."""

    event: Event
    envelope: CloudEvent


Command = StartCall | CancelCall | PublishEvent | DeadLetter | Keep | Forget | AskRun | Reply


class Reaction(Struct):
    """What a fold of one entry comes to."""

    stored: bytes | None
    """What to keep for the run; None: nothing."""
    commands: list[Command] = []  # msgspec makes a new one each time
    records: list[Record] = []
    hold: bool = False
    """Keep the entry behind those already held for this run."""
    release: int = 0
    """How many of the held entries, from the first, are done with."""
    wakes: int = 0
    """When the next timer is due, log ms; 0: never. Bring a `TickEntry` then."""
    running: bool = False
    """Whether calls are in flight: after a restart `running_calls` says which."""


def run_id(workflow: str, key: str, partition: int, position: Position) -> RunId:
    text = f"{workflow}\x1f{key}\x1f{partition}/{position}"
    return RunId(hashlib.blake2b(text.encode(), digest_size=8).hexdigest())


def event_hash(source: str, id: str) -> str:
    """8 bytes of (source, id), base64: how a run remembers an event."""
    digest = hashlib.blake2b(f"{source}\x1f{id}".encode(), digest_size=8).digest()
    return base64.b64encode(digest)[:11].decode()


def digest_of(raw: bytes) -> str:
    return hashlib.blake2b(raw, digest_size=8).hexdigest()
