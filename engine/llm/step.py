"""A step that thinks: a language model, asked until it gives what the step gives, with tools if it wants them.

    assess_risk = llm_step(
        "assess_risk", model="claims-assessor", instructions=INSTRUCTIONS, takes=Dossier, gives=Assessment,
        tools=[find_similar_claims, asking_leave(order_survey, group="claims-reviewers")],
        limits=Limits(calls=12, tokens=40_000, eur="0.20"),
    )

Each turn of the model and each call of a tool is kept on the log by itself (`StepContext.once`): whatever dies, the
next attempt goes on behind the last one that was kept.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from engine.core.steps import Retry, Step, StepContext, StepHalts
from engine.llm.bounds import Limits
from engine.llm.mcp import McpTools
from engine.llm.model import ModelNotInstalledError
from engine.llm.tools import Tool, as_tools

In = TypeVar("In")
Out = TypeVar("Out")

DEFAULT_RETRY = Retry()
DEFAULT_LIMITS = Limits()
DEFAULT_TIMEOUT = timedelta(minutes=5)
WRONG_ANSWERS = 2


@dataclass(eq=False)
class Thinking:
    """What an `llm_step` is made of. Its `think` is the step's function."""

    name: str
    model: str
    instructions: str
    tools: tuple[Tool, ...]
    limits: Limits
    wrong_answers: int
    """How often a model may be told that its answer is not what is wanted."""
    prompt: Callable[[Any], str] | None
    examples: tuple[tuple[Any, Any], ...]
    offers: Callable[[Any], Collection[Step[Any, Any]]] | None = None
    """Which tools an input is offered; None: all."""
    step: Step[Any, Any] = field(init=False)

    def tools_for(self, asked: Any) -> tuple[Tool, ...]:  # noqa: ANN401 - takes is the step's
        """The tools that this input is offered."""
        if self.offers is None:
            return self.tools
        names = {step.name for step in self.offers(asked)}
        return tuple(t for t in self.tools if not isinstance(t.what, Step) or t.what.name in names)

    async def think(self, asked: Any, context: StepContext) -> Any:  # noqa: ANN401 - takes and gives are the step's
        """One attempt. The first one's imports take seconds: beside the loop, so that other steps go on meanwhile."""
        if not _is_imported("engine.llm.agent"):
            await asyncio.to_thread(_import_agent)
        from engine.llm.agent import converse  # noqa: PLC0415 - an extra

        return await converse(self, asked, context)


def llm_step(
    name: str,
    *,
    model: str,
    instructions: str,
    takes: type[In],
    gives: type[Out],
    tools: Sequence[Step[Any, Any] | Tool | McpTools] = (),
    offers: Callable[[In], Collection[Step[Any, Any]]] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    prompt: Callable[[In], str] | None = None,
    examples: Sequence[tuple[In, Out]] = (),
    retry: Retry = DEFAULT_RETRY,
    retries: int = WRONG_ANSWERS,
    timeout: timedelta = DEFAULT_TIMEOUT,
    total: timedelta | None = None,
) -> Step[In, Out]:
    """Make a step of a language model.

    Args:
        name: the step's name; it is stored.
        model: as the application names it: `Application(models={"claims-assessor": Model(...)})`.
        instructions: fixed text. What comes from customers or tools never belongs into it.
        takes: the input's type.
        gives: the answer's type, a pydantic model or `str`. Other answers go back to the model, with what is wrong.
        tools: steps that the model may call; `asking_leave(step, ...)`; `mcp_tools(address)`.
        offers: says of an input which of the steps among the tools it is offered; the default is all of them.
        limits: what one call of this step may use.
        prompt: makes the question of the input; the default is the input as JSON, marked as data.
        examples: questions that went before, with the answers that were wanted: a small model learns from them.
        retry: of each turn and each tool's call by itself.
        retries: how often a wrong answer goes back to the model; one more is the failure `InvalidAnswer`.
        timeout: of each turn and each tool's call, wall time.
        total: of the call with all of them.
    """
    if not instructions.strip():
        message = f"llm_step {name!r}: instructions are empty; say what the model is to do"
        raise ValueError(message)
    if not model:
        message = f"llm_step {name!r}: name a model of the application, such as model='claims-assessor'"
        raise ValueError(message)
    if retries < 0 or timeout <= timedelta() or (total is not None and total <= timedelta()):
        message = f"llm_step {name!r}: retries is 0 or more, timeout and total are above 0"
        raise ValueError(message)
    made = as_tools(name, tools)
    thinking = Thinking(name, model, instructions, made, limits, retries, prompt, tuple(examples), offers)
    step: Step[In, Out] = Step(
        name, thinking.think, retry, timeout, total, takes=takes, gives=gives, spends=limits.spends, model=model
    )
    thinking.step = step
    return step


def _is_imported(name: str) -> bool:
    """Whether a module is there as a whole: it is known while it is being imported, and whoever wants it then waits."""
    module = sys.modules.get(name)
    return module is not None and not getattr(module.__spec__, "_initializing", False)


def _import_agent() -> None:
    try:
        import engine.llm.agent  # noqa: PLC0415, F401 - an extra
    except ImportError as missing:
        raise StepHalts(str(ModelNotInstalledError())) from missing
