"""What the providers' protocols have in common: what is asked for, what is answered, and how each writes it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Json = dict[str, Any]

OUTPUT_TOOL = "final_result"
"""pydantic-ai's name, or the beginning of it, for a tool that does nothing but take the answer."""


@dataclass(frozen=True)
class Tool:
    """A tool that the request offers, with the JSON schema of its arguments."""

    name: str
    schema: Json

    @property
    def takes_the_answer(self) -> bool:
        return self.name.startswith(OUTPUT_TOOL)


@dataclass(frozen=True)
class ToolCall:
    """A tool to be called by the client. `arguments` that are a string are sent as they are, broken JSON too."""

    name: str
    arguments: Json | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Tokens:
    """What a request is charged for. `cached` of the `input` were read from the provider's cache."""

    input: int = 0
    output: int = 0
    cached: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True)
class Asked:
    """A request's body, read: the same for all protocols."""

    model: str
    messages: list[Any]
    """As they were sent."""
    tools: tuple[Tool, ...] = ()
    forced: str | None = None
    """The one tool that must be called."""
    required: bool = False
    """Some tool must be called."""
    schema: Json | None = None
    """Of the text to be answered."""
    called: tuple[str, ...] = ()
    """Tools that were called so far in this conversation, in order."""
    stream: bool = False

    @property
    def output_tool(self) -> Tool | None:
        """The tool that takes the answer, when there is one."""
        return next((tool for tool in self.tools if tool.takes_the_answer), None)

    @property
    def working_tools(self) -> tuple[Tool, ...]:
        """The tools that do something."""
        return tuple(tool for tool in self.tools if not tool.takes_the_answer)


@dataclass(frozen=True)
class Content:
    """What the model says."""

    text: str | None = None
    calls: tuple[ToolCall, ...] = ()
    end: Literal["done", "refusal", "content_filter"] = "done"

    @property
    def size(self) -> int:
        return len(self.text or "") + sum(len(call.text) for call in self.calls)

    @property
    def wants_tools(self) -> bool:
        return bool(self.calls)


def counted(asked: Asked, content: Content) -> Tokens:
    """Four characters a token: no tokenizer's number, but the same every time."""
    said = len(json.dumps(asked.messages)) + sum(len(json.dumps(tool.schema)) for tool in asked.tools)
    return Tokens(input=max(1, said // 4), output=max(1, content.size // 4))


class Speaks(Protocol):
    """One protocol of one provider."""

    name: str
    """`openai-chat`, `openai-responses` or `anthropic`."""
    id_header: str
    """The answer's header with the provider's request id."""
    last_event: str
    """What ends a stream, after the events."""

    def read(self, body: Json) -> Asked: ...

    def answer(self, asked: Asked, content: Content, tokens: Tokens, number: int) -> Json: ...

    def empty(self, answer: Json) -> Json:
        """The same answer with nothing in it: no choices, no output, no content."""

    def doubled(self, answer: Json, other: Json) -> Json:
        """One answer that holds what both say."""

    def events(self, answer: Json) -> list[Json]:
        """The answer as a stream: a few events that add up to it."""

    def error(self, status: int, message: str, kind: str | None) -> Json: ...
