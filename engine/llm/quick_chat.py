"""OpenAI's client, without the part of it that costs most.

For each request the client walks through all types of all fields, to write some of them in other words than Python's.
What pydantic-ai hands it has the protocol's own words already: half of a request's time is saved. Everything else
(errors, time-outs, the connection) stays the client's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from openai import AsyncOpenAI, NotGiven, Omit, not_given
from openai._base_client import make_request_options
from openai.resources.chat.chat import AsyncChat
from openai.resources.chat.completions.completions import AsyncCompletions
from openai.types.chat import ChatCompletion


class QuickOpenAI(AsyncOpenAI):
    """`AsyncOpenAI`, quick in `chat.completions.create`."""

    @cached_property
    def chat(self) -> AsyncChat:
        return _Chat(self)


class _Chat(AsyncChat):
    @cached_property
    def completions(self) -> AsyncCompletions:
        return _Completions(self._client)


class _Completions(AsyncCompletions):
    async def create(self, **asked: Any) -> Any:  # noqa: ANN401 - the client's own are many
        if asked.get("stream"):
            return await super().create(**asked)
        headers, query, body = (asked.pop(f"extra_{part}", None) for part in ("headers", "query", "body"))
        timeout = asked.pop("timeout", not_given)
        return await self._post(
            "/chat/completions",
            body={name: value for name, value in asked.items() if not isinstance(value, Omit | NotGiven)},
            options=make_request_options(
                extra_headers=headers,
                extra_query=query,
                extra_body=body,
                timeout=timeout,
                security={"bearer_auth": True},
            ),
            cast_to=ChatCompletion,
        )
