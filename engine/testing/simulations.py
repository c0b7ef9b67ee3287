"""`Simulations`: the runs of several workflows, driven by a test."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from msgspec import Raw

from engine.core.application import Application
from engine.core.definition import Workflow
from engine.core.entry import EventEntry
from engine.core.errors import EventRefused
from engine.core.model import Event, key_of
from engine.core.record import Asks
from engine.testing.simulation import Simulation
from engine.testing.stage import Stage
from engine.testing.world import START, World

E = TypeVar("E", bound=Event)


class Simulations(Stage):
    """Runs of an application's workflows. What they publish, ask and pay goes around between them.

    `run(workflow, key)` is one of them, as a `Simulation`.
    """

    def __init__(self, workflows: Application | Sequence[Workflow[Any]], now: datetime = START) -> None:
        found = list(workflows.workflows.values()) if isinstance(workflows, Application) else list(workflows)
        super().__init__(World(found, now))
        self._world.several = True

    def run(self, workflow: Workflow[E], key: str) -> Simulation[E]:
        """The run under this key, whether it has begun or not."""
        return Simulation.of(self._world, self._world.run(workflow.name, key))

    @property
    def runs(self) -> list[Simulation[Any]]:
        """Every run that something was said to."""
        return [Simulation.of(self._world, run) for run in self._world.runs.values()]

    def send(self, event: Event, *, key: str = "", id: str | None = None, who: str = "") -> None:
        """Send an event to every workflow that takes it; `key` for events whose class names no `key=`.

        Raises:
            EventRefused: nobody takes it, or there is no key.
        """
        name = type(event).__name__
        takers = self._world.takers(type(event))
        if not takers:
            raise EventRefused(f"no workflow takes {name!r}", "type")
        id_, data = id or f"event-{self._world.number()}", Raw(event.model_dump_json().encode())
        for workflow in takers:
            found = key_of(event, workflow.key_path(name)) or key
            if not found:
                raise EventRefused(f"{name} has no key for {workflow.name!r}; say key=", "key")
            self._world.take(EventEntry(workflow.name, found, id_, "test", name, data, who=who))

    def inbox(self) -> list[tuple[Simulation[Any], Asks]]:
        """What waits for people, and in which run."""
        return [(run, asks) for run in self.runs if run.records for asks in run.records[-1].asks]
