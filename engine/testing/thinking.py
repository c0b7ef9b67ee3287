"""Steps that run for real in a test, with the tools of those that think faked one by one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from engine.core.steps import Step

if TYPE_CHECKING:
    from engine.testing.fakes import Fakes


class NotFaked(BaseException):
    """A test calls what it has neither faked nor made real. No `Exception`: it is told to the test, not to a retry."""

    @classmethod
    def step(cls, step: Step[Any, Any]) -> LookupError:
        """What to say of a step."""
        return LookupError(f"step {step.name} was called, but not faked; say {' or '.join(_ways(step))}")

    @classmethod
    def tool(cls, step: Step[Any, Any], name: str) -> NotFaked:
        """What to say of a tool of `step`."""
        ways = f"run.fake({name}, lambda input: ...) or run.real({name})"
        return cls(f"{step.name} called its tool {name}, which is not faked; say {ways}")


def _ways(step: Step[Any, Any]) -> list[str]:
    ways = [f"run.fake({step.name}, lambda input: ...)"]
    if step.model:
        return [*ways, f"run.fake_model({step.model!r}, answers=[...])"]
    return [*ways, f"run.real({step.name})"] if step.takes_context else ways


def in_a_test(step: Step[Any, Any], fakes: Fakes, inputs: dict[str, list[Any]]) -> Callable[..., Any]:
    """The function of a step; that of one that thinks has its tools faked."""
    thinking: Any = getattr(step.function, "__self__", None)
    if not step.model or not hasattr(thinking, "tools"):
        return step.function
    tools = [
        replace(tool, what=_faked(tool.what, step, fakes, inputs)) if isinstance(tool.what, Step) else tool
        for tool in thinking.tools
    ]
    mine = replace(thinking, tools=tuple(tools))
    mine.step = step
    function: Callable[..., Any] = mine.think
    return function


def _faked(tool: Step[Any, Any], step: Step[Any, Any], fakes: Fakes, inputs: dict[str, list[Any]]) -> Step[Any, Any]:
    @wraps(tool.function)
    async def answer(value: object, *context: Any) -> object:  # noqa: ANN401 - a StepContext, where it wants one
        inputs.setdefault(tool.name, []).append(value)
        if tool.name in fakes.answers:
            found = fakes.answers[tool.name](value)
        elif fakes.is_real(tool):
            found = in_a_test(tool, fakes, inputs)(value, *context)
        else:
            raise NotFaked.tool(step, tool.name)
        return await found if inspect.isawaitable(found) else found

    return replace(tool, function=answer)
