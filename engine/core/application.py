"""The workflows that one engine runs together, and what their steps share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from typing import Any, Final, Protocol

from pydantic import ValidationError

from engine.core.account import accounts
from engine.core.definition import Workflow
from engine.core.entry import EventEntry
from engine.core.errors import DefinitionError, EventRefused
from engine.core.model import Event, key_of
from engine.core.record import CloudEvent
from engine.core.steps import Limit, Step

_MODEL: Final = re.compile(r"(?!(.*-)?(url|fallback|key)$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
"""Names of models."""


class NamedModel(Protocol):
    """What a language model is to the application: see `engine.llm.model.Model`."""

    @property
    def limits(self) -> Limit | None:
        """What all workers together keep to."""
        ...

    def opened(self, name: str) -> AbstractAsyncContextManager[Any]:
        """What steps ask, once per worker."""
        ...


class Application:
    """Workflows by name, resources that are made once per worker and handed to steps by name, and language models.

    A step asks a model by the name that it has in `models`; what a worker has of it is the resource `model:NAME`.

    Raises:
        DefinitionError: two workflows, or two different events, questions or steps of theirs, have one name; a question
            is asked that no workflow answers, or two do; a step asks a model that is not named.
    """

    def __init__(
        self,
        *,
        workflows: Sequence[Workflow[Any]],
        resources: Mapping[str, Callable[[], AbstractAsyncContextManager[Any]]] | None = None,
        models: Mapping[str, NamedModel] | None = None,
    ) -> None:
        if any(w.account for w in workflows):
            workflows = [*workflows, accounts]
        self.workflows = {w.name: w for w in workflows}
        self.resources = dict(resources or {})
        self.models = dict(models or {})
        if problems := [*self._clashes(workflows), *self._unanswered(), *self._models()]:
            raise DefinitionError("the application", problems)

    def _clashes(self, workflows: Sequence[Workflow[Any]]) -> Iterator[str]:
        seen: dict[tuple[str, str], Any] = {}
        for workflow in workflows:
            if self.workflows[workflow.name] is not workflow:
                yield f"two workflows are called {workflow.name!r}; give each its own name"
            named: list[tuple[str, str, Any]] = [("event", n, e) for n, e in workflow.events.items()]
            named += [("question", n, q) for n, q in workflow.questions.items()]
            named += [("step", n, s.question or s.function) for n, s in workflow.steps.items()]
            for kind, name, thing in named:
                if seen.setdefault((kind, name), thing) is not thing:
                    yield f"two {kind}s are called {name}; the name is what stands on the wire, so give each its own"

    def _unanswered(self) -> Iterator[str]:
        for workflow in self.workflows.values():
            for step in workflow.steps.values():
                if step.question is not None and (problem := self._problem(step.question)):
                    yield f"{workflow.name!r} asks {step.question.__name__}, {problem}"

    def _problem(self, question: type[Event]) -> str:
        name = question.__name__
        answering = [w for w in self.workflows.values() if w.questions.get(name) is question]
        if not answering:
            return "and no workflow answers it; give a state of one an `@answers` for it, and list that workflow too"
        if len(answering) > 1:
            return f"and {' and '.join(repr(w.name) for w in answering)} answer it; let it be one"
        path = answering[0].on_key.get(name, question.__key__)
        return "" if path else "which names no run: write `key=` behind its class"

    def answerer(self, question: str) -> Workflow[Any] | None:
        """The workflow whose runs answer a question of this name."""
        return next((w for w in self.workflows.values() if question in w.questions), None)

    def worker_resources(self) -> Mapping[str, Callable[[], AbstractAsyncContextManager[Any]]]:
        """All that a worker makes for its steps, in order: the user's, and the engine's own behind them."""
        return {**self.resources, **{f"model:{name}": partial(m.opened, name) for name, m in self.models.items()}}

    def limits(self) -> dict[str, Limit]:
        """What all workers together keep to, by the name of the gate: `step:NAME` and `model:NAME`."""
        steps = {f"step:{s.name}": s.limit for s in self.steps.values() if s.limit is not None}
        return steps | {f"model:{name}": m.limits for name, m in self.models.items() if m.limits is not None}

    def _models(self) -> Iterator[str]:
        """Models that steps ask and nobody has named, and names that no environment variable can be made of."""
        named = f"models= names {', '.join(sorted(self.models))}" if self.models else "models= is not given"
        for name, step in self.steps.items():
            if step.model and step.model not in self.models:
                yield (
                    f"step {name} asks the model {step.model!r}, but {named}; "
                    f"write Application(models={{{step.model!r}: Model(...)}})"
                )
        for name in self.models:
            if not _MODEL.fullmatch(name):
                yield (
                    f"a model is called {name!r}; write it like claims-assessor, in small letters, not ending in -url, "
                    "-fallback or -key: its environment variables are made of it"
                )

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
        baggage=envelope.baggage,
    )
