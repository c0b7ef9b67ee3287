"""The clients of language models' providers. Needs the extra `longwatch[model]`.

One HTTP client for each model and its fallbacks, one SDK client for each provider's address and key, all made once per
worker. Failed attempts are the engine's to repeat, so that they are on the log: the clients make one.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final, cast

import httpx2
from anthropic import AnthropicError, AsyncAnthropic
from openai import OpenAIError
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model as Asked
from pydantic_ai.models import infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers import Provider, infer_provider
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from engine.core.steps import StepHalts
from engine.llm.errors import Asked as Who
from engine.llm.errors import classify
from engine.llm.model import (
    EMBEDDED_NAME,
    EMBEDDED_URL,
    EMBEDDED_URL_SETTING,
    Model,
    Output,
    key_variable,
)
from engine.llm.price import Price, cost_of, is_known
from engine.llm.quick_chat import QuickOpenAI
from engine.llm.scrubbing import hide

LONGEST_ANSWER: Final = 4 << 20
"""Bytes of one answer of a provider; what the log keeps of it is smaller still."""
TIMEOUT: Final = httpx2.Timeout(3600.0, connect=10.0, pool=None)
"""An attempt's own timeout is the step's."""
BUSY: Final = 8
"""Requests in one pool, before the next one is used. A pool looks at all its connections for each request, so many
small ones are quick with thousands of requests at once."""
CONNECTIONS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=15.0)
OUTAGES: Final = 3
"""So many without an answer between them, and a provider is down: its fallbacks are asked before it."""
PAUSES_S: Final = (1, 2, 4, 8, 16, 32, 60)
"""Before the next look whether it is back."""
ONE: Final = Decimal(1)
OPENAI: Final = frozenset({"openai", "openai-chat", "openai-responses"})


class AnswerTooLong(Exception):
    """A provider sends more than any answer may have."""


class Health:
    """Whether a model's provider serves, as far as this worker has seen."""

    def __init__(self) -> None:
        self._outages = 0
        self._until = 0.0

    @property
    def is_down(self) -> bool:
        """Not to be asked now, where there is another one to ask."""
        return time.monotonic() < self._until

    def failed(self) -> None:
        if self.is_down:  # of the many that were under way
            return
        self._outages += 1
        if self._outages >= OUTAGES:
            self._until = time.monotonic() + PAUSES_S[min(self._outages - OUTAGES, len(PAUSES_S) - 1)]

    def answered(self) -> None:
        self._outages, self._until = 0, 0.0


@dataclass(frozen=True)
class Candidate:
    """A model that can be asked."""

    who: Who
    asked: Asked
    settings: ModelSettings
    output: Output
    price: Price | None = None
    """What the application says it costs."""
    url: str | None = None
    """Where it is asked, if that is not where its provider is."""
    eur_per_usd: Decimal = ONE
    is_idempotent: bool = False
    """Whether its provider takes an `Idempotency-Key`."""
    health: Health = field(default_factory=Health)

    @property
    def provider(self) -> str:
        """As lists of prices name it."""
        return "openai" if self.who.provider in OPENAI else self.who.provider

    @property
    def has_price(self) -> bool:
        return is_known(provider=self.provider, model=self.asked.model_name, price=self.price, url=self.url)

    def cost(self, response: ModelResponse) -> int | None:
        """Millionths of a euro; None: nobody knows."""
        return cost_of(
            response.usage,
            provider=self.provider,
            model=response.model_name or self.asked.model_name,
            eur_per_usd=self.eur_per_usd,
            price=self.price,
            url=self.url,
        )


async def connected(
    name: str, model: Model, stack: AsyncExitStack, eur_per_usd: Decimal = ONE
) -> tuple[Candidate, ...]:
    """The model and its fallbacks; `stack` closes what was made.

    Raises:
        StepHalts: one of them cannot be asked from here, whatever is tried.
    """
    http = await stack.enter_async_context(http_client())
    key = os.environ.get(key_variable(name))
    made: list[Candidate] = []
    for one in model.candidates():
        setting = one.key_setting or (key_variable(name) if one is model and key else "")
        who = Who(name, one.name, setting)
        try:
            made.append(replace(_candidate(who, one, http), eur_per_usd=eur_per_usd))
        except (UserError, OpenAIError, AnthropicError, ImportError, ValueError) as error:
            raise StepHalts(classify(error, who).words) from error
    return tuple(made)


def candidate(who: Who, model: Model, asked: Asked) -> Candidate:
    """A model with the ways that suit it."""
    settings = cast("ModelSettings", dict(model.settings))
    by_itself: Output = (
        "held" if model.is_embedded else "native" if asked.profile.get("supports_json_schema_output", False) else "tool"
    )
    price = Price(0, 0) if model.is_embedded and model.price is None else model.price
    return Candidate(who, asked, settings, model.output or by_itself, price, model.base_url)


def _candidate(who: Who, model: Model, http: httpx2.AsyncClient) -> Candidate:
    key = _key(who) if who.key_setting else None
    if model.is_embedded:
        return replace(candidate(who, model, _embedded(model, key, http)), is_idempotent=True)
    asked = infer_model(model.name, lambda name: _provider(name, model.base_url, key, http))
    return replace(candidate(who, model, asked), is_idempotent=who.provider in OPENAI)


def _embedded(model: Model, key: str | None, http: httpx2.AsyncClient) -> Asked:
    """Any OpenAI-compatible server. It holds the model to the schema while it writes; nobody has to read the schema."""
    url = model.base_url or os.environ.get(EMBEDDED_URL_SETTING) or EMBEDDED_URL
    client = QuickOpenAI(base_url=url, api_key=key or "none", timeout=TIMEOUT, max_retries=0, http_client=http)
    name = model.name.partition(":")[2] or EMBEDDED_NAME
    return OpenAIChatModel(
        name,
        provider=OpenAIProvider(openai_client=client),
        profile=OpenAIModelProfile(supports_json_schema_output=True, openai_chat_supports_max_completion_tokens=False),
    )


def _provider(name: str, url: str | None, key: str | None, http: httpx2.AsyncClient) -> Provider[Any]:
    if name in OPENAI:
        if url and not key and not os.environ.get("OPENAI_API_KEY"):
            key = "none"  # a server of one's own that wants none
        openai = QuickOpenAI(base_url=url, api_key=key, timeout=TIMEOUT, max_retries=0, http_client=http)
        return OpenAIProvider(openai_client=openai)
    if name == "anthropic":
        anthropic = AsyncAnthropic(base_url=url, api_key=key, timeout=TIMEOUT, max_retries=0, http_client=http)
        if not anthropic.api_key and not anthropic.auth_token:
            raise UserError("set ANTHROPIC_API_KEY, or name the variable that holds the key in key_setting")
        return AnthropicProvider(anthropic_client=anthropic)
    if url or key:
        known = ", ".join((*sorted(OPENAI), "anthropic", "embedded"))
        raise UserError(f"base_url and a key of one's own go with {known}, not with {name}")
    return infer_provider(name)


def _key(who: Who) -> str:
    """The key that was said for this model.

    Raises:
        StepHalts: the variable that should hold it is empty.
    """
    key = os.environ.get(who.key_setting)
    if not key:
        raise StepHalts(f"{who}: the environment variable {who.key_setting} is to hold its key, and is empty; set it")
    hide(key)
    return key


# -- HTTP ----------------------------------------------------------------------------------------------------------


def http_client() -> httpx2.AsyncClient:
    """A client for thousands of requests at once, whose answers have an end."""
    hooks = {"response": [_bound]}
    if urllib.request.getproxies().keys() & {"http", "https", "all"}:
        return httpx2.AsyncClient(timeout=TIMEOUT, limits=CONNECTIONS, event_hooks=hooks, follow_redirects=True)
    return httpx2.AsyncClient(transport=_Pools(), timeout=TIMEOUT, event_hooks=hooks, follow_redirects=True)


async def _bound(response: httpx2.Response) -> None:
    response.stream = _Bounded(cast("httpx2.AsyncByteStream", response.stream))


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of an answer, up to the bound."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > LONGEST_ANSWER:
                raise AnswerTooLong(f"the answer has more than {LONGEST_ANSWER >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Pools(httpx2.AsyncBaseTransport):
    """Many pools of connections: the first that is not busy, so that a quiet worker uses the same ones again."""

    def __init__(self) -> None:
        self._context = httpx2.create_ssl_context()
        self._pools: list[_Pool] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        pool = next((pool for pool in self._pools if pool.busy < BUSY), None)
        if pool is None:
            pool = _Pool(httpx2.AsyncHTTPTransport(verify=self._context, limits=CONNECTIONS))
            self._pools.append(pool)
        return await pool.send(request)

    async def aclose(self) -> None:
        for pool in self._pools:
            await pool.transport.aclose()


class _Pool:
    def __init__(self, transport: httpx2.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.busy = 0

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        self.busy += 1
        try:
            response = await self.transport.handle_async_request(request)
        except BaseException:
            self.busy -= 1
            raise
        response.stream = _Counted(cast("httpx2.AsyncByteStream", response.stream), self)
        return response


class _Counted(httpx2.AsyncByteStream):
    """The bytes of an answer; its pool is told when they have been read."""

    def __init__(self, stream: httpx2.AsyncByteStream, pool: _Pool) -> None:
        self._stream, self._pool = stream, pool
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._pool.busy -= 1
        await self._stream.aclose()
