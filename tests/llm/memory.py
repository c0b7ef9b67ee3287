"""A runner in memory: it keeps what a call keeps, can be killed wherever that is, and asks people of a dict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from engine.core.entry import Used
from engine.core.steps import A, Answered, Step, StepContext, TryAgain
from engine.limits.outcome import Outcome

T = TypeVar("T")
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)


class Killed(BaseException):
    """The process is gone."""


class Asked(BaseException):
    """The attempt ends: a person was asked."""


Moment = Literal["before", "after"]
"""Of a death: before what was done is kept, or after."""


@dataclass
class Call:
    """One call of a step, over all its attempts."""

    kept: dict[str, bytes] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    used: list[Used] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    """Every work that was begun, by its name."""
    questions: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    failures: int = 0
    attempts: int = 0
    die: tuple[int, Moment] | None = None
    """At which keep, counted over all attempts."""
    notes: list[str] = field(default_factory=list)
    reports: list[Outcome] = field(default_factory=list)
    gates: list[tuple[str, int]] = field(default_factory=list)
    waits: list[TryAgain] = field(default_factory=list)

    async def run(self, step: Step[Any, T], asked: object, resources: Mapping[str, Any], *, tries: int = 20) -> T:
        """Attempts until one answers; what is not to be tried again is raised."""
        for _ in range(tries):
            self.attempts += 1
            context = StepContext("run.call", self.attempts, NOW, resources, Runner(self))
            try:
                return await step(asked, context)
            except TryAgain as error:
                self.waits.append(error)
                self.failures += 1
            except (Killed, Asked):
                pass
        raise AssertionError(f"no answer in {tries} attempts; last: {self.waits[-1:]}")


class Runner:
    """One attempt."""

    again = False

    def __init__(self, call: Call) -> None:
        self._call = call
        self._names: set[str] = set()
        self.failures = call.failures

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: Any,
        *,
        kind: str = "once",
        used: Callable[[T], Used | None] | None = None,
    ) -> T:
        call = self._call
        assert name not in self._names, f"{name} twice in one attempt"
        self._names.add(name)
        adapter: TypeAdapter[T] = _adapter(gives)
        if name not in call.kept:
            call.begun.append(name)
            value = await work()
            raw = adapter.dump_json(value, warnings="error")
            self._maybe_die("before")
            call.kept[name] = raw
            call.kinds[name] = kind
            if used is not None and (paid := used(value)) is not None:
                call.used.append(paid)
            call.failures = self.failures = 0
            self._maybe_die("after")
        return adapter.validate_json(call.kept[name])

    def _maybe_die(self, moment: Moment) -> None:
        if self._call.die == (len(self._call.kept) + (moment == "before"), moment):
            self._call.die = None
            raise Killed

    def progress(self, note: str) -> None:
        self._call.notes.append(note)

    async def ask(self, group: str, question: str, gives: type[A], name: str) -> Answered[A]:
        call = self._call
        assert name not in self._names
        self._names.add(name)
        if name in call.questions:
            answer = call.answers[group]
            return Answered("ann", answer)
        call.questions[name] = question
        raise Asked

    @asynccontextmanager
    async def passing(self, gate: str, *, tokens: int = 0) -> AsyncIterator[Any]:
        self._call.gates.append((gate, tokens))
        yield Pass(self._call)


class Pass:
    def __init__(self, call: Call) -> None:
        self._call = call

    def used(self, tokens: int) -> None:
        pass

    def report(self, outcome: Outcome) -> None:
        self._call.reports.append(outcome)


@lru_cache
def _adapter(gives: Any) -> TypeAdapter[Any]:
    return TypeAdapter(gives)
