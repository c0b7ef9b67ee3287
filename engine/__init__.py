"""Durable workflows as typed state machines: everything that a workflow is written with."""

from engine.core.application import Application
from engine.core.context import Context
from engine.core.definition import Workflow
from engine.core.errors import DefinitionError, EventRefused, LongwatchError
from engine.core.model import (
    Event,
    Final,
    Publish,
    Searchable,
    State,
    StepFailed,
    after,
    at,
    enter,
    every,
    on,
    publish,
    runs,
    runs_each,
)
from engine.core.steps import Call, Retry, Step, StepContext, step

__all__ = [
    "Application",
    "Call",
    "Context",
    "DefinitionError",
    "Event",
    "EventRefused",
    "Final",
    "LongwatchError",
    "Publish",
    "Retry",
    "Searchable",
    "State",
    "Step",
    "StepContext",
    "StepFailed",
    "Workflow",
    "after",
    "at",
    "enter",
    "every",
    "on",
    "publish",
    "runs",
    "runs_each",
    "step",
]
