"""The client of the language model behind `assess_risk`: any provider's, or the one that model_server.py serves here.

`LONGWATCH_MODEL` names a provider's (`openai:gpt-5-mini`, `anthropic:claude-haiku-4-5`; its key is where the provider
wants it, such as `OPENAI_API_KEY`). Without it, `LONGWATCH_MODEL_URL` is where an OpenAI-compatible server listens.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from workflows.insurance_claim.answers import Asked
from workflows.insurance_claim.assessor import Ask, Examples
from workflows.insurance_claim.data import Assessment

URL_SETTING = "LONGWATCH_MODEL_URL"
DEFAULT_URL = "http://127.0.0.1:8931/v1"
TIMEOUT_S = 300
"""Of one request, its wait in a small server's queue included."""

AssessingAgent = Agent[None, Assessment]


@asynccontextmanager
async def connect(model: str, instructions: str, examples: Examples) -> AsyncIterator[Ask]:
    """Ask `model` (empty: the one served here), with its connections."""
    before = dialogue(examples)

    async def ask(question: str) -> Asked:
        began = time.perf_counter()
        result = await agent.run(question, message_history=before)
        return Asked(result.output, result.usage.requests, time.perf_counter() - began)

    if model:
        agent: AssessingAgent = Agent(model, output_type=Assessment, deps_type=type(None), instructions=instructions)
        agent.instrument = WITHOUT_CONTENT
        yield ask
        return
    # Failed attempts are the engine's to repeat, so that they are on the log: the client makes one.
    url = os.environ.get(URL_SETTING, DEFAULT_URL)
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT_S, max_retries=0) as client:
        agent = Agent(
            OpenAIChatModel("smollm2-135m", provider=OpenAIProvider(openai_client=client)),
            # The server holds the model to the schema while it writes; to read the schema would be too much for it.
            output_type=NativeOutput(Assessment, template=False),
            deps_type=type(None),
            instructions=instructions,
        )
        agent.instrument = WITHOUT_CONTENT
        yield ask


WITHOUT_CONTENT = InstrumentationSettings(include_content=False)
"""Customers' words belong into no trace, whoever turns tracing on."""


def dialogue(examples: Sequence[tuple[str, Assessment]]) -> list[ModelMessage]:
    """A talk that went before: a small model learns from it."""
    messages: list[ModelMessage] = []
    for question, answer in examples:
        messages.append(ModelRequest(parts=[UserPromptPart(content=question)]))
        # With blanks between the parts, as models write JSON: without them the small one gives one verdict on all.
        messages.append(ModelResponse(parts=[TextPart(content=json.dumps(answer.model_dump()))]))
    return messages
