"""The workflows that one engine runs together, and what their steps share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from engine.core.account import accounts
from engine.core.definition import Workflow
from engine.core.entry import EventEntry
from engine.core.errors import DefinitionError, EventRefused
from engine.core.model import Event, key_of
from engine.core.record import CloudEvent
from engine.core.steps import Step


class Application:
    """Workflows by name, and resources that are made once per worker and handed to steps by name.

    Raises:
        DefinitionError: two workflows, or two different events or steps of theirs, have one name.
    """

    def __init__(
        self,
        *,
        workflows: Sequence[Workflow[Any]],
        resources: Mapping[str, Callable[[], AbstractAsyncContextManager[Any]]] | None = None,
    ) -> None:
        if any(w.account for w in workflows):
            workflows = [*workflows, accounts]
        self.workflows = {w.name: w for w in workflows}
        self.resources = dict(resources or {})
        if problems := list(self._clashes(workflows)):
            raise DefinitionError("the application", problems)

    def _clashes(self, workflows: Sequence[Workflow[Any]]) -> Iterator[str]:
        seen: dict[tuple[str, str], Any] = {}
        for workflow in workflows:
            if self.workflows[workflow.name] is not workflow:
                yield f"two workflows are called {workflow.name!r}; give each its own name"
            named: list[tuple[str, str, Any]] = [("event", n, e) for n, e in workflow.events.items()]
            named += [("step", n, s.function) for n, s in workflow.steps.items()]
            for kind, name, thing in named:
                if seen.setdefault((kind, name), thing) is not thing:
                    yield f"two {kind}s are called {name}; the name is what stands on the wire, so give each its own"

    @cached_property
    def events(self) -> dict[str, type[Event]]:
        """Every event that a workflow takes, by its name on the wire."""
        return {n: e for w in self.workflows.values() for n, e in w.events.items()}

    @cached_property
    def steps(self) -> dict[str, Step[Any, Any]]:
        return {n: s for w in self.workflows.values() for n, s in w.steps.items()}

    @cached_property
    def code(self) -> str:
        """12 hex digits over all workflows' code."""
        text = " ".join(f"{name}={w.code}" for name, w in sorted(self.workflows.items()))
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def takers(self, event: str) -> list[Workflow[Any]]:
        """The workflows that take an event of this name."""
        return [w for w in self.workflows.values() if event in w.events]

    def entries(self, event: Event, envelope: CloudEvent) -> list[EventEntry]:
        """One entry for each workflow that takes the event: what the log gets of it.

        Raises:
            EventRefused: nobody takes it, or a workflow finds no key in it.
        """
        name = type(event).__name__
        takers = self.takers(name)
        if not takers:
            raise EventRefused(
                f"no workflow takes {name!r}; this application knows {', '.join(sorted(self.events))}", "type"
            )
        return [_entry(w, event, envelope) for w in takers]

    def read_event(self, envelope: CloudEvent) -> Event:
        """The event in a CloudEvent, checked against its schema.

        Raises:
            EventRefused: unknown type, or data that do not fit.
        """
        kind = self.events.get(envelope.type)
        if kind is None:
            raise EventRefused(
                f"no workflow takes {envelope.type!r}; this application knows {', '.join(sorted(self.events))}", "type"
            )
        try:
            return kind.model_validate_json(bytes(envelope.data))
        except ValidationError as error:
            first = error.errors()[0]
            raise EventRefused(first["msg"], ".".join(("data", *(str(p) for p in first["loc"])))) from None


def _entry(workflow: Workflow[Any], event: Event, envelope: CloudEvent) -> EventEntry:
    name = type(event).__name__
    path = workflow.key_path(name)
    key = key_of(event, path) or envelope.subject
    if not key:
        field = f"data.{path}" if path else "subject"
        raise EventRefused(f"{name} has no key for {workflow.name!r}; name the run in {field!r}", field)
    foreign = name in workflow.on_key
    if path and not foreign and envelope.subject and envelope.subject != key:
        raise EventRefused(
            f"is {envelope.subject!r}, but {path} says {key!r}; leave subject out, or make them agree", "subject"
        )
    return EventEntry(
        workflow=workflow.name,
        key=key,
        id=envelope.id,
        source=envelope.source,
        type=name,
        data=envelope.data,
        time=envelope.time,
        traceparent=envelope.traceparent,
        tracestate=envelope.tracestate,
        hops=envelope.longwatchhops,
        who=envelope.longwatchwho,
        visit=envelope.longwatchvisit,
    )
