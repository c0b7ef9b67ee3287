"""Definitions that cannot be meant: classes for test_definition, one mistake each."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from engine import (
    Call,
    Event,
    Final,
    Retry,
    State,
    StepFailed,
    after,
    at,
    enter,
    every,
    on,
    runs,
    runs_each,
    step,
)


class Start(Event):
    pass


class Ping(Event):
    pass


class Pong(Event):
    pass


class Over(Final):
    pass


@step()
async def work(number: int) -> int:
    return number


@step(retry=Retry(attempts=10, first_wait=timedelta(hours=1), longest_wait=timedelta(hours=1)))
async def slow(number: int) -> int:
    return number


class Elsewhere(State):
    @after(days=1)
    def end(self) -> Over:
        return Over()


class Astray(State):
    @after(days=1)
    def end(self) -> Over:
        return Over()

    @on
    def pinged(self, event: Ping) -> Elsewhere:
        return Elsewhere()


class Trap(State):
    @on
    def pinged(self, event: Ping) -> Trap:
        return self

    @every(days=1)
    def nag(self) -> Call[int]:
        return work.call(1)


class Undead(Final):
    @on
    def pinged(self, event: Ping) -> Over:
        return Over()


class Ticking(Final):
    @after(days=1)
    def nag(self) -> Call[int]:
        return work.call(1)


class Twice(State):
    @on
    def first(self, event: Ping) -> Over:
        return Over()

    @on
    def second(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class HalfDone(State):
    @runs(work)
    def job(self) -> int:
        return 1

    @job.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()


class HalfFailed(State):
    @runs(work)
    def job(self) -> int:
        return 1

    @job.done
    def worked(self, number: int) -> Over:
        return Over()


class NoStep(State):
    @runs()  # type: ignore[call-overload, untyped-decorator]
    def job(self) -> tuple[()]:
        return ()

    @job.done  # type: ignore[untyped-decorator]
    def worked(self) -> Over:
        return Over()

    @job.failed  # type: ignore[untyped-decorator]
    def broke(self, failure: StepFailed) -> Over:
        return Over()


class Unannotated(State):
    @on
    def pinged(self, event: Ping):  # type: ignore[no-untyped-def]  # noqa: ANN201
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Wordless(State):
    @on  # type: ignore[type-var]
    def pinged(self, event: Ping) -> None: ...

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Vague(State):
    @on
    def pinged(self, event: Ping) -> State:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Waits(State):
    @on  # type: ignore[type-var]
    async def pinged(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Instant(State):
    @after(days=0)
    def end(self) -> Over:
        return Over()


class Backwards(State):
    @every(hours=-1)
    def nag(self) -> Call[int]:
        return work.call(1)

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Forever(State):
    @on
    def pinged(self, event: Ping) -> Over:
        return Over()


class Deaf(State):
    @on  # type: ignore[type-var]
    def pinged(self, number: int) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Jumps(State):
    @enter  # type: ignore[type-var]
    def hop(self) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Timeless(State):
    when: datetime

    @at
    def then(self) -> datetime:
        return self.when

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Loose(BaseModel):
    names: list[str]


class Holds(State):
    names: list[str]
    table: tuple[dict[str, int], ...]
    tags: frozenset[str]
    many: collections.abc.Sequence[int]
    few: collections.abc.Mapping[str, int] | None
    loose: Loose

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Uncarried(State):
    call: Callable[[int], int]

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Late(State):
    @every(days=20)
    def nag(self) -> Call[int]:
        return work.call(1)

    @after(days=14)
    def end(self) -> Over:
        return Over()

    @after(days=14)
    def end_again(self) -> Over:
        return Over()


class InTime(State):
    """The one that is written first fires first."""

    @every(days=14)
    def nag(self) -> Call[int]:
        return work.call(1)

    @after(days=14)
    def end(self) -> Over:
        return Over()


class Thinking(State):
    @runs(work)
    def thought(self) -> int:
        return 1

    @thought.done
    def thinks(self, number: int) -> Acting:
        return Acting()

    @thought.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()


class Acting(State):
    @runs_each(work)
    def acts(self) -> tuple[int, ...]:
        return (1,)

    @acts.done
    def acted(self, numbers: tuple[int, ...]) -> Thinking:
        return Thinking()

    @acts.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()


class Quiet(State):
    later = (Pong,)
    ignores = (Ping,)

    @on
    def pinged(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Both(State):
    later = (Ping,)

    @on
    def pinged(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Listening(State):
    @on
    def pinged(self, event: Ping) -> Unaware:
        return Unaware()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Unaware(State):
    @after(days=1)
    def end(self) -> Over:
        return Over()


class Hasty(State):
    @runs(slow)
    def job(self) -> int:
        return 1

    @job.done
    def worked(self, number: int) -> Over:
        return Over()

    @job.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()

    @after(minutes=90)
    def end(self) -> Over:
        return Over()


class Busy(State):
    """A superstate with work."""

    @runs(work)
    def job(self) -> int:
        return 1

    @job.done
    def worked(self, number: int) -> Over:
        return Over()

    @job.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()


class Busier(Busy):
    @after(days=1)
    def end(self) -> Over:
        return Over()


class Open(State):
    @on
    def pinged(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Overrides(Open):
    def pinged(self, event: Ping) -> Over:
        return Over()


class Misspelt(State):
    @on
    def pinged(self, event: Ping) -> Ovre:  # type: ignore[name-defined]  # noqa: F821
        return Over()


class Untupled(State):
    later = Ping  # type: ignore[assignment]

    @after(days=1)
    def end(self) -> Over:
        return Over()


def into(state: type[State]) -> Any:
    """A start that leads to `state`."""

    def start(event: Start) -> State:
        return state()

    start.__annotations__["return"] = state
    return start
