"""Tools: steps that a model may call, some of them only when a person has said yes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.core.steps import Step
from engine.llm.mcp import McpTools

I = TypeVar("I")  # noqa: E741 - input

WRAPPED = "input"
"""A provider wants an object as arguments; another input stands under this name in one."""
MOST_PROBLEMS = 20


@dataclass(frozen=True)
class Tool:
    """A tool with what is asked before it runs."""

    what: Step[Any, Any] | McpTools
    group: str = ""
    """The inbox whose people are asked; empty: nobody."""
    question: str | Callable[[Any], str] = ""


def asking_leave(tool: Step[I, Any] | McpTools, *, group: str, question: str | Callable[[I], str] = "") -> Tool:
    """Mark a tool, or all of a server's: before each call the people of an inbox are asked for leave.

    `question` is what they read, or makes it from the tool's input (of a server's tool: a dict); the default names the
    tool and its arguments. A model that is not given leave is told so, with the person's note.
    """
    if not group:
        message = "asking_leave(group=''): name the inbox whose people are asked, such as group='claims-reviewers'"
        raise ValueError(message)
    return Tool(tool, group, question)


def as_tools(step: str, tools: Sequence[Any]) -> tuple[Tool, ...]:
    """Tools of a step, each with its mark.

    Raises:
        TypeError: something else is among them.
        ValueError: two have one name, or one has a `limit`.
    """
    for given in tools:
        what: Any = given.what if isinstance(given, Tool) else given
        if not isinstance(what, (Step, McpTools)):
            message = f"llm_step {step!r}: {what!r} is no tool; write a @step, mcp_tools(...) or asking_leave(...)"
            raise TypeError(message)
        if isinstance(what, Step) and what.limit is not None:
            message = f"llm_step {step!r}: {what.name} has limit=, which holds where a state runs it, not for a tool"
            raise ValueError(message)
    made = tuple(t if isinstance(t, Tool) else Tool(t) for t in tools)
    names = [tool.what.name for tool in made if isinstance(tool.what, Step)]
    for name in names:
        if names.count(name) > 1:
            message = f"llm_step {step!r}: two tools are called {name!r}; give each its own name"
            raise ValueError(message)
    return made


class Arguments:
    """What a step's input looks like to a model."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of an object."""
        if not self._wrapped:
            return self._plain
        definitions = self._plain.get("$defs")
        inner = {key: value for key, value in self._plain.items() if key != "$defs"}
        schema = {
            "type": "object",
            "properties": {WRAPPED: inner},
            "required": [WRAPPED],
            "additionalProperties": False,
        }
        return schema | ({"$defs": definitions} if definitions else {})

    def read(self, raw: str) -> Any:  # noqa: ANN401 - the input's type
        """The input in a call's arguments.

        Raises:
            ValidationError: they do not fit, or are no JSON.
        """
        validate = self._adapter.validator.validate_json
        if not self._wrapped:
            return validate(raw)
        try:
            value = json.loads(raw)
        except ValueError:
            return validate(raw)  # which says it in its own words
        inner = value.get(WRAPPED) if isinstance(value, dict) and WRAPPED in value else value
        return validate(json.dumps(inner))

    def wrapped(self, plain: Any) -> Any:  # noqa: ANN401 - JSON
        """A value's JSON as it stands in arguments."""
        return {WRAPPED: plain} if self._wrapped else plain

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return self._adapter.json_schema()

    @cached_property
    def _wrapped(self) -> bool:
        return self._plain.get("type") != "object"


def described(step: Step[Any, Any]) -> str | None:
    """What a model is told about a tool: the step's docstring."""
    return inspect.getdoc(step.function)


def problems(error: ValidationError) -> str:
    """What does not fit, a line each, without the values."""
    return "\n".join(_problems(error))


def _problems(error: ValidationError) -> Iterator[str]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    for problem in found[:MOST_PROBLEMS]:
        where = ".".join(str(part) for part in problem["loc"])
        yield f"{where}: {problem['msg']}" if where else problem["msg"]
    if len(found) > MOST_PROBLEMS:
        yield f"and {len(found) - MOST_PROBLEMS} more"
