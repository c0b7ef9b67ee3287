"""A workflow: states, the arrows between them, and the tables that the fold reads.

Everything is taken from the classes once, when `Workflow(...)` is built at the foot of the module: arrows from return
annotations, events from parameter annotations, timers and work from the marks. `checks.py` then looks for what cannot
be meant; all problems are raised together.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from engine.core.budget import Budget
from engine.core.content import Contents
from engine.core.context import Context
from engine.core.errors import DefinitionError
from engine.core.model import Answer, Event, Final, Mark, Moment, Publish, Question, Searchable, State, Work
from engine.core.secret import hides, is_secret, shapes_of
from engine.core.steps import Call, Step, careful_writer

E = TypeVar("E", bound=Event)
T = TypeVar("T")

Begun = State | tuple[State | Answer[Any], ...]
"""The first state; with it, where a question begins the run, its answer."""

RECORDS = 2
"""Counts changes of what the fold writes: with each the code is another one, as far as a replay is concerned."""
DEEP = 4
"""How many models a `Searchable` may stand in."""


@dataclass(frozen=True)
class Handler:
    """A method that answers, with what its annotations say."""

    name: str
    owner: str
    """The superstate that defines it; empty: the state itself."""
    trigger: str
    """The table's words for what sets it off."""
    function: Callable[..., Any]
    takes_context: bool
    targets: frozenset[type[State]]
    order: tuple[type[State], ...]
    """The targets as the annotation names them."""
    calls: bool
    publishes: bool
    annotated: bool
    replies: bool = False
    """It may give answers to runs that asked."""
    event: type[Event] | None = None
    delay: int = 0
    """Of a timer, ms."""
    repeats: bool = False


@dataclass(frozen=True)
class WorkSpec:
    """A `@runs` of a state."""

    name: str
    steps: tuple[Step[Any, Any], ...]
    limit: int
    inputs: Callable[..., Any]
    inputs_take_context: bool
    done: Handler | None
    failed: Handler | None

    @property
    def each(self) -> bool:
        return self.limit > 0

    @property
    def words(self) -> str:
        return " + ".join(s.name for s in self.steps) + (" each" if self.each else "")


@dataclass(frozen=True)
class MomentSpec:
    """An `@at` of a state."""

    name: str
    owner: str
    when: Callable[..., Any]
    when_takes_context: bool
    due: Handler | None


@dataclass(frozen=True)
class StateSpec:
    """All that the fold asks of a state."""

    type: type[State]
    name: str
    final: bool
    groups: tuple[str, ...]
    """Superstates, the outermost first."""
    on: tuple[Handler, ...]
    enters: tuple[Handler, ...]
    timers: tuple[Handler, ...]
    moments: tuple[MomentSpec, ...]
    works: tuple[WorkSpec, ...]
    group_timers: Mapping[str, tuple[Handler, ...]]
    """What entering each superstate sets, whether this state overrides it or not."""
    events: Mapping[str, Handler]
    answers: Mapping[str, Handler]
    """Of the questions that it answers, by their names."""
    asks: str
    """The inbox that the run stands in here; empty: none."""
    endless: bool
    later: frozenset[str]
    ignores: frozenset[str]
    read: Callable[[bytes], State]
    write: Callable[[State], bytes]
    searchable: tuple[tuple[str, Callable[[Any], Any]], ...]

    @cached_property
    def timers_by_name(self) -> Mapping[tuple[str, str], Handler]:
        found = {(t.owner, t.name): t for t in self.timers}
        return found | {(m.owner, m.name): m.due for m in self.moments if m.due}

    @cached_property
    def works_by_name(self) -> Mapping[str, WorkSpec]:
        return {w.name: w for w in self.works}

    @cached_property
    def plain(self) -> bool:
        """Whether entering it does no more than start one step, or nothing at all (see `engine.core.quick`)."""
        if self.groups or self.timers or self.moments or self.enters or self.asks or len(self.works) > 1:
            return False
        return all(
            len(w.steps) == 1
            and not w.each
            and not w.inputs_take_context
            and w.steps[0].question is None
            and w.steps[0].spends is None
            for w in self.works
        )

    def handlers(self) -> Iterator[Handler]:
        """Every handler, in the table's order: work, entry, events, timers."""
        for work in self.works:
            yield from (h for h in (work.done, work.failed) if h)
        yield from self.enters
        yield from self.on
        yield from self.timers
        yield from (m.due for m in self.moments if m.due)

    def fields(self, state: State) -> dict[str, str]:
        """The searchable fields of a state as text."""
        found: dict[str, str] = {}
        for name, get in self.searchable:
            value = get(state)
            if value is not None:
                found[name] = str(value)
        return found


def span(delay: timedelta) -> str:
    """A delay as the table writes it: `14 d`, `90 min`, `1.5 s`."""
    seconds = delay.total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:g} s"


def members(annotation: Any) -> Iterator[Any]:
    """The classes that an answer's annotation names: unions, tuples and generics opened."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, tuple):
        for argument in typing.get_args(annotation):
            if argument is not Ellipsis:
                yield from members(argument)
    else:
        yield origin or annotation


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _takes_context(function: Callable[..., Any], hints: Mapping[str, Any]) -> bool:
    names = list(inspect.signature(function).parameters)
    return bool(names) and hints.get(names[-1]) is Context


def _handler(name: str, owner: str, trigger: str, function: Callable[..., Any], **more: Any) -> Handler:
    hints = _hints(function)
    found = list(members(hints["return"])) if "return" in hints else []
    order = tuple(dict.fromkeys(m for m in found if isinstance(m, type) and issubclass(m, State)))
    return Handler(
        name=name,
        owner=owner,
        trigger=trigger,
        function=function,
        takes_context=_takes_context(function, hints),
        targets=frozenset(order),
        order=order,
        calls=Call in found,
        publishes=Publish in found,
        replies=Answer in found,
        annotated="return" in hints,
        **more,
    )


def _event_of(function: Callable[..., Any]) -> type[Event] | None:
    hints = _hints(function)
    for name in list(inspect.signature(function).parameters)[1:]:
        if isinstance(hints.get(name), type) and issubclass(hints[name], Event):
            event: type[Event] = hints[name]
            return event
    return None


def superstates(state: type[State]) -> tuple[type[State], ...]:
    """The state's base classes between itself and `State`, the outermost first."""
    bases = [c for c in state.__mro__[1:] if issubclass(c, State) and c not in (State, Final)]
    return tuple(reversed(bases))


def attributes(state: type[State]) -> dict[str, tuple[type[State], Any]]:
    """Own and inherited attributes with the class that defines them, base classes first, overridden ones once."""
    found: dict[str, tuple[type[State], Any]] = {}
    for cls in (*superstates(state), state):
        for name, value in vars(cls).items():
            if cls is state:
                found.pop(name, None)
            found[name] = (cls, value)
    return found


def searchable(
    model: type[BaseModel], path: str = "", depth: int = 0, *, hidden: bool = False
) -> Iterator[tuple[str, str, bool]]:
    """(name, path, whether it is secret) of the fields marked `Searchable`, in a model and in models in it."""
    for name, field in model.model_fields.items():
        where = f"{path}.{name}" if path else name
        secret = hidden or is_secret(field.metadata)
        if any(m is Searchable or isinstance(m, Searchable) for m in field.metadata):
            yield name, where, secret or hides(shapes_of(field.annotation))
        elif depth < DEEP and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from searchable(field.annotation, where, depth + 1, hidden=secret)


def state_spec(state: type[State]) -> StateSpec:
    """Read a state's class.

    Raises:
        NameError: an annotation names what its module does not have.
    """
    on: list[Handler] = []
    enters: list[Handler] = []
    timers: list[Handler] = []
    answers: list[Handler] = []
    moments: list[MomentSpec] = []
    works: list[WorkSpec] = []
    for name, (cls, value) in attributes(state).items():
        owner = "" if cls is state else cls.__name__
        if isinstance(value, Work):
            works.append(_work(name, owner, value))
        elif isinstance(value, Moment):
            due = _handler(name, owner, f"at {name}", value.on_due) if value.on_due else None
            moments.append(MomentSpec(name, owner, value.when, _takes_context(value.when, _hints(value.when)), due))
        elif isinstance(mark := getattr(value, "__mark__", None), Mark):
            if mark.kind == "on":
                event = _event_of(value)
                trigger = event.__name__ if event else name
                on.append(_handler(name, owner, trigger, value, event=event))
            elif mark.kind == "answers":
                event = _event_of(value)
                answers.append(_handler(name, owner, f"{event.__name__ if event else name} asked", value, event=event))
            elif mark.kind == "enter":
                enters.append(_handler(name, owner, "entry", value))
            elif mark.delay is not None:
                timers.append(_timer(name, owner, value, mark))
    return StateSpec(
        type=state,
        name=state.__name__,
        final=issubclass(state, Final),
        groups=tuple(s.__name__ for s in superstates(state)),
        on=tuple(on),
        enters=tuple(enters),
        timers=tuple(timers),
        moments=tuple(moments),
        works=tuple(works),
        group_timers={cls.__name__: _group_timers(cls) for cls in superstates(state)},
        events={h.event.__name__: h for h in on if h.event},
        answers={h.event.__name__: h for h in answers if h.event},
        asks=state.__asks__,
        endless=state.__endless__,
        later=frozenset(e.__name__ for e in state.later),
        ignores=frozenset(e.__name__ for e in state.ignores),
        read=state.__pydantic_validator__.validate_json,
        write=_state_writer(state),
        searchable=tuple({n: (n, attrgetter(p)) for n, p, _ in searchable(state)}.values()),
    )


def _state_writer(state: type[State]) -> Callable[[State], bytes]:
    return careful_writer(state.__pydantic_serializer__, state.__pydantic_validator__.validate_json, state)


def _timer(name: str, owner: str, function: Callable[..., Any], mark: Mark) -> Handler:
    delay = mark.delay or timedelta()
    trigger = f"{mark.kind} {span(delay)}"
    length = int(delay / timedelta(milliseconds=1))
    return _handler(name, owner, trigger, function, delay=length, repeats=mark.kind == "every")


def _group_timers(cls: type[State]) -> tuple[Handler, ...]:
    marks = ((name, value, getattr(value, "__mark__", None)) for name, value in vars(cls).items())
    return tuple(_timer(n, cls.__name__, v, m) for n, v, m in marks if isinstance(m, Mark) and m.delay is not None)


def _work(name: str, owner: str, work: Work[Any, Any]) -> WorkSpec:
    words = " + ".join(s.name for s in work.steps) + (" each" if work.each else "")
    done = _handler(work.on_done.__name__, owner, f"{words} done", work.on_done) if work.on_done else None
    failed = _handler(work.on_failed.__name__, owner, f"{words} failed", work.on_failed) if work.on_failed else None
    context = _takes_context(work.inputs, _hints(work.inputs))
    return WorkSpec(name, work.steps, work.limit, work.inputs, context, done, failed)


@dataclass(frozen=True)
class Row:
    """A line of the table: in `state`, `trigger` leads to one of `targets` (none: the run stays)."""

    state: str
    trigger: str
    targets: tuple[str, ...]


class Workflow(Generic[E]):
    """A process as a typed state machine.

    `start` makes the first state of the event that begins a run. `version` counts changes of what is stored, and
    `migrate` says how a state of an older version is read: its name then, and a function of its stored fields.
    `on_key` overrides, for this workflow, which field of an event holds the key. `budget` bounds what its runs may
    use; of two workflows that wait at a limit, the one of lower `priority` goes first. With `content` the records, and
    what is exported of them, tell what comes in: the data of events and results, but for what is marked `Secret`.

    Raises:
        DefinitionError: with every problem of the definition.
    """

    def __init__(
        self,
        name: str,
        *,
        start: Callable[[E], Begun] | Callable[[E, Context], Begun],
        states: Sequence[type[State]],
        version: int = 1,
        migrate: Mapping[str, Callable[[dict[str, Any]], State]] | None = None,
        on_key: Mapping[type[Event], str] | None = None,
        budget: Budget | None = None,
        priority: int = 0,
        content: bool = False,
    ) -> None:
        from engine.core import checks  # noqa: PLC0415 - checks read definitions

        self.name, self.start, self.version = name, start, version
        self.budget, self.priority, self.content = budget, priority, content
        self.migrate = dict(migrate or {})
        self.on_key = {event.__name__: path for event, path in (on_key or {}).items()}
        self.listed = {state.__name__: state for state in checks.classes(states)}
        self.specs: dict[str, StateSpec] = {}
        problems = checks.names(states)
        for state in self.listed.values():
            try:
                self.specs[state.__name__] = state_spec(state)
            except (AttributeError, NameError, TypeError) as error:
                problems.append(_unread(state.__name__, error))
        try:
            self.starting = _handler("start", "", "start", start)
            self.starts_on = self._start_events()
        except (AttributeError, NameError, TypeError) as error:
            raise DefinitionError(f"workflow {name!r}", [*problems, _unread("start", error)]) from None
        found = checks.check(self)
        self.warnings = found.warnings
        if problems := [*problems, *found.problems]:
            raise DefinitionError(f"workflow {name!r}", problems)

    def _start_events(self) -> dict[str, type[Event]]:
        hints = _hints(self.start)
        first = next(iter(inspect.signature(self.start).parameters), "")
        found = members(hints.get(first))
        return {m.__name__: m for m in found if isinstance(m, type) and issubclass(m, Event)}

    @cached_property
    def events(self) -> dict[str, type[Event]]:
        """Every event that starts a run or that a state handles, by its name on the wire."""
        handled = (h.event for spec in self.specs.values() for h in spec.on if h.event)
        return {**self.starts_on, **{event.__name__: event for event in handled}}

    @cached_property
    def questions(self) -> dict[str, type[Event]]:
        """Every question that a state answers, by its name."""
        handled = (h.event for spec in self.specs.values() for h in spec.answers.values() if h.event)
        return {event.__name__: event for event in handled} | {
            name: event for name, event in self.events.items() if issubclass(event, Question)
        }

    @property
    def account(self) -> str:
        """The key of the account that its calls are paid from; empty: there is none."""
        if self.budget is None or not self.budget.shared:
            return ""
        return self.budget.account or self.name

    def all_steps(self) -> Iterator[Step[Any, Any]]:
        """Every step named in a `@runs`; those that handlers call are learned from the modules that they stand in."""
        for spec in self.specs.values():
            for work in spec.works:
                yield from work.steps
        yield from self._found(Step)

    def _found(self, kind: type[T]) -> Iterator[T]:
        """What of `kind` the modules of states and start name."""
        for name in sorted(self._modules()):
            yield from (value for value in vars(sys.modules[name]).values() if isinstance(value, kind))

    def _modules(self) -> set[str]:
        """Where the states, their base classes and the start are written."""
        found = {c.__module__ for spec in self.specs.values() for c in (spec.type, *superstates(spec.type))}
        return found | {self.start.__module__}

    @cached_property
    def steps(self) -> dict[str, Step[Any, Any]]:
        """Every step that a run may call, by name."""
        # from shop import steps: steps.send_mail.call(...)
        beyond = (v for module in self._found(types.ModuleType) for v in vars(module).values() if isinstance(v, Step))
        return {s.name: s for s in (*beyond, *self.all_steps())}

    @cached_property
    def code(self) -> str:
        """12 hex digits of what folds: the modules of states, start and events, and how often steps are tried."""
        modules = self._modules() | {event.__module__ for event in self.events.values()}
        written = f"{RECORDS}{' content' if self.content else ''}"
        digest = hashlib.blake2b(f"{self.name} {self.version} {written}".encode(), digest_size=6)
        for name, step in sorted(self.steps.items()):
            digest.update(f"{name} {step.retry} {step.total} {step.spends or ''}".encode())
        digest.update(f"{self.budget or ''}".encode())
        for name in sorted(modules):
            digest.update(_source(name))
        return digest.hexdigest()

    @cached_property
    def contents(self) -> Contents:
        """What its records may tell of what comes in."""
        return Contents(self)

    def key_path(self, event: str) -> str:
        """Where `event` holds the key of this workflow's runs; empty: only beside it."""
        return self.on_key.get(event, self.events[event].__key__)

    def rows(self, state: str | None = None) -> Iterator[Row]:
        """The table, or one state's part of it."""
        for name, spec in self.specs.items():
            if state in (None, name):
                for handler in spec.handlers():
                    yield Row(name, handler.trigger, tuple(t.__name__ for t in handler.order))
                for handler in spec.answers.values():
                    yield Row(name, handler.trigger, ())

    def table(self) -> str:
        """One line for each arrow: a golden file in tests, and so a readable diff in every review."""
        rows = [(r.state, r.trigger, " or ".join(r.targets) or "(stays)") for r in self.rows()]
        states = max((len(r[0]) for r in rows), default=0)
        triggers = max((len(r[1]) for r in rows), default=0)
        return "\n".join(f"{a:{states}}  {b:{triggers}}  -> {c}" for a, b, c in rows)

    def mermaid(self) -> str:
        """The same as a Mermaid state diagram."""
        lines = ["stateDiagram-v2"]
        lines += [f"    [*] --> {t.__name__}" for t in self.starting.order]
        for row in self.rows():
            lines += [f"    {row.state} --> {target} : {row.trigger}" for target in row.targets]
            if not row.targets:
                lines.append(f"    {row.state} : {row.trigger}")
        lines += [f"    {name} --> [*]" for name, spec in self.specs.items() if spec.final]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Workflow({self.name!r}, version={self.version})"


def _unread(name: str, error: Exception) -> str:
    if isinstance(error, NameError):
        return f"{name}: {error}; define states and data at module level, above the Workflow"
    return f"{name} cannot be read: {error}; look at its annotations, and at later= and ignores="


def _source(module: str) -> bytes:
    try:
        return inspect.getsource(sys.modules[module]).encode()
    except (OSError, TypeError, KeyError):
        return module.encode()


def flat(answers: Iterable[Any]) -> Iterator[Any]:
    """An answer's parts: tuples opened."""
    for answer in answers:
        if isinstance(answer, tuple):
            yield from flat(answer)
        else:
            yield answer
