"""A workflow whose every answer stands in its data: any script is another machine, and all can be imported.

Each handler takes the next number of `script` and does what it says: `answer` holds the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from engine import (
    Call,
    Context,
    Event,
    Final,
    Publish,
    Retry,
    Searchable,
    State,
    StepFailed,
    Workflow,
    after,
    at,
    enter,
    every,
    on,
    publish,
    runs,
    runs_each,
    step,
)


@step(retry=Retry(attempts=3, first_wait=timedelta(hours=1)))
async def left(number: int) -> int:
    return number + 1


@step(retry=Retry(attempts=5, first_wait=timedelta(hours=5), factor=3), total=timedelta(hours=30))
async def right(text: str) -> str:
    return text.upper()


@step(retry=Retry(attempts=2, first_wait=timedelta(minutes=7)))
async def single(number: int) -> int:
    return number * 2


@step(retry=Retry(attempts=1))
async def aside(text: str) -> None: ...


class Go(Event, key="key"):
    key: str
    script: tuple[int, ...]


class Nudge(Event):
    weight: int = 0


class Hint(Event):
    weight: int = 0


class Stop(Event):
    pass


class Machine(State):
    """What all states carry, and what they all do."""

    script: tuple[int, ...]
    turn: int = 0
    mark: Annotated[str, Searchable] = ""

    @property
    def number(self) -> int:
        return self.script[self.turn % len(self.script)]

    @on
    def stopped(self, event: Stop) -> End | tuple[End, Publish]:
        if self.number % 2:
            return End(mark=self.mark)
        return End(mark=self.mark), publish(Nudge(weight=self.turn), key="b")

    @after(days=40)
    def over(self) -> End:
        return End(mark="over")

    @every(days=9)
    def beat(self, ctx: Context) -> Call[None]:
        return aside.call(f"{ctx.key} {ctx.now:%d}")


class Both(Machine):
    """Two steps at once."""

    later = (Hint,)
    ignores = (Nudge,)

    @runs(left, right)
    def job(self) -> tuple[int, str]:
        return self.number, self.mark

    @job.done
    def worked(self, number: int, text: str, ctx: Context) -> Anything:
        return answer(self, number, ctx)

    @job.failed
    def broke(self, failure: StepFailed, ctx: Context) -> Anything:
        return answer(self, failure.attempts, ctx)

    @after(days=4)
    def tired(self, ctx: Context) -> Anything:
        return answer(self, 4, ctx)


class Many(Machine):
    """One step over many inputs, or none."""

    ignores = (Nudge, Hint)

    @runs_each(single, limit=2)
    def items(self) -> Sequence[int]:
        return range(self.number % 5)

    @items.done
    def worked(self, results: tuple[int, ...], ctx: Context) -> Anything:
        return answer(self, sum(results), ctx)

    @items.failed
    def broke(self, failure: StepFailed) -> Rest:
        return Rest(script=self.script, turn=self.turn + 1, mark=failure.error[:5])

    @after(days=3)
    def tired(self) -> Rest:
        return Rest(script=self.script, turn=self.turn + 1)


class Group(Machine):
    """A superstate of two, with timers of its own."""

    @after(days=11)
    def long(self) -> Many:
        return Many(script=self.script, turn=self.turn + 1)

    @on
    def hinted(self, event: Hint, ctx: Context) -> Anything:
        return answer(self, event.weight, ctx)


class Rest(Group):
    """Waits for events and timers."""

    @enter
    def sigh(self, ctx: Context) -> Call[None]:
        return aside.call(f"{ctx.random.random():.4f}")

    @on
    def nudged(self, event: Nudge, ctx: Context) -> Anything:
        return answer(self, event.weight, ctx)

    @every(days=2)
    def stir(self, ctx: Context) -> Anything:
        return answer(self, 2, ctx)

    @after(days=7)
    def up(self) -> Due:
        return Due(script=self.script, turn=self.turn + 1)


class Due(Group):
    """Waits for a time from its data."""

    since: datetime | None = None

    @at
    def moment(self, ctx: Context) -> datetime | None:
        if self.number % 4 == 0:
            return None
        return (self.since or ctx.entered_at) + timedelta(hours=self.number % 100 - 10)

    @moment.due
    def came(self, ctx: Context) -> Anything:
        return answer(self, 0, ctx)

    @on
    def nudged(self, event: Nudge, ctx: Context) -> Due:
        return Due(script=self.script, turn=self.turn + 1, since=ctx.now + timedelta(days=event.weight % 5))

    @after(days=8)
    def late(self) -> End:
        return End(mark="late")


class End(Final):
    mark: str

    @enter
    def bye(self) -> Call[None]:
        return aside.call(self.mark)


Anything = (
    Both | Many | Rest | Due | End | tuple[Both | Many | Rest | Due | End, Call[None], Publish] | Call[None] | Publish
)


def answer(state: Machine, weight: int, ctx: Context) -> Anything:
    """The rule of the machine: what the script's number says."""
    found: Anything = _answer(state, weight, ctx)
    return found


def _answer(state: Machine, weight: int, ctx: Context) -> Any:
    number = state.number
    rest = number // 8
    following = MOVES[rest % len(MOVES)](
        script=state.script, turn=state.turn + 1, mark=f"{weight}.{ctx.random.randint(0, 99)}"
    )
    call = aside.call(f"{number} {ctx.uuid()}")
    match number % 8:
        case 0 | 1 | 2:
            return following
        case 3:
            return type(state)(script=state.script, turn=state.turn + 1, mark=f"stayed {weight}")
        case 4:
            return call
        case 5:
            return publish(Nudge(weight=number), key="b" if ctx.key == "a" else "a")
        case 6:
            return End(mark="early") if rest % 3 else following, call, publish(Hint(weight=weight), key="a")
        case _:
            if rest % 2:
                message = f"told to fail by {number}"
                raise ValueError(message)
            return End(mark=f"{weight}")


MOVES: tuple[type[Machine], ...] = (Rest, Both, Many, Due, Rest)


def go(event: Go, ctx: Context) -> Both | Many | Rest | Due:
    if event.script[0] == 200:
        message = "told not to start"
        raise ValueError(message)
    first = MOVES[event.script[0] % len(MOVES)](script=event.script, mark=ctx.key)
    assert isinstance(first, Both | Many | Rest | Due)
    return first


machine = Workflow("machine", start=go, states=[Both, Many, Rest, Due, End])
