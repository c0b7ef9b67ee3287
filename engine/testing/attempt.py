"""An attempt of a step in memory: answered by a fake, or run as it is written, with an engine's side behind it.

What stands behind its `StepContext` is the engine's own (`engine.flink.attempt`); only the log that it speaks to is
the one in memory.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from engine.core.context import milliseconds
from engine.core.entry import AskedEntry, Entry, FailureEntry, KeptEntry, ResultEntry
from engine.core.steps import NeverAgain, Step, StepHalts, TryAgain
from engine.core.transition import StartCall
from engine.flink.attempt import Attempt, Flight, Request, Said, Suspended, written
from engine.limits.outcome import Outcome
from engine.limits.passes import Pass
from engine.testing.fakes import finished
from engine.testing.recorded import Playing
from engine.testing.thinking import NotFaked, in_a_test

if TYPE_CHECKING:
    from engine.testing.run import MemoryRun
    from engine.testing.world import World


class Crashed(BaseException):
    """The simulated engine died here. It passes through a step's `except Exception`, as a kill does."""


class MemoryAttempt:
    """One attempt of a call. To the engine's `Attempt` it is the loop that runs it."""

    def __init__(self, world: World, run: MemoryRun, call: StartCall, *, again: bool) -> None:
        self.world, self.run, self.call = world, run, call
        self._request = Request(run.workflow.name, run.key, call, dict(run.kept.get(call.id, {})), again)
        self._runner: Attempt | None = None
        self._question: AskedEntry | None = None
        self._dead = False

    def outcome(self) -> Entry:
        """What the log gets of it.

        Raises:
            Crashed: the engine died in it.
            NotFaked: the step, or a tool or model of it, is neither faked nor real.
            NotRecorded: what is played to it does not fit.
        """
        step = self.run.workflow.steps[self.call.step]
        value = step.read_input(bytes(self.call.input))
        self.run.inputs.setdefault(step.name, []).append(value)
        answer = self._answerer(step)
        try:
            found = answer(value)
            if inspect.isawaitable(found):
                found = finished(_wait(found))
        except Suspended:
            pass
        except Exception as error:  # noqa: BLE001 - whatever a step raises is a failed attempt
            failure = error
            return self._asked_or(lambda: self._failure(step, failure, type(failure).__name__))
        return self._asked_or(lambda: self._result(step, found))

    def _asked_or(self, entry: Callable[[], Entry]) -> Entry:
        """The question to a person, where one was asked: nothing that the code did then counts."""
        return self._question if self._question is not None else entry()

    def _result(self, step: Step[Any, Any], found: object) -> Entry:
        try:
            output = Raw(written(step, found))
        except Exception as error:  # noqa: BLE001 - pydantic's own, when it cannot be written
            return self._failure(step, error, "InvalidResult")
        if isinstance(self._runner, Playing):
            self._runner.check()
        return ResultEntry(*self._naming, self.call.attempt, output, milliseconds(self.world.now))

    def _failure(self, step: Step[Any, Any], error: Exception, kind: str) -> FailureEntry:
        after = error.after if isinstance(error, TryAgain) else None
        return FailureEntry(
            *self._naming,
            self.call.attempt,
            kind,
            str(error),
            final=isinstance(error, (NeverAgain, *step.retry.never)),
            wait=max(0, int((after or timedelta()) / timedelta(milliseconds=1))),
            outage=isinstance(error, TryAgain) and error.outage,
            halts=isinstance(error, StepHalts),
            inner=self._runner.blame(error) if self._runner is not None else "",
            started=milliseconds(self.world.now),
        )

    @property
    def _naming(self) -> tuple[str, str, Any, Any]:
        return self.run.workflow.name, self.run.key, self.call.run, self.call.id

    # -- the step as it is written -----------------------------------------------------------------------------------

    def _answerer(self, step: Step[Any, Any]) -> Callable[[Any], Any]:
        fakes = self.world.fakes
        if step.name in fakes.answers:
            return fakes.answers[step.name]
        if fakes.is_real(step):
            return lambda value: self._really(step, value)
        raise NotFaked.step(step)

    async def _really(self, step: Step[Any, Any], value: object) -> object:
        begun = self.call.attempt > 1 or self._request.again
        if step.reconcile is not None and begun and (found := await step.reconcile(value)) is not None:
            return found
        function = in_a_test(step, self.world.fakes, self.run.inputs)
        context = [self._behind(step).context] if step.takes_context else []
        if step.blocking:
            found = await asyncio.to_thread(function, value, *context)
        else:
            found = await function(value, *context)
        if self._runner is not None:
            self._runner.end()
        return found

    def _behind(self, step: Step[Any, Any]) -> Attempt:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None  # noqa: S101 - it is one
        deadline = loop.time() + step.timeout.total_seconds()
        now = milliseconds(self.world.now)
        flight = Flight(self._request, step, task, deadline, clock=lambda: now, started=now)
        playing = self.world.fakes.recorded.get(step.name)
        resources = self.world.fakes.resources()
        if playing is None:
            self._runner = Attempt(self, flight, resources)
        else:
            self._runner = Playing(self, flight, resources, playing.call(self.run.key, self.call.id))
        flight.runner = self._runner
        return self._runner

    # -- `engine.flink.attempt.Loop` ---------------------------------------------------------------------------------

    def say(self, request: Request, entry: Said) -> None:
        """Put progress on the log."""
        del request
        self._put(entry, counts=False)

    def keep(self, request: Request, entry: KeptEntry) -> Awaitable[None]:
        """Put a result on the log, which has folded it when this returns."""
        del request
        self._put(entry)
        return _nothing()

    def suspend(self, flight: Flight, entry: AskedEntry) -> None:
        """Remember whom it asks; it ends now."""
        flight.gone = True
        self._question = entry

    def passing(self, flight: Flight, gate: str, tokens: int) -> AbstractAsyncContextManager[Pass]:
        """Nothing is limited in a test."""
        del flight
        return _passed(gate, tokens)

    def _put(self, entry: Said, *, counts: bool = True) -> None:
        if self._dead:
            raise Crashed
        try:
            self.world.put(entry, counts=counts)
        except Crashed:
            self._dead = True
            raise


class OpenGate:
    """The gate of a test: it lets everything through."""

    def ended(self, passed: Pass) -> None:
        """Nobody waits."""

    def returned(self, passed: Pass) -> None:
        """Nobody waits."""

    def serves(self, passed: Pass, tokens: int) -> bool:
        """Nothing is counted."""
        del passed, tokens
        return True

    def corrected(self, passed: Pass, tokens: int) -> None:
        """Nothing is counted."""

    def reported(self, outcome: Outcome, passed: Pass | None) -> None:
        """Nobody asks."""


@asynccontextmanager
async def _passed(gate: str, tokens: int) -> AsyncIterator[Pass]:
    yield Pass(OpenGate(), gate, tokens)


async def _nothing() -> None: ...


async def _wait(answer: Awaitable[object]) -> object:
    return await answer
