"""Durable workflows as typed state machines: everything that a workflow is written with, and the client beside it.

The client, and what language models need, are imported when they are first asked for.
"""

import importlib
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
from engine.core.secret import Secret
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
    from engine.llm.bounds import Limits
    from engine.llm.mcp import mcp_tools
    from engine.llm.model import Model
    from engine.llm.price import Price
    from engine.llm.step import llm_step
    from engine.llm.tools import asking_leave

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
    "Limits",
    "LongwatchError",
    "Model",
    "NeverAgain",
    "Price",
    "Publish",
    "Question",
    "Raise",
    "Retry",
    "Searchable",
    "Secret",
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
    "asking_leave",
    "at",
    "enter",
    "every",
    "llm_step",
    "mcp_tools",
    "on",
    "publish",
    "runs",
    "runs_each",
    "step",
]


_LATE = {
    "Client": "engine.client",
    "Limits": "engine.llm.bounds",
    "Model": "engine.llm.model",
    "Price": "engine.llm.price",
    "asking_leave": "engine.llm.tools",
    "llm_step": "engine.llm.step",
    "mcp_tools": "engine.llm.mcp",
}


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
