"""What the server may do with a request: answer well, answer badly, or not at all.

Every behaviour takes `delay=` (seconds before it begins) and `times=` (how often it stands in a script, one after the
other). What answers, answers in the protocol and in the way that the request asked by.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from engine.testing.providers.connection import Connection, head, http_date, response
from engine.testing.providers.plausible import plausible, wrong
from engine.testing.providers.protocol import Asked, Content, Json, Speaks, Tokens, Tool, ToolCall, counted
from engine.testing.providers.request import Request

FOREVER = sys.maxsize


@dataclass
class Exchange:
    """A request with the way back to who asked."""

    request: Request
    speaks: Speaks
    connection: Connection
    let_go: asyncio.Event

    @property
    def asked(self) -> Asked:
        return self.request.asked

    def render(self, content: Content, tokens: Tokens | None = None) -> Json:
        """The answer's body, charged to the request."""
        self.request.tokens = tokens or counted(self.asked, content)
        return self.speaks.answer(self.asked, content, self.request.tokens, self.request.number)

    def said(self, content: Content, tokens: Tokens | None = None) -> bytes:
        """All bytes of an answer, as one body or as the stream that was asked for."""
        return self.written(self.render(content, tokens))

    def written(self, answer: Json) -> bytes:
        body, content_type = self.body(answer)
        return self.whole(body, content_type=content_type)

    def body(self, answer: Json) -> tuple[Json | str, str]:
        """What stands in an answer's body, with its content type."""
        if not self.asked.stream:
            return answer, "application/json"
        events = "".join(_event(each) for each in self.speaks.events(answer))
        return events + self.speaks.last_event, "text/event-stream"

    def whole(
        self,
        body: Json | bytes | str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """All bytes of an answer, its status noted."""
        self.request.status = status
        named = {self.speaks.id_header: f"req_{self.request.number}", **(headers or {})}
        return response(body, status=status, headers=named, content_type=content_type)

    async def send(self, data: bytes) -> None:
        await self.connection.write(data)


@dataclass(frozen=True)
class Behaviour:
    """Base of all."""

    _: KW_ONLY
    delay: float = 0
    times: int = 1

    async def play(self, exchange: Exchange) -> None:
        raise NotImplementedError


# What answers well ----------------------------------------------------------------------------------------------------


class Says(Protocol):
    """A behaviour that has an answer; others take it and send it in a worse way."""

    def content(self, asked: Asked) -> Content: ...

    @property
    def tokens(self) -> Tokens | None: ...


@dataclass(frozen=True)
class Answer(Behaviour):
    """A text; or `json` (or a pydantic model) in the way that the request wants its answer; or tools to be called."""

    text: str | None = None
    json: Any = None
    tools: tuple[ToolCall, ...] | list[ToolCall] = ()
    tokens: Tokens | None = None
    """What it costs; counted from the texts when it is not said."""

    def content(self, asked: Asked) -> Content:
        if self.json is None:
            return Content(self.text if self.text is not None or self.tools else "", tuple(self.tools))
        value = self.json.model_dump(mode="json") if isinstance(self.json, BaseModel) else self.json
        return structured(asked, value)

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.said(self.content(exchange.asked), self.tokens))


@dataclass(frozen=True)
class Plausible(Behaviour):
    """What the server does without a script: calls each tool once, then answers with what the schema allows.

    With `turns` it calls tools, in rotation, until so many were called in this conversation. It keeps no memory: the
    same request gets the same answer.
    """

    turns: int | None = None
    tokens: Tokens | None = None

    def content(self, asked: Asked) -> Content:
        if asked.forced is not None:
            tool = next(each for each in asked.tools if each.name == asked.forced)
            return Content(calls=(sensible_call(tool),))
        if (next_tool := self._next_tool(asked)) is not None:
            return Content(calls=(sensible_call(next_tool),))
        if asked.schema is not None:
            return Content(jsonlib.dumps(plausible(asked.schema)))
        if asked.output_tool is not None:
            return Content(calls=(sensible_call(asked.output_tool),))
        if asked.required:
            return Content(calls=(sensible_call(asked.tools[0]),))
        return Content(f"A plausible answer of {asked.model}.")

    def _next_tool(self, asked: Asked) -> Tool | None:
        tools = asked.working_tools
        if self.turns is None:
            return next((tool for tool in tools if tool.name not in asked.called), None)
        return tools[len(asked.called) % len(tools)] if tools and len(asked.called) < self.turns else None

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.said(self.content(exchange.asked), self.tokens))


@dataclass(frozen=True)
class Held(Behaviour):
    """An answer that waits for `Provider.let_go()`: to look at, or to kill, what is in the middle of a call."""

    answer: Says = field(default_factory=Plausible)

    async def play(self, exchange: Exchange) -> None:
        await exchange.let_go.wait()
        await exchange.send(exchange.said(self.answer.content(exchange.asked), self.answer.tokens))


# What answers with an error or a refusal ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status(Behaviour):
    """An HTTP error, with the protocol's own body unless `body` is given.

    `retry_after` is in seconds, sent as such, or `as_date` as the HTTP date that is so far ahead of the server's clock.
    `clock` sets that clock wrong: the header `Date` and the date of `retry_after` are both off by so much.
    """

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json | str | None = None
    retry_after: float | None = None
    as_date: bool = False
    clock: timedelta = timedelta()
    kind: str | None = None
    """The error's code in the body, such as `insufficient_quota` (OpenAI) or `overloaded_error` (Anthropic)."""
    message: str = "told to fail"

    async def play(self, exchange: Exchange) -> None:
        body = exchange.speaks.error(self.code, self.message, self.kind) if self.body is None else self.body
        await exchange.send(exchange.whole(body, self.code, {**self._times(), **self.headers}))

    def _times(self) -> dict[str, str]:
        times = {"date": http_date(self.clock)}
        if self.retry_after is not None:
            due = self.clock + timedelta(seconds=self.retry_after)
            times["retry-after"] = http_date(due) if self.as_date else f"{self.retry_after:g}"
        return times


@dataclass(frozen=True)
class Refuse(Behaviour):
    """The model declines (`refusal`), or a filter stops it (`content_filter`). Anthropic has one word for both."""

    how: Literal["refusal", "content_filter"] = "refusal"
    words: str = "I cannot help with that."

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.said(Content(self.words, end=self.how)))


# What breaks HTTP -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut(Behaviour):
    """The connection ends when `after` (0 to 1) of the answer's bytes were sent. The answer is charged all the same."""

    after: float = 0.5
    reset: bool = False
    """By RST in place of FIN."""
    answer: Says = field(default_factory=Plausible)

    async def play(self, exchange: Exchange) -> None:
        data = exchange.said(self.answer.content(exchange.asked), self.answer.tokens)
        exchange.request.outcome = "cut"
        await exchange.send(data[: int(len(data) * self.after)])
        exchange.connection.cut(reset=self.reset)


@dataclass(frozen=True)
class Drip(Behaviour):
    """The answer byte by byte, `pause` seconds apart."""

    pause: float = 0
    answer: Says = field(default_factory=Plausible)

    async def play(self, exchange: Exchange) -> None:
        for byte in exchange.said(self.answer.content(exchange.asked), self.answer.tokens):
            await exchange.send(bytes([byte]))
            await asyncio.sleep(self.pause)


@dataclass(frozen=True)
class Never(Behaviour):
    """No answer until somebody closes the connection: the client, or the server as it goes."""

    async def play(self, exchange: Exchange) -> None:  # noqa: ARG002 - it never looks
        await asyncio.Event().wait()


@dataclass(frozen=True)
class TwoAnswers(Behaviour):
    """Two answers for one request: as two whole HTTP responses, or in one body (two choices, outputs, contents)."""

    how: Literal["responses", "one body"] = "responses"
    first: Says = field(default_factory=Plausible)
    second: Says = field(default_factory=lambda: Answer("And another thing."))

    async def play(self, exchange: Exchange) -> None:
        second = _rendered(exchange, self.second)
        first = _rendered(exchange, self.first)
        if self.how == "responses":
            await exchange.send(exchange.written(first) + exchange.written(second))
        else:
            await exchange.send(exchange.written(exchange.speaks.doubled(first, second)))


@dataclass(frozen=True)
class Huge(Behaviour):
    """An answer whose text is that long. It is made while it is sent, and ends when the client hangs up."""

    size: int = 50_000_000

    async def play(self, exchange: Exchange) -> None:
        marker = "here stands the text"
        answer, content_type = exchange.body(exchange.render(Content(marker), Tokens(1, self.size // 4)))
        text = answer if isinstance(answer, str) else jsonlib.dumps(answer)
        before, after = text.encode().split(marker.encode(), 1)
        exchange.request.status = 200
        await exchange.send(head(len(before) + self.size + len(after), content_type=content_type) + before)
        chunk = b"x" * 65_536
        for done in range(0, self.size, len(chunk)):
            await exchange.send(chunk[: self.size - done])
        await exchange.send(after)


# What is no answer ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotJson(Behaviour):
    """Status 200 with a body that is no JSON, as a gateway in between may send it."""

    text: str = "<html><body>The upstream is away.</body></html>"
    content_type: str = "application/json"

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.whole(self.text, content_type=self.content_type))


@dataclass(frozen=True)
class OtherShape(Behaviour):
    """JSON, but not the protocol's."""

    body: Json = field(default_factory=lambda: {"ok": True, "result": 42})

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.whole(self.body))


@dataclass(frozen=True)
class EmptyChoices(Behaviour):
    """A well-formed answer that holds nothing: no choices, no output, no content."""

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.written(exchange.speaks.empty(exchange.render(Content("")))))


# A model that uses tools badly ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrongToolArguments(Behaviour):
    """Calls a tool (the first that works, else the one that takes the answer) with arguments of wrong types.

    `arguments` says which; a string is sent as it is. Without tools the text breaks the request's schema likewise.
    """

    tool: str | None = None
    arguments: Json | str | None = None
    tokens: Tokens | None = None

    def content(self, asked: Asked) -> Content:
        if not asked.tools:
            return Content(jsonlib.dumps(wrong(asked.schema or {})))
        tool = _named(asked, self.tool)
        arguments = wrong(tool.schema) if self.arguments is None else self.arguments
        return Content(calls=(ToolCall(tool.name, arguments),))

    async def play(self, exchange: Exchange) -> None:
        await exchange.send(exchange.said(self.content(exchange.asked), self.tokens))


@dataclass(frozen=True)
class UnknownTool(Behaviour):
    """Calls a tool that the request did not offer."""

    name: str = "no_such_tool"
    arguments: Json = field(default_factory=dict)

    async def play(self, exchange: Exchange) -> None:
        content = Content(calls=(ToolCall(self.name, self.arguments),))
        await exchange.send(exchange.said(content))


@dataclass(frozen=True)
class SameToolForEver(Behaviour):
    """Calls one tool with the same arguments each time it is asked, and never comes to an answer."""

    tool: str | None = None
    _: KW_ONLY
    times: int = FOREVER

    async def play(self, exchange: Exchange) -> None:
        content = Content(calls=(sensible_call(_named(exchange.asked, self.tool)),))
        await exchange.send(exchange.said(content))


def _event(event: Json) -> str:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {jsonlib.dumps(event)}\n\n"


def sensible_call(tool: Tool) -> ToolCall:
    """A call whose arguments the tool's schema allows."""
    return ToolCall(tool.name, plausible(tool.schema))


def structured(asked: Asked, value: Any) -> Content:  # noqa: ANN401 - JSON
    """A value, in the way that the request wants it: by the tool that takes the answer, or as JSON in a text."""
    if asked.schema is None and asked.output_tool is not None:
        return Content(calls=(ToolCall(asked.output_tool.name, value),))
    return Content(jsonlib.dumps(value))


def _named(asked: Asked, name: str | None) -> Tool:
    tools = (*asked.working_tools, *asked.tools)
    if name is None and tools:
        return tools[0]
    return next((tool for tool in tools if tool.name == name), Tool(name or "no_tool_was_offered", {}))


def _rendered(exchange: Exchange, answer: Says) -> Json:
    return exchange.render(answer.content(exchange.asked), answer.tokens)
