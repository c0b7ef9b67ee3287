"""One attempt of a step, and what its `StepContext` has behind it: what `once` keeps, who is asked, how far it is.

A kept result goes to the log before the step sees it, and the fold puts it beside the run. The next attempt of the call
is handed what is kept, so it walks in no time to where the last one ended. Results of one attempt may be made at the
same time (an agent's tools); they are numbered in the order in which they are appended, as the fold counts them.

A question to a person ends the attempt, once nothing else of it runs: nothing waits in memory while people think.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import typing
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw
from pydantic import BaseModel, TypeAdapter, ValidationError

from engine.core.entry import AskedEntry, FailureEntry, KeptEntry, Kind, ResultEntry, Used
from engine.core.ids import CallId, RunId
from engine.core.reaction import StartCall
from engine.core.steps import A, Answered, Step, StepContext, StepHalts
from engine.core.trace import parse_traceparent, span_id, traceparent
from engine.flink.inside import NOTHING, Around, spans_of
from engine.limits.passes import Pass

T = TypeVar("T")

MAX_RESULT = 1 << 20
MAX_WORDS = 500
TELL_SECONDS = 1.0
"""Between two words on how far a call is."""

AttemptId = tuple[RunId, CallId, int]
Said = ResultEntry | FailureEntry | KeptEntry | AskedEntry
_NOTHING: Mapping[str, Raw] = {}
_inside: ContextVar[tuple[str, ...]] = ContextVar("once")
"""The names of `once` that the running code stands in."""
_unsure: ContextVar[bool] = ContextVar("again", default=False)
"""Whether an earlier attempt may have begun what runs."""


class InvalidResult(ValueError):
    """A step answered with what its annotation does not allow, or with too much."""


class NameTaken(StepHalts):
    """A name was given to `once` or `ask` a second time: which result belongs to which could not be told."""


class UnreadableResult(StepHalts):
    """What an earlier attempt kept does not fit the type that it is read as now."""


class Suspended(BaseException):
    """The attempt ends here, and no failure: a person was asked. Not an `Exception`, so that steps let it through."""


def wall_ms() -> int:
    """This machine's time, milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Request(NamedTuple):
    """A call of a run."""

    workflow: str
    key: str
    call: StartCall
    kept: Mapping[str, Raw] = _NOTHING
    """What the call has kept, by name."""
    again: bool = False
    """An engine that is gone may have begun this attempt."""

    @property
    def attempt(self) -> AttemptId:
        """What names this attempt among all."""
        call = self.call
        return call.run, call.id, call.attempt

    @property
    def name(self) -> tuple[RunId, CallId]:
        """What names the call."""
        return self.call.run, self.call.id


@dataclass(slots=True, eq=False)
class Flight:
    """An attempt that runs."""

    request: Request
    step: Step[Any, Any]
    task: asyncio.Task[None]
    deadline: float
    """On the loop's clock."""
    reason: str = ""
    """Why its task is being cancelled: `timeout`, `cancel` or `asks`."""
    gone: bool = False
    """It is over for the fold, though its code may not have ended: what it still answers counts no more."""
    runner: Attempt | None = None
    thread: Future[Any] | None = None
    """Where it runs, if its step blocks."""
    passes: dict[str, Pass] | None = None
    """By which it was let in; None: it had not to pass anything."""
    around: Around = NOTHING
    """What looks at it from outside."""
    clock: Callable[[], int] = wall_ms
    """What its parts are timed by."""
    started: int = field(default_factory=wall_ms)
    """When it began, wall ms."""
    began: float = field(default_factory=time.perf_counter)
    """The same on the performance counter."""

    @property
    def took(self) -> int:
        """Microseconds since it began."""
        return int((time.perf_counter() - self.began) * 1_000_000)


class Loop(Protocol):
    """What an attempt asks of the loop that runs it (`engine.flink.calls.Calls`)."""

    def say(self, request: Request, entry: Said) -> None:
        """Append; nobody waits for it."""

    def keep(self, request: Request, entry: KeptEntry) -> Awaitable[None]:
        """Append, and wait until it is acknowledged."""

    def suspend(self, flight: Flight, entry: AskedEntry) -> None:
        """Append, and have the attempt end without a word."""

    def passing(self, flight: Flight, gate: str, tokens: int) -> AbstractAsyncContextManager[Pass]:
        """Wait until a further call may pass a gate."""


class Attempt:
    """`engine.core.steps.Runner` of one attempt. Lives on the steps' loop."""

    def __init__(self, loop: Loop, flight: Flight, resources: Mapping[str, Any]) -> None:
        request = flight.request
        call = request.call
        self.failures = call.failures
        self._loop, self._flight, self._request = loop, flight, request
        self._seconds = flight.step.timeout.total_seconds()
        self._clock = asyncio.get_running_loop()
        self._index, self._again = call.kept, request.again
        self._names: set[str] = set()
        self._running: dict[str, None] = {}
        self._ended = asyncio.Event()
        self._blamed: list[tuple[BaseException, str]] = []
        self._note: str | None = None
        self._told = -TELL_SECONDS
        self._telling: asyncio.TimerHandle | None = None
        self._stopped, self._left = 0, 0.0
        deadline = _in(flight.deadline - self._clock.time())
        self.context = StepContext(f"{call.run}.{call.id}", call.attempt, deadline, resources, self, self._place)

    @property
    def again(self) -> bool:
        """See `engine.core.steps.Runner.again`."""
        return _unsure.get()

    # -- once ----------------------------------------------------------------------------------------------------

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: object,
        *,
        kind: str = "once",
        used: Callable[[T], Used | None] | None = None,
    ) -> T:
        """See `StepContext.once`.

        Args:
            name: its own within the call.
            work: what to run.
            gives: the type to read the result back as; None: what `work` says it returns.
            kind: how it is shown.
            used: what the result says that a model took.

        Raises:
            NameTaken: the name was used in this attempt.
            UnreadableResult: what is kept under it is of another type.
            InvalidResult: the result cannot be written as that type, or is too large.
        """
        self._take(name)
        adapter: TypeAdapter[T] = _adapter(_returned(work) if gives is None else gives)
        raw = self._request.kept.get(name)
        if raw is not None:
            return self._read(name, adapter, raw)
        return await self._run(name, work, adapter, cast("Kind", kind), used)

    async def _run(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        adapter: TypeAdapter[T],
        kind: Kind,
        used: Callable[[T], Used | None] | None,
    ) -> T:
        again, self._again = self._again, False
        self._running[name] = None
        token = _inside.set((*_inside.get(()), name))
        unsure = _unsure.set(again)
        began, started = time.perf_counter(), self._flight.clock()
        try:
            with self._flight.around.part(self._trace(name), model=kind == "model") as around:
                value = await work()
                value, output = _kept_form(name, adapter, value)
                self._check_alive()
                took = int((time.perf_counter() - began) * 1_000_000)
                paid = None if used is None else used(value)
                more = {"used": paid, "again": again, "started": started, "took": took, "spans": spans_of(around)}
            entry = self._entry(name, Raw(output), kind, **more)
            self._index += 1
            await self._loop.keep(self._request, entry)
        except BaseException as error:
            self._blamed.append((error, name))
            raise
        finally:
            _unsure.reset(unsure)
            _inside.reset(token)
            del self._running[name]
            self._ended.set()
        self.failures = 0
        self._renew()
        return value

    def _read(self, name: str, adapter: TypeAdapter[T], raw: Raw) -> T:
        try:
            return adapter.validate_json(bytes(raw))
        except ValidationError as error:
            message = f"what {name!r} has kept does not fit its type any more, so the call cannot go on: {error}"
            raise UnreadableResult(message) from None

    def _entry(self, name: str, output: Raw, kind: Kind, **more: Any) -> KeptEntry:  # noqa: ANN401 - as KeptEntry takes them
        request = self._request
        call = request.call
        return KeptEntry(
            request.workflow, request.key, call.run, call.id, call.attempt, self._index, name, output, kind, **more
        )

    def _take(self, name: str) -> None:
        self._check_alive()
        if not name or name in self._names:
            message = f"once or ask with the name {name!r}: it was used before in this call; give each its own"
            raise NameTaken(message if name else "once or ask with an empty name; give each its own")
        self._names.add(name)

    def _check_alive(self) -> None:
        if self._flight.gone:
            raise Suspended

    # -- time ----------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """The step's time limit counts anew."""
        if self._stopped:
            self._left = self._seconds
        else:
            self._flight.deadline = self._clock.time() + self._seconds
        object.__setattr__(self.context, "deadline", _in(self._seconds))  # the one field that time changes

    @asynccontextmanager
    async def passing(self, gate: str, *, tokens: int = 0) -> AsyncIterator[Pass]:
        """Hold a pass of a gate: the one with which the attempt was let in, else wait for one. Waiting costs no time.

        The first one may be too old, since the attempt did something else before, and knew nothing of the tokens: then
        it is given back, and counts for nothing.

        Raises:
            NeverFits: so many tokens are above the gate's limit by themselves.
        """
        held = (self._flight.passes or {}).pop(gate, None)
        if held is not None and held.serves(tokens):
            try:
                yield held
            finally:
                held.end()
            return
        if held is not None:
            held.give_back()
        self._stop_clock()
        waiting = True
        try:
            async with self._loop.passing(self._flight, gate, tokens) as passed:
                self._start_clock()
                waiting = False
                yield passed
        finally:
            if waiting:
                self._start_clock()

    def _stop_clock(self) -> None:
        if not self._stopped:
            self._left = self._flight.deadline - self._clock.time()
            self._flight.deadline = float("inf")
        self._stopped += 1

    def _start_clock(self) -> None:
        self._stopped -= 1
        if not self._stopped:
            self._flight.deadline = self._clock.time() + self._left
            object.__setattr__(self.context, "deadline", _in(self._left))

    # -- people --------------------------------------------------------------------------------------------------

    async def ask(self, group: str, question: str, gives: type[A], name: str) -> Answered[A]:
        """See `StepContext.ask`.

        Raises:
            NameTaken: the name was used in this attempt.
            UnreadableResult: the answer is of another type than what is asked for now.
            Suspended: nobody has answered yet; it is to be let through.
        """
        self._take(name)
        adapter: TypeAdapter[A] = _adapter(gives)
        raw = self._request.kept.get(name)
        if raw is not None:
            answer = msgspec.json.decode(raw, type=_Answer)
            return Answered(answer.who, self._read(name, adapter, answer.answer))
        outside = set(_inside.get(()))
        while self._running.keys() - outside:  # what has begun is to be kept, not to be done twice
            self._ended.clear()
            await self._ended.wait()
            self._check_alive()
        request, call = self._request, self._request.call
        schema = Raw(msgspec.json.encode(adapter.json_schema()))
        words = _clean(question, 10 * MAX_WORDS)
        flight = self._flight
        entry = AskedEntry(
            request.workflow,
            request.key,
            call.run,
            call.id,
            call.attempt,
            name,
            group,
            words,
            schema,
            started=flight.started,
            took=flight.took,
            spans=spans_of(flight.around),
        )
        self._loop.suspend(flight, entry)
        raise Suspended

    # -- the trace -----------------------------------------------------------------------------------------------

    def _place(self) -> dict[str, str]:
        """Where the running code is in the trace, as headers."""
        call = self._request.call
        if not call.trace:
            return {}
        inside = _inside.get(())
        found = {
            "traceparent": self._trace(inside[-1]) if inside else call.trace,
            "tracestate": call.tracestate,
            "baggage": call.baggage,
        }
        return {name: value for name, value in found.items() if value}

    def _trace(self, name: str) -> str:
        """The `traceparent` of a part."""
        call = self._request.call
        found = parse_traceparent(call.trace)
        return traceparent(found[0], span_id("kept", call.run, call.id, name)) if found else ""

    # -- progress ------------------------------------------------------------------------------------------------

    def progress(self, note: str) -> None:
        """See `StepContext.progress`; a step in a thread calls it too."""
        note = _clean(str(note), MAX_WORDS)
        try:
            running: object = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._clock:
            self._noted(note)
        else:
            self._clock.call_soon_threadsafe(self._noted, note)

    def _noted(self, note: str) -> None:
        self._note = note
        if self._telling is None:
            wait = self._told + TELL_SECONDS - self._clock.time()
            if wait > 0:
                self._telling = self._clock.call_later(wait, self._tell)
            else:
                self._tell()

    def _tell(self) -> None:
        self._telling = None
        if self._note is None or self._flight.gone:
            return
        flight = self._flight
        started, took = flight.started, flight.took
        entry = self._entry("", Raw(b"null"), "progress", note=self._note, started=started, took=took)
        self._note, self._told = None, self._clock.time()
        self._loop.say(self._request, entry)

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Before the last word on the attempt: the last one on how far it is."""
        if self._telling is not None:
            self._telling.cancel()
        self._tell()

    def blame(self, error: BaseException | None) -> str:
        """The name of the `once` that failed with this error; empty: it was none."""
        if error is None:
            return next(iter(self._running), "")
        seen: list[BaseException] = []
        while error is not None and error not in seen:
            for known, name in self._blamed:
                if known is error:
                    return name
            seen.append(error)
            error = error.__cause__ or error.__context__
        return ""


class _Answer(msgspec.Struct):
    who: str
    answer: Raw


def written(step: Step[Any, Any], value: object) -> bytes:
    """A result as it goes to the log; read back where nobody has checked it when it was made.

    Raises:
        InvalidResult: it is too large, or not what the step's annotation says.
    """
    output = step.write_output(value)
    if len(output) > MAX_RESULT:
        raise InvalidResult(
            f"the result has {len(output)} bytes, the limit is {MAX_RESULT}; store it elsewhere and hand on where it is"
        )
    if not isinstance(value, BaseModel):
        try:
            step.read_output(output)
        except ValidationError as error:
            raise InvalidResult(f"{step.name} answered what its annotation does not allow: {error}") from None
    return output


def _kept_form(name: str, adapter: TypeAdapter[T], value: T) -> tuple[T, bytes]:
    """A result as every attempt sees it, and its JSON."""
    typed = isinstance(value, BaseModel)
    if typed and adapter is _adapter(Any):
        raise InvalidResult(
            f"{name!r} keeps a {type(value).__name__}, and nothing says so to a later attempt: give it "
            f"gives={type(value).__name__}, or a function that says what it returns"
        )
    output = adapter.dump_json(value, warnings="error")
    if len(output) > MAX_RESULT:
        raise InvalidResult(
            f"the result of {name!r} has {len(output)} bytes, the limit is {MAX_RESULT}; keep where it is stored"
        )
    if typed:
        return value, output
    try:
        return adapter.validate_json(output), output
    except ValidationError as error:
        raise InvalidResult(f"the result of {name!r} is not what its type allows: {error}") from None


@lru_cache(maxsize=1024)
def _known_adapter(gives: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - any annotation
    return TypeAdapter(gives)


def _adapter(gives: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - any annotation
    try:
        return _known_adapter(gives)
    except TypeError:  # it cannot be hashed
        return TypeAdapter(gives)


def _returned(work: Callable[[], Awaitable[Any]]) -> object:
    """What a function says that awaiting it gives; anything, where it does not say."""
    function: Any = work
    while isinstance(function, partial):
        function = function.func
    try:
        gives: object = typing.get_type_hints(function).get("return", Any)
    except (AttributeError, NameError, TypeError):
        return Any
    if inspect.iscoroutinefunction(function):
        return gives
    origin, arguments = typing.get_origin(gives), typing.get_args(gives)
    awaits = isinstance(origin, type) and issubclass(origin, Awaitable)
    return arguments[-1] if awaits and arguments else Any


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _clean(words: str, most: int) -> str:
    return words[:most].encode(errors="backslashreplace").decode()
