"""The tools of one call of a step, ready to be called by a model. Needs the extra `longwatch[model]`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Protocol, TypeVar

from fastmcp.exceptions import McpError
from pydantic import ValidationError
from pydantic_ai.tools import ToolDefinition

from engine.core.steps import A, Answered, NeverAgain, Runner, Step, StepContext, StepHalts, TryAgain
from engine.llm.mcp import McpTools
from engine.llm.output import OUTPUT_TOOL
from engine.llm.prompt import LONGEST_RESULT, cut
from engine.llm.scrubbing import scrubbed
from engine.llm.tools import Arguments, Tool, described, problems

T = TypeVar("T")
Kept = dict[str, Any]
"""What is kept of a tool's call: `answer` or `error`."""

LONGEST_DESCRIPTION = 2_000


class WrongArguments(ValueError):
    """Arguments that a tool does not take; the words are for the model."""


class ToolsClash(NeverAgain):
    """Two tools of a step have one name."""


@dataclass(frozen=True)
class Calling:
    """One call of a tool."""

    name: str
    """Its own within the call of the step, the same in every attempt."""
    context: StepContext
    """The step's."""
    runner: Runner
    attempts: int
    """What the step's own retry allows."""

    @property
    def key(self) -> str:
        return f"{self.context.idempotency_key}.{self.name.replace(' ', '-')}"

    def failed(self, tool: str, error: Exception, attempts: int, wait: Callable[[int], int]) -> Kept:
        """What the model is told of an error, once the tool's own attempts are spent.

        Raises:
            TryAgain: they are not.
        """
        failures = self.runner.failures + 1
        words = scrubbed(f"{type(error).__name__}: {error}")
        if failures < min(attempts, self.attempts):
            after = getattr(error, "after", None) or timedelta(milliseconds=wait(failures))
            raise TryAgain(f"tool {tool}: {words}", after=after) from error
        return {"error": words}


class Runnable(Protocol):
    """A tool that can be called."""

    name: str
    mark: Tool

    @property
    def definition(self) -> ToolDefinition: ...

    def read(self, raw: str) -> Any:  # noqa: ANN401 - what the tool takes
        """The input in a call's arguments; raises WrongArguments."""

    async def run(self, value: Any, calling: Calling) -> Kept: ...  # noqa: ANN401 - likewise


class StepTool:
    """A step as a tool."""

    def __init__(self, step: Step[Any, Any], mark: Tool) -> None:
        self.name, self.mark = step.name, mark
        self._step = step
        self._arguments = Arguments(step.input_type)

    @cached_property
    def definition(self) -> ToolDefinition:
        return ToolDefinition(
            name=self.name, parameters_json_schema=self._arguments.schema, description=described(self._step)
        )

    def read(self, raw: str) -> Any:  # noqa: ANN401 - the input's type
        try:
            return self._arguments.read(raw)
        except ValidationError as error:
            raise WrongArguments(problems(error)) from None

    async def run(self, value: Any, calling: Calling) -> Kept:  # noqa: ANN401 - likewise
        step = self._step
        try:
            async with asyncio.timeout(step.timeout.total_seconds()):
                output = await self._answer(value, calling)
            return _answer(step.write_output(output).decode())
        except StepHalts:
            raise
        except TryAgain as error:
            if error.outage:
                raise
            return calling.failed(self.name, error, step.retry.attempts, step.retry.wait)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is told to the model in the end
            final = isinstance(error, (NeverAgain, *step.retry.never))
            if isinstance(error, TimeoutError) and not str(error):
                error = TimeoutError(f"no answer within {step.timeout.total_seconds():g} s")
            return calling.failed(self.name, error, 1 if final else step.retry.attempts, step.retry.wait)

    async def _answer(self, value: Any, calling: Calling) -> Any:  # noqa: ANN401 - likewise
        step, outer = self._step, calling.context
        # An earlier attempt of the agent may have begun this very call.
        begun = outer.attempt > 1 or calling.runner.again
        if step.reconcile is not None and begun and (found := await step.reconcile(value)) is not None:
            return found
        deadline = datetime.now(UTC) + step.timeout
        attempt = calling.runner.failures + 1
        context = StepContext(calling.key, attempt, deadline, outer.resources, Inside(calling), outer.place)
        arguments = (value, context) if step.takes_context else (value,)
        if step.blocking:
            return await asyncio.to_thread(step.function, *arguments)
        return await step.function(*arguments)


class Inside:
    """`Runner` of a step that is a tool: its call is kept as a whole, so what it keeps inside is not."""

    def __init__(self, calling: Calling) -> None:
        self._calling = calling
        self.failures, self.again = calling.runner.failures, calling.runner.again

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: Any,  # noqa: ANN401 - a type
        *,
        kind: str = "once",
        used: Callable[[T], Any] | None = None,
    ) -> T:
        del name, gives, kind, used
        return await work()

    def progress(self, note: str) -> None:
        self._calling.runner.progress(note)

    async def ask(self, group: str, question: str, gives: type[A], name: str) -> Answered[A]:
        return await self._calling.runner.ask(group, question, gives, f"{self._calling.name} {name}")


class McpTool:
    """A tool of an MCP server."""

    def __init__(self, listed: Mapping[str, Any], server: McpTools, mark: Tool) -> None:
        self.name, self.mark = str(listed["name"]), mark
        self._listed, self._server = listed, server

    @cached_property
    def definition(self) -> ToolDefinition:
        return ToolDefinition(
            name=self.name,
            parameters_json_schema=self._listed["schema"],
            description=cut(self._listed["description"], LONGEST_DESCRIPTION) or None,
        )

    def read(self, raw: str) -> Any:  # noqa: ANN401 - a JSON object
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise WrongArguments(f"no JSON: {error}") from None
        if not isinstance(value, dict):
            raise WrongArguments("the arguments are one JSON object")
        return value

    async def run(self, value: Any, calling: Calling) -> Kept:  # noqa: ANN401 - likewise
        server = self._server
        try:
            async with asyncio.timeout(server.timeout.total_seconds()):
                text, wrong = await server.call(self.name, value)
        except McpError as error:
            return {"error": scrubbed(str(error))}
        except Exception as error:  # noqa: BLE001 - likewise
            return calling.failed(self.name, error, server.attempts, lambda failures: 1000 * 2**failures)
        return {"error": text} if wrong else _answer(json.dumps(text, ensure_ascii=False))


async def toolbox(tools: tuple[Tool, ...], runner: Runner) -> dict[str, Runnable]:
    """The tools by their names. What a server offers is asked once a call of the step, and kept.

    Raises:
        ToolsClash: two have one name.
    """
    made: list[Runnable] = []
    servers: dict[str, list[dict[str, Any]]] = {}
    for tool in tools:
        if isinstance(tool.what, Step):
            made.append(_step_tool(tool.what, tool))
            continue
        server = tool.what
        if server.address not in servers:
            name = f"tools of {server.place}"
            servers[server.address] = await runner.once(name, server.listed, list[dict[str, Any]])
        made += [McpTool(one, server, tool) for one in servers[server.address] if server.offers(one["name"])]
    found: dict[str, Runnable] = {}
    for one in made:
        if one.name in found or one.name == OUTPUT_TOOL:
            raise ToolsClash(f"two tools are called {one.name!r}; leave one out, of a server's with only=(...)")
        found[one.name] = one
    return found


@lru_cache(maxsize=1024)
def _step_tool(step: Step[Any, Any], mark: Tool) -> StepTool:
    """Its schema is made once."""
    return StepTool(step, mark)


def _answer(raw: str) -> Kept:
    """A tool's answer: its JSON or, where that is too long to be told, the beginning of its text."""
    return {"answer": json.loads(raw)} if len(raw) <= LONGEST_RESULT else {"answer": cut(raw, LONGEST_RESULT)}
