"""The words a workflow is written in: events, states, and the marks on a state's methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeVarTuple, Unpack

from engine.core.context import Context
from engine.core.entry import Asker
from engine.core.steps import Call, I, O, Retry, Step

I1 = TypeVar("I1")
I2 = TypeVar("I2")
I3 = TypeVar("I3")
I4 = TypeVar("I4")
I5 = TypeVar("I5")
O1 = TypeVar("O1")
O2 = TypeVar("O2")
O3 = TypeVar("O3")
O4 = TypeVar("O4")
O5 = TypeVar("O5")
W = TypeVar("W")
Q = TypeVar("Q")
Q_co = TypeVar("Q_co", covariant=True)
Inputs_contra = TypeVar("Inputs_contra", contravariant=True)
Outs = TypeVarTuple("Outs")


class Event(BaseModel):
    """What happens outside. `class ClaimFiled(Event, key="claim.claim_id")` names the field that holds the run's key.

    Without `key=` the key travels beside the event (CloudEvents `subject`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    __key__: ClassVar[str] = ""

    def __init_subclass__(cls, *, key: str | None = None, **kwargs: Any) -> None:
        if key is not None:
            cls.__key__ = key
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, key: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if key is not None and cls.__pydantic_complete__ and (problem := key_problem(cls, key)):
            raise TypeError(problem)


def key_problem(event: type[Event], path: str) -> str:
    """Why `path` cannot be the key of `event`; empty when it can."""
    model: Any = event
    for name in path.split("."):
        fields = getattr(model, "model_fields", None)
        if fields is None or name not in fields:
            has = ", ".join(fields) if fields else "no fields"
            return f"{event.__name__}: key={path!r} names no field: {getattr(model, '__name__', model)} has {has}"
        model = fields[name].annotation
    model = getattr(model, "__supertype__", model)
    if model is not str:
        return f"{event.__name__}: key={path!r} is no text; the key of a run is a str (or a NewType of it)"
    return ""


def key_of(event: Event, path: str) -> str:
    """The value at `path`; empty when the event has no `key=`."""
    value: Any = event
    for name in path.split(".") if path else ():
        value = getattr(value, name)
    return value if path else ""


A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)


class Question(Event, Generic[A]):
    """What a run asks another: `class HistoryAsked(Question[History], key="customer")` is answered with a `History`.

    The key is that of the run that answers. The asker runs `ask(HistoryAsked)`; the answering workflow's states have a
    method marked with `@answers`.
    """

    @classmethod
    def answer_type(cls) -> type[A]:
        """What it is answered with."""
        for base in cls.__mro__:
            arguments = getattr(base, "__pydantic_generic_metadata__", {}).get("args", ())
            if arguments:
                found: type[A] = arguments[0]
                return found
        message = f"{cls.__name__} does not say what it is answered with; write class {cls.__name__}(Question[...])"
        raise TypeError(message)


class _Asked(Protocol[Q_co, A_co]):
    """A question's class, as `ask` takes it."""

    def __call__(self, *args: Any, **fields: Any) -> Q_co: ...

    def answer_type(self) -> type[A_co]: ...


def ask(question: _Asked[Q, A], *, otherwise: A | None = None) -> Step[Q, A]:
    """A step that another run answers, at a definite place of the log: `@runs(ask(HistoryAsked))`.

    `otherwise` is the answer where no run stands under the question's key, or one that is over; without it these are
    failures, `NoRun` and `RunFinished`.
    """
    kind: Any = question

    async def answer(_: Any) -> Any:
        message = f"{kind.__name__} is answered by a run, not by a function; fake it, or run both workflows"
        raise RuntimeError(message)

    return Step(
        f"ask {kind.__name__}",
        answer,
        Retry(attempts=1),
        timedelta(days=1),
        None,
        takes=kind,
        gives=kind.answer_type(),
        question=kind,
        otherwise=otherwise,
    )


class BudgetSpent(Event):
    """Delivered to a state that handles it when a call cannot be paid for; its work is not run then."""

    budget: str
    """`run`, or the account's name."""
    step: str
    reason: str


class Raise(BaseModel):
    """What a person answers who is asked about a spent budget: how much more, 0 or less for no."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    eur: Decimal = Decimal(0)
    tokens: int = 0


class StepFailed(BaseModel):
    """The failure that is left when a call has been given up: `error` is the last attempt's message."""

    model_config = ConfigDict(frozen=True)

    step: str
    error: str
    type: str = ""
    """The exception's class name, or `Timeout`, `InvalidResult`, `Cancelled`."""
    attempts: int = 1


@dataclass(frozen=True)
class Answer(Generic[A]):
    """An answer to a run that asked, given later than at once: `Answer(context.asker, ...)`."""

    asker: Asker
    answer: A


@dataclass(frozen=True)
class Publish:
    """An event to hand out: to the outbox, and to the application's workflows that handle it."""

    event: Event
    key: str


def publish(event: Event, *, key: str = "") -> Publish:
    """Publish `event`; `key` for events whose class names no `key=`. The default is the run's own key."""
    return Publish(event, key)


class Searchable:
    """`Annotated[str, Searchable]` on a field of a state, or of a model in it, puts it into the run view."""


class Moment(Generic[W]):
    """A timer from data: the method under `@at` says when, `.due` says what then."""

    def __init__(self, when: Callable[..., datetime | None]) -> None:
        self.when = when
        self.on_due: Callable[..., Any] | None = None

    @overload
    def due(self, handler: Callable[[W], R], /) -> Callable[[W], R]: ...
    @overload
    def due(self, handler: Callable[[W, Context], R], /) -> Callable[[W, Context], R]: ...
    def due(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        self.on_due = handler
        return handler


class Work(Generic[W, *Outs]):
    """The steps that a state runs when it is entered, all at once."""

    def __init__(self, steps: tuple[Step[Any, Any], ...], inputs: Callable[..., Any], limit: int = 0) -> None:
        self.steps, self.inputs, self.limit = steps, inputs, limit
        self.on_done: Callable[..., Any] | None = None
        self.on_failed: Callable[..., Any] | None = None

    @property
    def each(self) -> bool:
        """Whether it is one step over many inputs."""
        return self.limit > 0

    @overload
    def done(self, handler: Callable[[W, Unpack[Outs]], R], /) -> Callable[[W, Unpack[Outs]], R]: ...
    @overload
    def done(self, handler: Callable[[W, Unpack[Outs], Context], R], /) -> Callable[[W, Unpack[Outs], Context], R]: ...
    def done(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        """Takes the results, in the order of the steps (or of the inputs)."""
        self.on_done = handler
        return handler

    @overload
    def failed(self, handler: Callable[[W, StepFailed], R], /) -> Callable[[W, StepFailed], R]: ...
    @overload
    def failed(self, handler: Callable[[W, StepFailed, Context], R], /) -> Callable[[W, StepFailed, Context], R]: ...
    def failed(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        """Takes the first failure, after its retries."""
        self.on_failed = handler
        return handler


class State(BaseModel):
    """A state is a type: its fields are what is known there, its methods what can happen there.

    `class HumanReview(State, asks="claims-reviewers")` puts the run on an inbox: the events that the state handles are
    the answers to choose from. `class Remembering(State, endless=True)` may wait for ever: the run is an entity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(Work, Moment))

    __asks__: ClassVar[str] = ""
    __endless__: ClassVar[bool] = False

    later: ClassVar[tuple[type[Event], ...]] = ()
    """Events that come too early here: kept for the first state that handles them."""
    ignores: ClassVar[tuple[type[Event], ...]] = ()
    """Events that are ignored here on purpose."""

    def __init_subclass__(cls, *, asks: str | None = None, endless: bool | None = None, **kwargs: Any) -> None:
        if asks is not None:
            cls.__asks__ = asks
        if endless is not None:
            cls.__endless__ = endless
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, asks: str | None = None, endless: bool | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)


class Final(State):
    """A state in which the run is over."""


Part = State | Call[Any] | Publish | Answer[Any]
R = TypeVar("R", bound="Part | tuple[Part, ...]")
S = TypeVar("S", bound=State)
E = TypeVar("E", bound=Event)
C = TypeVar("C", bound="Call[Any] | Publish | tuple[Call[Any] | Publish, ...]")
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Mark:
    """What a decorator says of a method."""

    kind: str
    delay: timedelta | None = None


def _mark(handler: Any, mark: Mark) -> Any:
    handler.__mark__ = mark
    return handler


@overload
def on(handler: Callable[[S, E], R], /) -> Callable[[S, E], R]: ...
@overload
def on(handler: Callable[[S, E, Context], R], /) -> Callable[[S, E, Context], R]: ...
def on(handler: Callable[..., Any], /) -> Callable[..., Any]:
    """The method handles the event that its parameter is annotated with."""
    return _mark(handler, Mark("on"))  # type: ignore[no-any-return]  # the function itself


@overload
def answers(handler: Callable[[S, E], B], /) -> Callable[[S, E], B]: ...
@overload
def answers(handler: Callable[[S, E, Context], B], /) -> Callable[[S, E, Context], B]: ...
def answers(handler: Callable[..., Any], /) -> Callable[..., Any]:
    """The method answers the `Question` that its parameter is annotated with; the run stays as it is."""
    return _mark(handler, Mark("answers"))  # type: ignore[no-any-return]  # the function itself


@overload
def enter(handler: Callable[[S], C], /) -> Callable[[S], C]: ...
@overload
def enter(handler: Callable[[S, Context], C], /) -> Callable[[S, Context], C]: ...
def enter(handler: Callable[..., Any], /) -> Callable[..., Any]:
    """The method's call or event goes out whenever the state (or the superstate) is entered."""
    return _mark(handler, Mark("enter"))  # type: ignore[no-any-return]  # the function itself


class _Timed(Protocol):
    @overload
    def __call__(self, handler: Callable[[S], R], /) -> Callable[[S], R]: ...
    @overload
    def __call__(self, handler: Callable[[S, Context], R], /) -> Callable[[S, Context], R]: ...


def _timed(kind: str, delay: timedelta) -> _Timed:
    def mark(handler: Callable[..., Any], /) -> Callable[..., Any]:
        return _mark(handler, Mark(kind, delay))  # type: ignore[no-any-return]  # the function itself

    return mark


def after(*, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> _Timed:
    """Once, so long after the state (or the superstate that defines it) was entered."""
    return _timed("after", timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))


def every(*, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> _Timed:
    """Again and again, counted from when the state (or the superstate that defines it) was entered."""
    return _timed("every", timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))


@overload
def at(when: Callable[[S], datetime | None], /) -> Moment[S]: ...
@overload
def at(when: Callable[[S, Context], datetime | None], /) -> Moment[S]: ...
def at(when: Callable[..., datetime | None], /) -> Moment[Any]:
    """At the datetime (with a time zone) that the method returns; None: never. Asked again when the data change.

    `@NAME.due` under it marks the method that says what happens then.
    """
    return Moment(when)


class _Inputs(Protocol[Inputs_contra, *Outs]):
    """Takes the method that makes the inputs, with or without a `Context`."""

    @overload
    def __call__(self, inputs: Callable[[S], Inputs_contra], /) -> Work[S, *Outs]: ...
    @overload
    def __call__(self, inputs: Callable[[S, Context], Inputs_contra], /) -> Work[S, *Outs]: ...


@overload
def runs(a: Step[I1, O1], /) -> _Inputs[I1, O1]: ...
@overload
def runs(a: Step[I1, O1], b: Step[I2, O2], /) -> _Inputs[tuple[I1, I2], O1, O2]: ...
@overload
def runs(a: Step[I1, O1], b: Step[I2, O2], c: Step[I3, O3], /) -> _Inputs[tuple[I1, I2, I3], O1, O2, O3]: ...
@overload
def runs(
    a: Step[I1, O1], b: Step[I2, O2], c: Step[I3, O3], d: Step[I4, O4], /
) -> _Inputs[tuple[I1, I2, I3, I4], O1, O2, O3, O4]: ...
@overload
def runs(
    a: Step[I1, O1], b: Step[I2, O2], c: Step[I3, O3], d: Step[I4, O4], e: Step[I5, O5], /
) -> _Inputs[tuple[I1, I2, I3, I4, I5], O1, O2, O3, O4, O5]: ...
def runs(*steps: Step[Any, Any]) -> Any:
    """Run one to five steps at once when the state is entered; the method under it makes their inputs."""

    def mark(inputs: Callable[..., Any]) -> Any:
        return Work(steps, inputs)

    return mark


def runs_each(step: Step[I, O], *, limit: int = 10) -> _Inputs[Sequence[I], tuple[O, ...]]:
    """Run one step for each input that the method gives, `limit` of them at a time."""
    if limit < 1:
        message = f"runs_each({step.name}, limit={limit}): at least one must run at a time"
        raise ValueError(message)

    def mark(inputs: Callable[..., Any]) -> Any:
        return Work((step,), inputs, limit)

    return mark
