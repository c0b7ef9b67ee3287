"""What comes from outside: CloudEvents 1.0 in JSON, checked before they are appended.

Whoever sends learns at once what is wrong, with the name of the field; what passes here the fold can read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import msgspec
from msgspec import Raw

from engine.carrier import NAMES, Carried, carried
from engine.core.account import accounts
from engine.core.errors import EventRefused
from engine.core.model import BudgetSpent
from engine.core.record import CloudEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.core.application import Application
    from engine.core.entry import EventEntry
    from engine.core.model import Event

MAX_EVENT: Final = 1 << 20
REQUIRED: Final[tuple[str, ...]] = ("specversion", "id", "source", "type")
"""CloudEvents 1.0.2, "REQUIRED Attributes"."""
TEXTS: Final[tuple[str, ...]] = (
    *REQUIRED,
    "subject",
    "time",
    "datacontenttype",
    "longwatchcause",
)
PERSONAL: Final[tuple[str, ...]] = ("longwatchwho", "longwatchvisit")
"""Attributes that make an event a person's answer. They are believed, so they are taken from `Client.answer` alone."""

OWN: Final = frozenset((BudgetSpent, *accounts.events.values()))
"""Events of budgets: whoever may send events may not give himself money."""


def read(raw: bytes, application: Application) -> list[EventEntry]:
    """The entries of a CloudEvent: one for each workflow that takes its type.

    Raises:
        EventRefused: with the field and the reason.
    """
    return entries(read_envelope(raw), application)


def entries(envelope: CloudEvent, application: Application) -> list[EventEntry]:
    """The entries of a CloudEvent whose form was checked.

    Raises:
        EventRefused: nobody takes its type, its data does not fit the schema, it has no key, or two, or it is one of
            those that only the engine or a person may send.
    """
    event = application.read_event(envelope)
    if type(event) in OWN:
        raise EventRefused("is not taken from outside: budgets are raised with `longwatch budgets raise`", "type")
    return application.entries(event, envelope)


def envelope_of(event: Event, *, key: str = "", id: str = "", source: str = "longwatch-client") -> CloudEvent:
    """A CloudEvent around an event of the application; sent twice with one `id` it is taken once."""
    data = event.model_dump_json().encode()
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return CloudEvent(
        id=id or str(uuid4()), source=source, type=type(event).__name__, subject=key, time=time, data=Raw(data)
    )


def read_envelope(raw: bytes) -> CloudEvent:
    """A CloudEvent, checked for all that does not need the application.

    It comes from outside, so it speaks for nobody: an event that says whose answer it is is refused. Answers are given
    with `longwatch answer` or `Client.answer`, by callers who are trusted to know the person.

    Raises:
        EventRefused: too large, no JSON object, an attribute is missing or has another type than the standard says, or
            it claims to be a person's answer.
    """
    if not raw.strip():
        raise EventRefused("there is no event: nothing was given")
    if len(raw) > MAX_EVENT:
        raise EventRefused(
            f"the event has {len(raw):,} bytes; at most {MAX_EVENT:,} are taken: send a reference instead"
        )
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.ValidationError:
        raise EventRefused(
            "the event is no JSON object; a CloudEvent is one, with specversion, id, source, type"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventRefused(f"the event is no JSON: {error}") from None
    found = {name: _text(name, fields[name]) for name in TEXTS if name in fields}
    _check(found, fields)
    trace = carried({name: _any_text(raw) for name, raw in fields.items() if name.lower() in NAMES})
    return CloudEvent(
        specversion=found["specversion"],
        id=found["id"],
        source=found["source"],
        type=found["type"],
        subject=found.get("subject", ""),
        time=found.get("time", ""),
        **trace._asdict(),
        longwatchcause=found.get("longwatchcause", ""),
        data=Raw(msgspec.json.format(fields.get("data", b"null"), indent=-1)),
        longwatchhops=_hops(fields),
    )


def _text(name: str, raw: Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError as error:
        raise EventRefused(f"must be text ({error})", name) from None


def _any_text(raw: Raw) -> str:
    """Of what is no text, its JSON: nothing about a trace is a reason to refuse an event."""
    try:
        return msgspec.json.decode(raw, type=str | None) or ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return bytes(raw).decode(errors="replace")


def carrying(envelope: CloudEvent, trace: Carried) -> CloudEvent:
    """A CloudEvent that names no trace of its own, in this one."""
    return envelope if envelope.traceparent else msgspec.structs.replace(envelope, **trace._asdict())


def _hops(fields: Mapping[str, Raw]) -> int:
    try:
        return max(0, msgspec.json.decode(fields.get("longwatchhops", b"0"), type=int))
    except msgspec.DecodeError as error:
        raise EventRefused(f"must be a whole number ({error})", "longwatchhops") from None


def _check(found: Mapping[str, str], fields: Mapping[str, Any]) -> None:
    for name in PERSONAL:
        if name in fields:
            raise EventRefused("is not taken from outside; a person's answer is given with `longwatch answer`", name)
    for name in REQUIRED:
        if not found.get(name):
            raise EventRefused("is missing or empty; every CloudEvent has it", name)
    if found["specversion"] != "1.0":
        raise EventRefused(f"is {found['specversion']!r}; CloudEvents 1.0 are taken", "specversion")
    if "data_base64" in fields:
        raise EventRefused("is not taken; put the event's JSON into data", "data_base64")
    media = found.get("datacontenttype", "application/json").partition(";")[0].strip().lower()
    if not media.endswith(("/json", "+json")):
        raise EventRefused(f"is {media!r}; data must be JSON", "datacontenttype")
    if time := found.get("time"):
        _check_time(time)


def _check_time(time: str) -> None:
    try:
        zone = datetime.fromisoformat(time).tzinfo
    except ValueError:
        zone = None
    if zone is None:
        raise EventRefused(f"is {time!r}; write it as RFC 3339 with a zone, such as 2026-01-05T09:00:00Z", "time")
