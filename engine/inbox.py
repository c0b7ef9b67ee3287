"""What waits for people, what may be answered, and what came of an answer. Times are datetimes in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from pydantic import ValidationError

from engine.core.account import ACCOUNTS, accounts
from engine.core.errors import EventRefused
from engine.core.model import Question, Raise
from engine.core.spending import GROUP
from engine.core.steps import BUDGET
from engine.reports import OrderRefused, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from pydantic import BaseModel

    from engine.core.application import Application
    from engine.core.definition import StateSpec, Workflow
    from engine.core.model import Event
    from engine.core.record import Asks, Record
    from engine.reports import Sent
    from engine.view.inbox import InboxRow, Place

SPENT: Final = "BudgetSpent"
"""The engine's own event: a state may handle it, and nobody answers with it."""


class NothingAsked(OrderRefused):
    """The run asks people nothing, or not this any more."""


class AlreadyAnswered(OrderRefused):
    """Somebody else was first: `by` whom, and `at` what time."""

    def __init__(self, run: str, by: str, at: datetime | None, now: str = "") -> None:
        self.run, self.by, self.at, self.now = run, by, at, now
        time = f" at {at:%Y-%m-%d %H:%M:%S}Z" if at else ""
        then = f"; the run is in {now} now" if now else ""
        super().__init__(f"{run}: answered already, by {by}{time}{then}. Your answer changed nothing")

    def __reduce__(self) -> tuple[type[AlreadyAnswered], tuple[str, str, datetime | None, str]]:
        return type(self), (self.run, self.by, self.at, self.now)


class TakenByOther(OrderRefused):
    """Somebody else, `by`, has taken it upon himself."""

    def __init__(self, run: str, by: str) -> None:
        self.run, self.by = run, by
        super().__init__(f"{run} is taken by {by}; to give it back: longwatch release {run}")

    def __reduce__(self) -> tuple[type[TakenByOther], tuple[str, str]]:
        return type(self), (self.run, self.by)


@dataclass(frozen=True)
class Choice:
    """An answer that may be given."""

    name: str
    """The event's name, or the title of the answer's schema."""
    schema: Mapping[str, Any]
    """JSON schema of its data."""
    event: type[Event] | None = None
    model: type[BaseModel] | None = None
    """Of an answer that the engine itself reads: it says more than its schema."""
    key_path: str = ""
    """Where the event holds the run's key, which is filled in."""

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """Its fields and their schemas."""
        found: Mapping[str, Any] = self.schema.get("properties", {})
        return found


@dataclass(frozen=True)
class InboxItem:
    """One thing that a run asks people."""

    workflow: str
    key: str
    state: str
    visit: int
    group: str
    call: str
    """The call that asks; empty: the state does."""
    name: str
    question: str
    since: datetime | None
    until: datetime | None
    """When a timer leads on without an answer."""
    taken: str
    """Who has taken it upon himself."""
    choices: tuple[Choice, ...]
    """Empty: the application is not known, so a state's events are not either."""
    place: Place = (0, 0, 0)
    """For the next page."""

    @property
    def address(self) -> str:
        return f"{self.workflow}/{self.key}"

    @property
    def of_state(self) -> bool:
        """Whether the state asks: its answers are events."""
        return not self.call

    @property
    def what(self) -> str:
        """Which of the things that a run asks, in a few words."""
        return self.state if self.of_state else f"{self.name} of call {self.call}"


@dataclass(frozen=True)
class Outcome:
    """What came of an answer or an order of a person's."""

    sent: Sent
    who: str
    at: datetime | None
    state: str
    """Where the run is then."""
    status: str
    held: str = ""
    """Why it is put off: the run is halted, perhaps over this, and takes it when it goes on."""


def item_of(row: InboxRow, application: Application | None) -> InboxItem:
    return InboxItem(
        workflow=row.workflow,
        key=row.key,
        state=row.state,
        visit=row.visit,
        group=row.group,
        call=row.call,
        name=row.name,
        question=row.question or _purpose(spec_of(application, row.workflow, row.state), row.call),
        since=when(row.since),
        until=when(row.until),
        taken=row.taken,
        choices=choices(application, row.workflow, row.state, row.group, row.call, row.name, row.schema),
        place=row.place,
    )


def items_of(record: Record, application: Application | None) -> Iterator[InboxItem]:
    """What the run asks after this record."""
    for asks in record.asks:
        yield _item(record, asks, application)


def _item(record: Record, asks: Asks, application: Application | None) -> InboxItem:
    schema = bytes(asks.schema).decode()
    return InboxItem(
        workflow=record.workflow,
        key=record.key,
        state=record.to,
        visit=record.visit,
        group=asks.group,
        call=asks.call,
        name=asks.name,
        question=asks.question or _purpose(spec_of(application, record.workflow, record.to), asks.call),
        since=when(asks.since),
        until=when(asks.until),
        taken=record.taken,
        choices=choices(application, record.workflow, record.to, asks.group, asks.call, asks.name, schema),
    )


def workflow_of(application: Application | None, name: str) -> Workflow[Any] | None:
    """A workflow of the application, or the engine's own that keeps accounts."""
    if name == ACCOUNTS:
        return accounts
    return application.workflows.get(name) if application else None


def spec_of(application: Application | None, workflow: str, state: str) -> StateSpec | None:
    found = workflow_of(application, workflow)
    return found.specs.get(state) if found else None


def choices(
    application: Application | None, workflow: str, state: str, group: str, call: str, name: str, schema: str
) -> tuple[Choice, ...]:
    """What may be answered: to a call one thing, to a state each event that it handles."""
    if call and schema:
        return (_told(name, schema),)
    if call:
        return (RAISE,) if (group, name) == (GROUP, BUDGET) else (Choice(name, {}),)
    found = workflow_of(application, workflow)
    spec = found.specs.get(state) if found else None
    if found is None or spec is None:
        return ()
    events = {n: h.event for n, h in spec.events.items() if h.event and not issubclass(h.event, Question)}
    return tuple(_choice(event, found.key_path(n)) for n, event in events.items() if n != SPENT)


@lru_cache(maxsize=1000)
def _told(name: str, schema: str) -> Choice:
    found = msgspec.json.decode(schema)
    return Choice(str(found.get("title", "")) or name, found) if isinstance(found, dict) else Choice(name, {})


@lru_cache(maxsize=1000)
def _choice(event: type[Event], key_path: str) -> Choice:
    """Made once: a schema costs as much as a hundred rows of the inbox."""
    return Choice(event.__name__, event.model_json_schema(), event, key_path=key_path)


RAISE: Final = Choice("Raise", Raise.model_json_schema(), model=Raise)
"""The answer to a spent budget of a run."""


def _purpose(spec: StateSpec | None, call: str) -> str:
    """The first line of a state's docstring."""
    words = vars(spec.type).get("__doc__") if spec and not call else None
    return str(words).strip().partition("\n")[0] if words else ""


def chosen(items: Iterable[InboxItem], address: str, call: str = "", name: str = "") -> InboxItem:
    """The one thing that is meant.

    Raises:
        NothingAsked: the run asks nothing, or not this.
        OrderRefused: it asks several things, and it is not said which.
    """
    every = list(items)
    found = [each for each in every if (not call or each.call == call) and (not name or each.name == name)]
    if len(found) == 1:
        return found[0]
    if not every:
        raise NothingAsked(f"{address} asks people nothing; `longwatch inbox` lists what waits")
    asked = "; ".join(f"{each.question or each.what} (--call {each.call or 'state'})" for each in every)
    if not found:
        raise NothingAsked(f"{address} does not ask that (any more); it asks: {asked}")
    raise OrderRefused(f"{address} asks {len(found)} things, say which: {asked}")


STATE: Final = "state"
"""As a call: what the state asks is meant."""


def narrowed(items: Iterable[InboxItem], call: str) -> list[InboxItem]:
    """Only what the state asks, where that is what `call` says."""
    return [each for each in items if each.of_state] if call == STATE else list(items)


def choice_of(item: InboxItem, name: str) -> Choice:
    """The answer of this name; without a name the only one.

    Raises:
        EventRefused: there is none, or it is not said which.
    """
    names = ", ".join(each.name for each in item.choices)
    if not item.choices:
        raise EventRefused(
            f"the answers to {item.workflow!r} are events of an application that is not known here; name it with --app"
        )
    if not name and len(item.choices) == 1:
        return item.choices[0]
    found = [each for each in item.choices if each.name.lower() == name.lower()]
    if len(found) == 1:
        return found[0]
    if not name:
        raise EventRefused(f"say which: {item.state} may be answered with {names}", "answer")
    raise EventRefused(f"{name!r} is no answer to {item.what}; choose {names}", "answer")


def checked(item: InboxItem, choice: Choice, value: Any) -> bytes:  # noqa: ANN401 - JSON is anything
    """The answer's JSON, if it fits; the run's key is filled in where the event holds it.

    Raises:
        EventRefused: with the field and the rule.
    """
    if choice.event is not None:
        return _read(choice.event, _with_key(value, choice.key_path, item.key))
    if choice.model is not None:
        return _read(choice.model, value)
    _check_schema(choice, value)
    return msgspec.json.encode(value)


def _with_key(value: Any, path: str, key: str) -> Any:  # noqa: ANN401 - JSON is anything
    head, _, rest = path.partition(".")
    if not head or not isinstance(value, dict):
        return value
    if rest:
        return {**value, head: _with_key(value.get(head, {}), rest, key)}
    if value.get(head, key) != key:
        raise EventRefused(f"is {value[head]!r}, but the run that is answered is {key!r}; leave it out", head)
    return {**value, head: key}


def _read(model: type[BaseModel], value: Any) -> bytes:  # noqa: ANN401 - JSON is anything
    try:
        return model.model_validate_json(msgspec.json.encode(value)).model_dump_json().encode()
    except ValidationError as error:
        problems = [(".".join(str(part) for part in each["loc"]), each["msg"]) for each in error.errors()]
        raise _refused(model.__name__, problems, model.model_fields) from None


def _check_schema(choice: Choice, value: Any) -> None:  # noqa: ANN401 - JSON is anything
    import jsonschema  # type: ignore[import-untyped]  # noqa: PLC0415 - no stubs of its own; as slow as all of this file
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        jsonschema.Draft202012Validator.check_schema(choice.schema)
        # A registry of nothing: a schema that names another one by its address is not fetched.
        checker = jsonschema.Draft202012Validator(choice.schema, registry=Registry())
        errors = [jsonschema.exceptions.best_match([each]) for each in checker.iter_errors(value)]
    except (jsonschema.SchemaError, Unresolvable, re.error) as error:
        raise EventRefused(f"the schema that the call gave cannot be used: {error}", choice.name) from None
    if errors:
        problems = [(".".join(str(part) for part in each.absolute_path), each.message) for each in errors]
        raise _refused(choice.name, problems, choice.fields)


def _refused(name: str, problems: list[tuple[str, str]], fields: Mapping[str, Any]) -> EventRefused:
    field, words = problems[0]
    more = "".join(f"; {where or name}: {what}" for where, what in problems[1:4])
    return EventRefused(f"{words}{more} ({name} has {', '.join(fields) or 'no fields'})", field or name)
