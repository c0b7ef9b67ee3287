"""A language model that says what a test has written down. It needs the extra `longwatch[model]` when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.core.steps import Call
from engine.llm.model import Model, ModelNotInstalledError
from engine.llm.opened import OpenedModel
from engine.llm.price import Price
from engine.testing.thinking import NotFaked

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponsePart
    from pydantic_ai.models.function import AgentInfo

    from engine.llm.connections import Candidate


class ProviderError(Exception):
    """An answer of a provider that is an HTTP error, such as `ProviderError(429, retry_after=30)`."""

    def __init__(self, status: int, message: str = "", *, retry_after: float | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        super().__init__(message or f"HTTP {status}")


class FakedModel(OpenedModel):
    """What a step finds in its resources under `model:NAME`, without a client."""

    def __init__(self, name: str, answers: Sequence[object] | Callable[..., object], price: Price) -> None:
        self._said_to_be = Model("test:fake", price=price, output="tool")
        super().__init__(name, self._said_to_be)
        self._answers = answers
        self._next = self._settled = 0
        self._made: tuple[Candidate, ...] = ()

    async def candidates(self) -> tuple[Candidate, ...]:
        """Itself, without a fallback.

        Raises:
            NotFaked: the extra is not installed.
        """
        if not self._made:
            self._made = (self._candidate(),)
        return self._made

    def _candidate(self) -> Candidate:
        try:
            from pydantic_ai.models.function import FunctionModel  # noqa: PLC0415 - an extra

            from engine.llm.connections import candidate  # noqa: PLC0415 - likewise
            from engine.llm.errors import Asked as Who  # noqa: PLC0415 - likewise
        except ImportError as missing:
            raise NotFaked(f"{ModelNotInstalledError()} ({missing})") from missing
        model = self._said_to_be
        return candidate(Who(self.name, model.name), model, FunctionModel(self._answer))

    def settled(self) -> None:
        """What was said is on the log, or has failed for good: it is not said again."""
        self._settled = self._next

    def crashed(self) -> None:
        """What was said and did not reach the log is said again."""
        self._next = self._settled

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        said = self._said(messages)
        if isinstance(said, ProviderError):
            from pydantic_ai.exceptions import ModelHTTPError  # noqa: PLC0415 - an extra

            headers = {} if said.retry_after is None else {"retry-after": f"{said.retry_after:g}"}
            raise ModelHTTPError(said.status, self.name, {"message": str(said)}, headers=headers)
        if isinstance(said, BaseException) or (isinstance(said, type) and issubclass(said, BaseException)):
            raise said
        return _response(said, info)

    def _said(self, messages: list[ModelMessage]) -> object:
        if callable(self._answers):
            return self._answers(messages)
        if self._next >= len(self._answers):
            message = (
                f"model {self.name!r} was asked {self._next + 1} times, but answers= has {len(self._answers)}; "
                f"the last question: {_last_words(messages)}"
            )
            raise NotFaked(message)
        self._next += 1
        return self._answers[self._next - 1]


def _response(said: object, info: AgentInfo) -> ModelResponse:
    from pydantic_ai.messages import ModelResponse, TextPart  # noqa: PLC0415 - an extra

    if isinstance(said, ModelResponse):
        return said
    if isinstance(said, str):
        return ModelResponse(parts=[TextPart(content=said)])
    if isinstance(said, Call) or (isinstance(said, list | tuple) and said and all(isinstance(c, Call) for c in said)):
        calls = [said] if isinstance(said, Call) else list(said)
        return ModelResponse(parts=[_tool_call(call, info) for call in calls])
    return ModelResponse(parts=[_final(said, info)])


def _tool_call(call: Call[Any], info: AgentInfo) -> ModelResponsePart:
    """As a model calls the step that is a tool: with its input as arguments."""
    from pydantic_ai.messages import ToolCallPart  # noqa: PLC0415 - an extra

    tool = next((t for t in info.function_tools if t.name == call.step.name), None)
    raw = call.step.write_input(call.input).decode()
    return ToolCallPart(call.step.name, _arguments(raw, tool.parameters_json_schema if tool else {}))


def _final(said: object, info: AgentInfo) -> ModelResponsePart:
    """As a model gives an answer that is data: by the tool that takes it."""
    from pydantic_ai.messages import TextPart, ToolCallPart  # noqa: PLC0415 - an extra
    from pydantic_core import to_json  # noqa: PLC0415 - beside them

    raw = to_json(said).decode()
    if not info.output_tools:
        return TextPart(content=raw)
    (tool, *_) = info.output_tools
    return ToolCallPart(tool.name, _arguments(raw, tool.parameters_json_schema))


def _arguments(raw: str, schema: dict[str, Any]) -> str:
    """Arguments are an object: what is none stands under the only name in one."""
    if raw.startswith("{"):
        return raw
    names = list(schema.get("properties", {}))
    return f'{{"{names[0]}":{raw}}}' if len(names) == 1 else raw


def _last_words(messages: list[ModelMessage]) -> str:
    parts = messages[-1].parts if messages else []
    return str(getattr(parts[-1], "content", "")) if parts else ""
