"""What a test says to one run and to several alike: the calendar, the fakes, the crashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from engine.core.steps import I, O, Step
from engine.testing.world import World


class Stage:
    """The part of a test that all runs share."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def now(self) -> datetime:
        """The day on the calendar."""
        return self._world.now

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Move the calendar on; timers fire in order, each at its due time."""
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self._world.advance(self.now + span)

    def fake(self, step: Step[I, O], answer: Callable[[I], O]) -> None:
        """Have `step` answer with `answer(input)` (it may be async); what it raises is a failed attempt.

        A step that `ask` made is faked the same way, and so is a tool of an agent.
        """
        self._world.fakes.answers[step.name] = answer

    def real(self, step: Step[Any, Any], *, resources: Mapping[str, Any] | None = None) -> None:
        """Run `step` as it is written, with these `resources` in its context.

        What it keeps with `once`, and whom it asks, goes through the log as in an engine. Its timeout is not watched.
        """
        self._world.fakes.real[step.name] = dict(resources or {})

    def crash(self) -> None:
        """Kill the engine. In a fake, in a step or in a tool: right there, and what it was about to answer is lost.

        The attempts in flight begin again with what they have kept.
        """
        self._world.crash()

    def crash_after(self, results: int, *, lost: bool = False) -> None:
        """Kill the engine after so many more results of attempts: those kept by `once`, the calls' own, and failures.

        With `lost` the last of them was made, but did not reach the log: its outcome is not known.
        """
        if results < 1:
            message = f"crash_after({results}): the first result that an engine can die after is number 1"
            raise ValueError(message)
        self._world.crash_after(results, lost=lost)
