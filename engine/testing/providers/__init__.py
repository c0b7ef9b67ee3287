"""A model provider that misbehaves on order: a real HTTP server on loopback, for tests of agents and their engine.

It speaks OpenAI's `/v1/chat/completions` and `/v1/responses` and Anthropic's `/v1/messages`, as one body or as a
stream. Use it with the real clients:

    with Provider([Status(429, retry_after=2), Cut(), Answer(json={"verdict": "low risk"})]) as provider:
        client = AsyncOpenAI(base_url=provider.openai_url, api_key="any", max_retries=0)      # first 429, then cut, ...
        other = AsyncAnthropic(base_url=provider.url, api_key="any", max_retries=0)           # one script for both
        ...
        assert provider.load().peak_at_once <= 8

**Without a script** it answers sensibly: it calls each tool that the request offers once, with arguments that the
tool's schema allows, then answers with what the request's JSON schema allows (or by pydantic-ai's output tool, or with
a sentence). `Provider(default=Plausible(turns=10))` makes an agent take ten tool calls.

**A script** is a list of behaviours, one a request, then the default again; or a function of each `Request`:

    Provider(lambda request: Status(529) if request.model == "big" else None)

| behaviour | what happens |
| --- | --- |
| `Answer(text)`, `Answer(json=...)`, `Answer(tools=[ToolCall(...)])` | that answer; `tokens=Tokens(input, output)` |
| `Status(code)` | an HTTP error: `retry_after=` seconds, `as_date=True`, `clock=` sets the server's clock wrong |
| `Refuse()`, `Refuse("content_filter")` | the model declines, or is filtered |
| `Cut()` | the connection ends in the middle: `after=` 0 to 1, `reset=True` |
| `Drip()` | byte by byte, `pause=` seconds apart |
| `Never()` | nothing until somebody closes |
| `Held()` | nothing until `provider.let_go()` |
| `NotJson()`, `OtherShape()`, `EmptyChoices()` | status 200, and no answer |
| `WrongToolArguments()`, `UnknownTool()`, `SameToolForEver()` | a model that uses its tools badly |
| `Huge()` | an answer of 50 MB |
| `TwoAnswers()` | two responses to one request; `"one body"`: two choices |

All take `delay=` (seconds) and `times=` (`FOREVER` is a number too). `provider.down()` refuses connections at the same
port until `provider.up()`.

**The log**: `provider.requests`, each with time, model, headers, messages, what it was charged and how many were in
hand; `provider.load(model, window)` adds them up and finds the peaks; `provider.wait_for(3)` waits for the third.

From another process: `python -m engine.testing.providers --delay 1` (see `__main__.py`).
"""

from engine.testing.providers.behaviour import (
    FOREVER,
    Answer,
    Behaviour,
    Cut,
    Drip,
    EmptyChoices,
    Held,
    Huge,
    Never,
    NotJson,
    OtherShape,
    Plausible,
    Refuse,
    SameToolForEver,
    Status,
    TwoAnswers,
    UnknownTool,
    WrongToolArguments,
)
from engine.testing.providers.protocol import Tokens, ToolCall
from engine.testing.providers.provider import Provider
from engine.testing.providers.request import Load, Request

__all__ = [
    "FOREVER",
    "Answer",
    "Behaviour",
    "Cut",
    "Drip",
    "EmptyChoices",
    "Held",
    "Huge",
    "Load",
    "Never",
    "NotJson",
    "OtherShape",
    "Plausible",
    "Provider",
    "Refuse",
    "Request",
    "SameToolForEver",
    "Status",
    "Tokens",
    "ToolCall",
    "TwoAnswers",
    "UnknownTool",
    "WrongToolArguments",
]
