"""Steps: the only code of a workflow that touches the world. Here is what one is; who runs it is not known here."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import SchemaSerializer

from engine.core.entry import Used

BUDGET = "budget"
"""The name under which the engine asks people about a spent budget."""

A = TypeVar("A")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - input
O = TypeVar("O")  # noqa: E741 - output


@dataclass(frozen=True)
class Limit:
    """What all workers of an engine together keep to; None: no bound."""

    calls: int | None = None
    """At once."""
    requests: int | None = None
    """A minute."""
    tokens: int | None = None
    """A minute."""

    def __post_init__(self) -> None:
        if any(bound is not None and bound < 1 for bound in (self.calls, self.requests, self.tokens)):
            message = f"{self}: a bound is 1 or more; leave out what is not limited"
            raise ValueError(message)


@dataclass(frozen=True)
class Spends:
    """What a call may use at most; None: no bound."""

    tokens: int | None = None
    cost: int | None = None
    """Millionths of a euro."""


@dataclass(frozen=True)
class Retry:
    """How often, and after which waits, a failed attempt is made again.

    Waits grow by `factor` from `first_wait` to `longest_wait`. They are durable timers; on a lapsed log they are
    stretched, so that the other side has real time to recover. Errors of a class in `never` are not tried again.
    """

    attempts: int = 5
    first_wait: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    longest_wait: timedelta = timedelta(minutes=5)
    never: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.factor <= 0 or min(self.first_wait, self.longest_wait) < timedelta():
            message = f"{self}: there must be at least one attempt, a factor above 0, and no wait below 0"
            raise ValueError(message)

    def wait(self, attempt: int) -> int:
        """Milliseconds between the failure of `attempt` (counted from 1) and the next one."""
        first, longest = self.first_wait / timedelta(milliseconds=1), self.longest_wait / timedelta(milliseconds=1)
        try:
            return int(min(longest, first * self.factor ** min(attempt - 1, 64)))
        except OverflowError:
            return int(longest)


class TryAgain(Exception):
    """A failed attempt that says when the next one may be made, such as a provider's `Retry-After`.

    With `outage` the other side is down: the attempt does not count against `Retry.attempts`, waits grow to
    `Retry.longest_wait`, and only the step's `total` or a timer of the state ends them.
    """

    def __init__(self, message: str, *, after: timedelta | None = None, outage: bool = False) -> None:
        self.after, self.outage = after, outage
        super().__init__(message)


class NeverAgain(Exception):
    """A failure for good, whatever is left of the retry: it goes to `.failed`. Subclass it to give it a name."""


class StepHalts(Exception):
    """An operator's matter (a bad key, a model that is not there): the run halts with these words until `resume`."""


class Leave(BaseModel):
    """What a person says who is asked for leave."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    granted: bool
    note: str = ""


@dataclass(frozen=True)
class Answered(Generic[A]):
    """A person's answer to a step."""

    who: str
    answer: A


class Runner(typing.Protocol):
    """What stands behind a `StepContext` while the engine runs an attempt."""

    failures: int
    """Failed attempts since the last result that was kept."""

    @property
    def again(self) -> bool:
        """Whether an attempt that is gone may have begun what `once` runs now."""
        ...

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: Any,
        *,
        kind: str = "once",
        used: Callable[[T], Used | None] | None = None,
    ) -> T: ...

    def progress(self, note: str) -> None: ...

    async def ask(self, group: str, question: str, gives: type[A], name: str) -> Answered[A]: ...


@dataclass(frozen=True)
class StepContext:
    """An optional last parameter of a step: its side of the world."""

    idempotency_key: str
    """The call's id, the same for every attempt: send it to whoever can drop repeats."""
    attempt: int
    """Counted from 1."""
    deadline: datetime
    """Wall time at which this attempt is given up; counted anew from every result that `once` keeps."""
    resources: typing.Mapping[str, Any] = field(default_factory=dict)
    """What the application's async context managers made, once per worker, by name."""
    runner: Runner | None = None
    """The engine's side; None where a test calls the step by itself."""
    place: Callable[[], dict[str, str]] = dict
    """Where the running code is in the trace."""

    @property
    def traceparent(self) -> str:
        """W3C `traceparent` of this attempt or, within `once`, of that part; empty where nobody traces."""
        return self.place().get("traceparent", "")

    def headers(self) -> dict[str, str]:
        """The headers `traceparent`, `tracestate` and `baggage`, for a client that no instrumentation adds them to.

        What the other side traces then stands below this attempt or, within `once`, below that part.
        """
        return self.place()

    async def once(self, name: str, work: Callable[[], Awaitable[T]], *, gives: Any = None) -> T:
        """Run `work` and keep its result on the log: a later attempt of this call gets it back and runs nothing.

        `name` is its own within the call, the same in every attempt. What `work` raises is not kept. `gives` is the
        type that the result is read back as; the default is what `work` says it returns, else plain JSON.
        """
        if self.runner is None:
            return await work()
        return await self.runner.once(name, work, gives)

    def progress(self, note: str) -> None:
        """Say how far it is: `show` tells the last word, at most one a second is recorded."""
        if self.runner is not None:
            self.runner.progress(note)

    async def ask(self, group: str, question: str, gives: type[A], *, name: str = "ask") -> Answered[A]:
        """Ask the people of an inbox. The attempt ends and nothing runs, for days if need be; then the call goes on.

        Raises:
            ValueError: the name is the engine's own, under which it asks about budgets.
            RuntimeError: nobody runs this step but a test; hand the answer in by a fake.
        """
        if name == BUDGET:
            message = f"ask(name={name!r}): the engine asks about budgets under that name; take another"
            raise ValueError(message)
        if self.runner is None:
            message = f"a person of {group!r} is asked outside an engine; fake the step, or run it in a Simulation"
            raise RuntimeError(message)
        return await self.runner.ask(group, question, gives, name)


@dataclass(frozen=True)
class Call(Generic[O]):
    """A step to run with an input: a value, nothing has run yet."""

    step: Step[Any, O]
    input: object


@dataclass(frozen=True)
class Step(Generic[I, O]):
    """An async function with a name, a retry and time limits: await it in a test, hand out `call(...)` in a handler."""

    name: str
    function: Callable[..., Awaitable[O]]
    retry: Retry
    timeout: timedelta
    """Per attempt, wall time."""
    total: timedelta | None
    """For the call with all its attempts and waits; none: as long as the retry lasts."""
    reconcile: Callable[[I], Awaitable[O | None]] | None = None
    """Asked before a call is tried again whose first try may have happened; an answer other than None is the result."""
    limit: Limit | None = None
    """What all workers together keep to."""
    takes: Any = None
    """The input's type, where the function does not say it."""
    gives: Any = None
    spends: Spends | None = None
    """What a call may use at most, reserved from the budgets."""
    model: str = ""
    """The model that it asks, as the application names it."""
    question: Any = None
    """The event class that another run answers; there is no function to run then."""
    otherwise: Any = None
    """With `question`: the answer where no run stands under its key."""

    def call(self, input: I, /) -> Call[O]:
        return Call(self, input)

    async def __call__(self, input: I, /, *context: StepContext) -> O:
        answer: Any = self.function(input, *context)
        return typing.cast("O", answer if self.blocking else await answer)

    @cached_property
    def takes_context(self) -> bool:
        return len(self._parameters) > 1

    @cached_property
    def blocking(self) -> bool:
        """Whether it is a plain `def`, which runs in a thread."""
        return not inspect.iscoroutinefunction(self.function)

    @cached_property
    def _parameters(self) -> list[Any]:
        hints = typing.get_type_hints(self.function)
        return [hints.get(name, Any) for name in inspect.signature(self.function).parameters]

    @cached_property
    def _takes(self) -> Any:
        return self._parameters[0] if self.takes is None else self.takes

    @cached_property
    def input_type(self) -> TypeAdapter[I]:
        return TypeAdapter(self._takes)

    @cached_property
    def _returns(self) -> Any:
        return typing.get_type_hints(self.function).get("return", Any) if self.gives is None else self.gives

    @cached_property
    def annotations(self) -> tuple[Any, Any]:
        """The types of input and output with all that `Annotated` says of them."""
        hints = typing.get_type_hints(self.function, include_extras=True)
        first = next(iter(inspect.signature(self.function).parameters), "")
        takes = hints.get(first, Any) if self.takes is None else self.takes
        return takes, hints.get("return", Any) if self.gives is None else self.gives

    @cached_property
    def output_type(self) -> TypeAdapter[O]:
        return TypeAdapter(self._returns)

    @cached_property
    def write_input(self) -> Callable[[Any], bytes]:
        """JSON of an input; raises for one that is not of the input's type."""
        return _writer(self.input_type, self._takes)

    @cached_property
    def write_output(self) -> Callable[[Any], bytes]:
        """JSON of an output; raises for one that is not of the output's type."""
        return _writer(self.output_type, self._returns)

    @cached_property
    def read_input(self) -> Callable[[bytes], I]:
        read: Callable[[bytes], I] = self.input_type.validator.validate_json
        return read

    @cached_property
    def read_output(self) -> Callable[[bytes], O]:
        read: Callable[[bytes], O] = self.output_type.validator.validate_json
        return read

    def __hash__(self) -> int:
        return hash(self.name)


def _writer(adapter: TypeAdapter[Any], annotation: object) -> Callable[[Any], bytes]:
    return careful_writer(adapter.serializer, adapter.validator.validate_json, annotation)


def careful_writer(
    serializer: SchemaSerializer, read: Callable[[bytes], object], annotation: object
) -> Callable[[Any], bytes]:
    """Writes JSON that can be read again, or raises ValueError.

    JSON has no NaN and no infinity: pydantic writes null for them. So what may hold a float is read back.
    """
    to_json = serializer.to_json
    if not has_floats(annotation):
        return lambda value: to_json(value, warnings="error")

    def write(value: object) -> bytes:
        raw = to_json(value, warnings="error")
        read(raw)
        return raw

    return write


def has_floats(annotation: object, above: tuple[object, ...] = ()) -> bool:
    """Whether a value of this type may hold a float."""
    if annotation in (float, complex, Any, object):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = [f.annotation for f in annotation.model_fields.values()] if annotation not in above else []
        above = (*above, annotation)
    else:
        inner = [*typing.get_args(annotation), getattr(annotation, "__supertype__", None)]
    return any(has_floats(a, above) for a in inner if a is not None)


_RETRY = Retry()
_TIMEOUT = timedelta(seconds=30)


class _Decorator(typing.Protocol):
    @overload
    def __call__(self, function: Callable[[I], Awaitable[O]], /) -> Step[I, O]: ...
    @overload
    def __call__(self, function: Callable[[I, StepContext], Awaitable[O]], /) -> Step[I, O]: ...


class _Blocking(typing.Protocol):
    @overload
    def __call__(self, function: Callable[[I], O], /) -> Step[I, O]: ...
    @overload
    def __call__(self, function: Callable[[I, StepContext], O], /) -> Step[I, O]: ...


@overload
def step(
    *,
    name: str | None = None,
    retry: Retry = _RETRY,
    timeout: timedelta = _TIMEOUT,
    total: timedelta | None = None,
    reconcile: Callable[[Any], Awaitable[Any]] | None = None,
    limit: Limit | None = None,
) -> _Decorator: ...
@overload
def step(
    *,
    blocking: Literal[True],
    name: str | None = None,
    retry: Retry = _RETRY,
    timeout: timedelta = _TIMEOUT,
    total: timedelta | None = None,
    reconcile: Callable[[Any], Awaitable[Any]] | None = None,
    limit: Limit | None = None,
) -> _Blocking: ...
def step(
    *,
    blocking: bool = False,
    name: str | None = None,
    retry: Retry = _RETRY,
    timeout: timedelta = _TIMEOUT,
    total: timedelta | None = None,
    reconcile: Callable[[Any], Awaitable[Any]] | None = None,
    limit: Limit | None = None,
) -> Any:
    """Make a step of an async function of one input (and, if it wants one, a `StepContext`).

    The step's name is the function's: it is stored, so renaming the function renames the step. With `blocking=True` it
    is a plain `def`, which runs in one of a bounded number of threads and is not stopped at its timeout, only given up.
    `limit` holds across all workers.
    """

    def mark(function: Callable[..., Any], /) -> Step[Any, Any]:
        if not blocking and not inspect.iscoroutinefunction(function):
            message = (
                f"step {function!r} is not async; write `async def`, since a step may wait, or @step(blocking=True) "
                "to have it run in a thread"
            )
            raise TypeError(message)
        if blocking and inspect.iscoroutinefunction(function):
            message = f"step {function.__name__} is async and blocking=True; a thread is for a plain `def`"
            raise TypeError(message)
        if timeout <= timedelta() or (total is not None and total <= timedelta()):
            message = f"step {function.__name__}: timeout and total must be above 0"
            raise ValueError(message)
        return Step(name or function.__name__, function, retry, timeout, total, reconcile, limit)

    return mark
