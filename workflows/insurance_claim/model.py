"""The language model behind `assess_risk`: any provider's, or the small one that model_server.py serves here.

`LONGWATCH_MODEL` names a provider's (`openai:gpt-5-mini`, `anthropic:claude-haiku-4-5`; its key is where the provider
wants it, such as `OPENAI_API_KEY`). Without it, `LONGWATCH_MODEL_URL` is where an OpenAI-compatible server listens.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from openai import AsyncOpenAI
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from workflows.insurance_claim.data import Assessment

MODEL_SETTING = "LONGWATCH_MODEL"
URL_SETTING = "LONGWATCH_MODEL_URL"
DEFAULT_URL = "http://127.0.0.1:8931/v1"
TIMEOUT_S = 300
"""Of one request, its wait in a small server's queue included."""

AssessingAgent = Agent[None, Assessment]


@asynccontextmanager
async def open_agent(instructions: str) -> AsyncIterator[AssessingAgent]:
    """The agent that the environment asks for, with its connections."""
    if name := os.environ.get(MODEL_SETTING):
        yield _without_content(Agent(name, output_type=Assessment, deps_type=type(None), instructions=instructions))
        return
    url = os.environ.get(URL_SETTING, DEFAULT_URL)
    # Failed attempts are the engine's to repeat, so they are on the log: the client makes one.
    async with AsyncOpenAI(base_url=url, api_key="none", timeout=TIMEOUT_S, max_retries=0) as client:
        model = OpenAIChatModel("smollm2-135m", provider=OpenAIProvider(openai_client=client))
        # The server holds the model to the schema while it writes; to read the schema would be too much for it.
        output = NativeOutput(Assessment, template=False)
        yield _without_content(Agent(model, output_type=output, deps_type=type(None), instructions=instructions))


def dialogue(examples: Sequence[tuple[str, Assessment]]) -> list[ModelMessage]:
    """Questions with the answers that are wanted, as a talk that went before: a small model learns from it."""
    messages: list[ModelMessage] = []
    for question, answer in examples:
        messages.append(ModelRequest(parts=[UserPromptPart(content=question)]))
        messages.append(ModelResponse(parts=[TextPart(content=answer.model_dump_json())]))
    return messages


def _without_content(agent: AssessingAgent) -> AssessingAgent:
    """A customer's words belong into no trace, whoever turns tracing on."""
    agent.instrument = InstrumentationSettings(include_content=False)
    return agent
