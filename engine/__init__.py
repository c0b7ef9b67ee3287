"""Durable workflows as typed state machines: everything that a workflow is written with, and the client beside it.

The client is imported when it is first asked for: a workflow needs neither its database nor its log.
"""

from typing import TYPE_CHECKING

from engine.core.application import Application
from engine.core.budget import Amount, Budget
from engine.core.context import Context
from engine.core.definition import Workflow
from engine.core.errors import DefinitionError, EventRefused, LongwatchError
from engine.core.model import (
    Answer,
    BudgetSpent,
    Event,
    Final,
    Publish,
    Question,
    Raise,
    Searchable,
    State,
    StepFailed,
    after,
    answers,
    ask,
    at,
    enter,
    every,
    on,
    publish,
    runs,
    runs_each,
)
from engine.core.steps import (
    Answered,
    Call,
    Leave,
    Limit,
    NeverAgain,
    Retry,
    Step,
    StepContext,
    StepHalts,
    TryAgain,
    step,
)

if TYPE_CHECKING:
    from engine.client import Client

__all__ = [
    "Amount",
    "Answer",
    "Answered",
    "Application",
    "Budget",
    "BudgetSpent",
    "Call",
    "Client",
    "Context",
    "DefinitionError",
    "Event",
    "EventRefused",
    "Final",
    "Leave",
    "Limit",
    "LongwatchError",
    "NeverAgain",
    "Publish",
    "Question",
    "Raise",
    "Retry",
    "Searchable",
    "State",
    "Step",
    "StepContext",
    "StepFailed",
    "StepHalts",
    "TryAgain",
    "Workflow",
    "after",
    "answers",
    "ask",
    "at",
    "enter",
    "every",
    "on",
    "publish",
    "runs",
    "runs_each",
    "step",
]


def __getattr__(name: str) -> object:
    if name == "Client":
        from engine.client import Client  # noqa: PLC0415 - see above

        return Client
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
