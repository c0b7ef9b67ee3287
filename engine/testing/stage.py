"""What a test says to one run and to several alike: the calendar, the fakes, the crashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from engine.core.record import Record
from engine.core.steps import I, O, Step
from engine.llm.price import Price
from engine.testing.model import FakedModel
from engine.testing.recorded import NothingRecorded, Played, RecordedAnswers
from engine.testing.world import World

CHEAP = Price(1, 1)


class Stage:
    """The part of a test that all runs share."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def now(self) -> datetime:
        """The day on the calendar."""
        return self._world.now

    def histories(self) -> list[tuple[str, list[Record]]]:
        """Every run by its address, and what every entry did to it."""
        return [(f"{run.workflow.name}/{run.key}", run.records) for run in self._world.runs.values() if run.records]

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Move the calendar on; timers fire in order, each at its due time."""
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        self._world.advance(self.now + span)

    def fake(self, step: Step[I, O], answer: Callable[[I], O]) -> None:
        """Have `step` answer with `answer(input)` (it may be async); what it raises is a failed attempt.

        A step that `ask` made is faked the same way, and so is a tool of an agent.
        """
        self._world.fakes.fake(step.name, answer)

    def real(self, step: Step[Any, Any], *, resources: Mapping[str, Any] | None = None) -> None:
        """Run `step` as it is written, with these `resources` in its context.

        What it keeps with `once`, and whom it asks, goes through the log as in an engine. Its timeout is not watched.
        """
        self._world.fakes.make_real(step.name)
        self._world.fakes.shared.update(resources or {})

    def fake_model(
        self,
        model: str,
        answers: Sequence[object] | Callable[[list[Any]], object],
        *,
        price: Price = CHEAP,
    ) -> None:
        """Have the steps that ask `model` run for real, with this model behind them.

        Its answers are given in order, over all calls; one that did not reach the log before a crash is given again:

        - a value of the type that the step gives, or a text;
        - `tool.call(input)` to call a tool, several of them in a list;
        - an exception, such as `ProviderError(429, retry_after=30)`, `TimeoutError()`: what the provider does to it.

        A function in place of the list makes each answer of pydantic-ai's messages. The tools are faked with `fake`, or
        run with `real`. By its `price` a token costs a millionth of a euro.
        """
        self._world.fakes.models[model] = FakedModel(model, answers, price)

    def play(self, recording: RecordedAnswers | str | Path) -> None:
        """Run the steps of a recording for real, with the results that were recorded in place of models and tools.

        Raises:
            NothingRecorded: the file is none, or is of steps that are not here.
        """
        if not isinstance(recording, RecordedAnswers):
            recording = RecordedAnswers.read(recording)
        steps = {name: step for w in self._world.workflows.values() for name, step in w.steps.items()}
        for name in recording.steps:
            if name not in steps:
                message = f"the recording is of a step {name!r}, which no workflow here has"
                raise NothingRecorded(message)
            self._world.fakes.make_real(name)
            self._world.fakes.recorded[name] = Played(name, [c for c in recording.calls if c.step == name])
            if model := steps[name].model:
                self._world.fakes.models.setdefault(model, FakedModel(model, [], CHEAP))

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
