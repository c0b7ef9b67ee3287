"""An attempt of a step in memory: answered by a fake, or run as it is written with an engine's side behind it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Raw
from pydantic import TypeAdapter

from engine.core.entry import AskedEntry, Entry, FailureEntry, KeptEntry, Kind, ResultEntry, Used
from engine.core.steps import Answered, NeverAgain, Step, StepContext, StepHalts, TryAgain
from engine.core.transition import StartCall
from engine.testing.fakes import finished

if TYPE_CHECKING:
    from engine.testing.run import MemoryRun
    from engine.testing.world import World

A = TypeVar("A")
T = TypeVar("T")


class Crashed(BaseException):
    """The simulated engine died here. It passes through a step's `except Exception`, as a kill does."""


class Asking(BaseException):
    """The attempt ends, because a person is asked."""

    def __init__(self, entry: AskedEntry) -> None:
        self.entry = entry
        super().__init__(entry.question)


class Attempt:
    """One attempt of a call, and what stands behind its `StepContext`."""

    def __init__(self, world: World, run: MemoryRun, call: StartCall, *, again: bool) -> None:
        self.world, self.run, self.call = world, run, call
        self.failures = call.failures
        self._again = again
        self._before = again
        self._kept = dict(run.kept.get(call.id, {}))
        self._named: set[str] = set()
        self._inner = ""

    def outcome(self) -> Entry:
        """What the log gets of it.

        Raises:
            Crashed: the engine died in it.
            LookupError: the step is neither faked nor real.
        """
        step = self.run.workflow.steps[self.call.step]
        value = step.read_input(bytes(self.call.input))
        self.run.inputs.setdefault(step.name, []).append(value)
        answer = self._answerer(step)
        kind = ""
        try:
            found = answer(value)
            if inspect.isawaitable(found):
                found = finished(_wait(found))
            kind = "InvalidResult"
            output = Raw(step.write_output(found))
        except Asking as asking:
            return asking.entry
        except Exception as error:  # noqa: BLE001 - whatever a step raises is a failed attempt
            return self._failure(step, error, kind)
        return ResultEntry(*self._naming(), self.call.attempt, output)

    def _answerer(self, step: Step[Any, Any]) -> Callable[[Any], Any]:
        fakes = self.world.fakes
        if step.name in fakes.answers:
            return fakes.answers[step.name]
        if step.name in fakes.real or (step.model and step.model in fakes.models):
            return lambda value: self._really(step, value)
        raise LookupError(_not_faked(step))

    async def _really(self, step: Step[Any, Any], value: object) -> object:
        call = self.call
        if step.reconcile is not None and (self._before or call.attempt > 1):
            found = await step.reconcile(value)
            if found is not None:
                return found
        if not step.takes_context:
            return await step(value)
        fakes = self.world.fakes
        resources = {**fakes.resources(), **fakes.real.get(step.name, {})}
        key = f"{call.run}.{call.id}"
        return await step(value, StepContext(key, call.attempt, self.world.now + step.timeout, resources, self))

    def _failure(self, step: Step[Any, Any], error: Exception, kind: str) -> FailureEntry:
        after = error.after if isinstance(error, TryAgain) else None
        return FailureEntry(
            *self._naming(),
            self.call.attempt,
            kind or type(error).__name__,
            str(error),
            final=isinstance(error, (NeverAgain, *step.retry.never)),
            wait=int((after or timedelta()) / timedelta(milliseconds=1)),
            outage=isinstance(error, TryAgain) and error.outage,
            halts=isinstance(error, StepHalts),
            inner=self._inner,
        )

    def _naming(self) -> tuple[str, str, Any, Any]:
        return self.run.workflow.name, self.run.key, self.call.run, self.call.id

    # -- the engine's side of a StepContext ------------------------------------------------------------------------

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: Any,  # noqa: ANN401 - a type, or a form of one
        *,
        kind: str = "once",
        used: Callable[[T], Used | None] | None = None,
    ) -> T:
        """The result that is kept under `name`, of `work` where there is none yet; as read back from its JSON."""
        if name in self._named:
            message = (
                f"once({name!r}) twice in one attempt; the name is what its result is found by, so give each its own"
            )
            raise ValueError(message)
        self._named.add(name)
        adapter: TypeAdapter[T] = TypeAdapter(_type_of(work) if gives is None else gives)
        if name not in self._kept:
            again, self._again = self._again, False
            self._inner = name
            value = await work()
            self._keep(name, Raw(adapter.dump_json(value, warnings="error")), kind, used and used(value), again=again)
            self._inner = ""
        return adapter.validate_json(bytes(self._kept[name]))

    def _keep(self, name: str, output: Raw, kind: str, used: Used | None, *, again: bool) -> None:
        entry = KeptEntry(
            *self._naming(),
            self.call.attempt,
            len(self._kept),
            name,
            output,
            typing.cast("Kind", kind),
            used=used,
            again=again,
        )
        self.world.put(entry)
        self._kept[name] = output
        self.failures = 0

    def progress(self, note: str) -> None:
        """Each is recorded: no time passes within an attempt."""
        entry = KeptEntry(*self._naming(), self.call.attempt, len(self._kept), "progress", kind="progress", note=note)
        self.world.put(entry, counts=False)

    async def ask(self, group: str, question: str, gives: type[A], name: str) -> Answered[A]:
        """The answer that was given, or the attempt ends."""
        adapter: TypeAdapter[A] = TypeAdapter(gives)
        if name in self._kept:
            told = msgspec.json.decode(bytes(self._kept[name]), type=_Told)
            return Answered(told.who, adapter.validate_json(bytes(told.answer)))
        self.run.asks[self.call.id, name] = gives
        schema = Raw(msgspec.json.encode(adapter.json_schema()))
        raise Asking(AskedEntry(*self._naming(), self.call.attempt, name, group, question, schema))


class _Told(msgspec.Struct):
    who: str
    answer: Raw


def _type_of(work: Callable[..., Any]) -> Any:  # noqa: ANN401 - a type, or a form of one
    try:
        return typing.get_type_hints(work).get("return", Any)
    except (NameError, TypeError):
        return Any


def _not_faked(step: Step[Any, Any]) -> str:
    ways = [f"run.fake({step.name}, lambda input: ...)"]
    if step.model:
        ways.append(f"run.fake_model({step.model!r}, answers=[...])")
    elif step.takes_context:
        ways.append(f"run.real({step.name})")
    return f"step {step.name} was called, but not faked; say {' or '.join(ways)}"


async def _wait(answer: Awaitable[object]) -> object:
    return await answer
