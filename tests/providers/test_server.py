"""The server as the real clients see it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel, Field, TypeAdapter
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.usage import UsageLimits

from engine.testing.providers import (
    FOREVER,
    Answer,
    Behaviour,
    Cut,
    Drip,
    EmptyChoices,
    Held,
    Huge,
    Load,
    Never,
    NotJson,
    OtherShape,
    Plausible,
    Provider,
    Refuse,
    Request,
    SameToolForEver,
    Status,
    Tokens,
    ToolCall,
    TwoAnswers,
    UnknownTool,
    WrongToolArguments,
)
from engine.testing.providers.plausible import plausible, wrong
from engine.testing.providers.protocol import Asked

PROTOCOLS = ["chat", "responses", "anthropic"]
TLS = httpx2.create_ssl_context()
"""Made once: it takes longer than a test."""
QUESTION: list[Any] = [{"role": "user", "content": "Is it safe?"}]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
async def open_ai(provider: Provider) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx2.AsyncClient(verify=TLS)
    async with openai.AsyncOpenAI(
        base_url=provider.openai_url, api_key="sk-test", max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture
async def claude(provider: Provider) -> AsyncIterator[anthropic.AsyncAnthropic]:
    http = httpx2.AsyncClient(verify=TLS)
    async with anthropic.AsyncAnthropic(
        base_url=provider.url, api_key="sk-test", max_retries=0, http_client=http
    ) as client:
        yield client


async def chat(client: openai.AsyncOpenAI, **more: Any) -> Any:
    return await client.chat.completions.create(model="gpt-test", messages=QUESTION, **more)


async def message(client: anthropic.AsyncAnthropic, **more: Any) -> Any:
    return await client.messages.create(model="claude-test", max_tokens=100, messages=QUESTION, **more)


# A request and its account --------------------------------------------------------------------------------------------


async def test_openai_gets_the_text_and_the_tokens_of_the_script(
    provider: Provider, open_ai: openai.AsyncOpenAI
) -> None:
    provider.script = [Answer("It is.", tokens=Tokens(input=70, output=3, cached=20))]
    answer = await chat(open_ai)

    assert answer.choices[0].message.content == "It is."
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (70, 3)
    assert answer.usage.prompt_tokens_details.cached_tokens == 20
    assert answer._request_id == "req_1"


async def test_openai_responses_get_the_text_of_the_script(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    provider.script = [Answer("It is.", tokens=Tokens(input=70, output=3))]
    answer = await open_ai.responses.create(model="gpt-test", input="Is it safe?")

    assert answer.output_text == "It is."
    assert answer.usage is not None
    assert answer.usage.total_tokens == 73


async def test_anthropic_gets_the_text_and_the_tokens_of_the_script(
    provider: Provider, claude: anthropic.AsyncAnthropic
) -> None:
    provider.script = [Answer("It is.", tokens=Tokens(input=70, output=3, cached=20))]
    answer = await message(claude)

    assert answer.content[0].text == "It is."
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens) == (50, 20)
    assert answer.stop_reason == "end_turn"


async def test_the_log_says_who_asked_what_and_what_it_was_charged(
    provider: Provider, open_ai: openai.AsyncOpenAI
) -> None:
    provider.script = [Answer("It is.", tokens=Tokens(input=70, output=3)), Status(500)]
    await chat(open_ai, extra_headers={"Idempotency-Key": "call-7"})
    with pytest.raises(openai.InternalServerError):
        await chat(open_ai)
    first, second = provider.requests

    assert (first.number, first.model, first.protocol) == (1, "gpt-test", "openai-chat")
    assert first.asked.messages == QUESTION
    assert first.idempotency_key == "call-7"
    assert (first.outcome, first.status, first.tokens.total) == ("answered", 200, 73)
    assert (second.behaviour, second.status, second.tokens.total) == ("Status", 500, 0)
    assert provider.load().tokens == provider.load("gpt-test").tokens == 73
    assert provider.load("another").requests == 0


async def test_a_script_is_a_function_of_the_request_too(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    provider.script = lambda request: Answer(f"No. {request.number}") if request.number < 3 else None
    answers = [(await chat(open_ai)).choices[0].message.content for _ in range(3)]

    assert answers == ["No. 1", "No. 2", "A plausible answer of gpt-test."]


async def test_a_behaviour_stands_as_often_as_it_says(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    provider.script = [Status(500, times=2), Answer("Back.")]
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await chat(open_ai)

    assert (await chat(open_ai)).choices[0].message.content == "Back."


async def test_what_is_at_once_is_counted_with_its_peak(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    provider.script = [Held(times=3)]
    asking = [asyncio.create_task(chat(open_ai)) for _ in range(3)]
    await asyncio.to_thread(provider.wait_for, 3)
    provider.let_go()
    await asyncio.gather(*asking)
    await chat(open_ai)
    load = provider.load(window=FOREVER)

    assert [request.at_once for request in provider.requests] == [1, 2, 3, 1]
    assert (load.requests, load.peak_at_once, load.peak_requests) == (4, 3, 4)
    assert provider.stats()["peak_at_once"] == 3


def test_peaks_are_found_in_windows_that_slide() -> None:
    def request(began: float, ended: float, tokens: int) -> Request:
        asked = Asked("gpt-test", [])
        spent = Tokens(input=tokens)
        return Request(0, 0, began, "openai-chat", {}, {}, asked, 0, ended=ended, tokens=spent)

    load = Load.of([request(0, 59, 5), request(59, 61, 5), request(60, 70, 7), request(119, 130, 1)])

    assert load == Load(requests=4, tokens=18, peak_at_once=2, peak_requests=2, peak_tokens=12)


async def test_a_request_of_another_shape_is_refused_with_words(provider: Provider) -> None:
    async with httpx2.AsyncClient(base_url=provider.url) as client:
        bad = await client.post("/v1/messages", json={"model": "claude-test"})
        lost = await client.post("/v2/messages", json={})
        text = await client.post("/v1/messages", content=b"{")

    assert (bad.status_code, lost.status_code, text.status_code) == (400, 404, 400)
    assert "no request of anthropic" in bad.text
    assert "POST /v1/messages" in lost.text


async def test_a_script_that_fails_says_so(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    def broken(_: object) -> Behaviour:
        raise ZeroDivisionError

    provider.script = broken

    with pytest.raises(openai.InternalServerError, match="ZeroDivisionError"):
        await chat(open_ai)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "of_openai", "of_anthropic"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError),
        (401, openai.AuthenticationError, anthropic.AuthenticationError),
        (404, openai.NotFoundError, anthropic.NotFoundError),
        (429, openai.RateLimitError, anthropic.RateLimitError),
        (500, openai.InternalServerError, anthropic.InternalServerError),
        (529, openai.InternalServerError, anthropic.InternalServerError),
    ],
)
async def test_a_status_is_an_error_of_the_client(
    provider: Provider,
    open_ai: openai.AsyncOpenAI,
    claude: anthropic.AsyncAnthropic,
    code: int,
    of_openai: type[Exception],
    of_anthropic: type[Exception],
) -> None:
    provider.script = [Status(code, times=2, message="told so")]

    with pytest.raises(of_openai, match="told so"):
        await chat(open_ai)
    with pytest.raises(of_anthropic, match="told so"):
        await message(claude)


async def test_the_body_names_the_kind_of_error(
    provider: Provider, open_ai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    provider.script = [Status(429, kind="insufficient_quota"), Status(529)]
    with pytest.raises(openai.RateLimitError) as of_openai:
        await chat(open_ai)
    with pytest.raises(anthropic.APIStatusError) as of_anthropic:
        await message(claude)

    assert of_openai.value.code == "insufficient_quota"
    assert of_anthropic.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index] # it is an object


async def test_retry_after_comes_in_seconds_as_a_date_and_by_a_wrong_clock(
    provider: Provider, open_ai: openai.AsyncOpenAI
) -> None:
    ahead = timedelta(hours=5)
    provider.script = [
        Status(429),
        Status(429, retry_after=7),
        Status(429, retry_after=7, as_date=True),
        Status(429, retry_after=7, as_date=True, clock=ahead),
    ]
    headers = []
    for _ in range(4):
        with pytest.raises(openai.RateLimitError) as caught:
            await chat(open_ai)
        headers.append(caught.value.response.headers)
    dates = [(parsedate_to_datetime(each["retry-after"]), parsedate_to_datetime(each["date"])) for each in headers[2:]]

    assert "retry-after" not in headers[0]
    assert headers[1]["retry-after"] == "7"
    assert all(timedelta(seconds=6) <= due - now <= timedelta(seconds=8) for due, now in dates)
    assert dates[1][1] - dates[0][1] >= ahead - timedelta(seconds=1)


async def test_a_refusal_and_a_filter_are_told_apart_where_the_protocol_does(
    provider: Provider, open_ai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    provider.script = [Refuse(), Refuse("content_filter"), Refuse(), Refuse("content_filter"), Refuse()]
    refused, filtered = await chat(open_ai), await chat(open_ai)
    said = await open_ai.responses.create(model="gpt-test", input="Is it safe?")
    stopped = await open_ai.responses.create(model="gpt-test", input="Is it safe?")
    declined = await message(claude)

    assert refused.choices[0].message.refusal == "I cannot help with that."
    assert filtered.choices[0].finish_reason == "content_filter"
    assert said.output[0].content[0].type == "refusal"  # type: ignore[union-attr,index] # a message
    assert stopped.incomplete_details is not None
    assert stopped.incomplete_details.reason == "content_filter"
    assert declined.stop_reason == "refusal"


# A connection that breaks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_is_a_connection_error_and_charged(
    provider: Provider, open_ai: openai.AsyncOpenAI, after: float, reset: bool
) -> None:
    provider.script = [Cut(after, reset=reset, answer=Answer("half", tokens=Tokens(9, 1)))]
    with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
        await chat(open_ai)

    assert provider.requests[0].outcome == "cut"
    assert provider.requests[0].tokens.total == 10
    assert (await chat(open_ai)).choices


async def test_an_answer_comes_byte_by_byte_and_whole(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    provider.script = [Drip(answer=Answer("Slowly."))]

    assert (await chat(open_ai)).choices[0].message.content == "Slowly."


async def test_never_an_answer_ends_when_the_client_goes(provider: Provider, claude: anthropic.AsyncAnthropic) -> None:
    provider.script = [Never()]
    asking = asyncio.create_task(message(claude))
    await asyncio.to_thread(provider.wait_for, 1)
    asking.cancel()
    await message(claude)

    assert [request.behaviour for request in provider.requests] == ["Never", "Plausible"]


async def test_never_an_answer_ends_with_the_server() -> None:
    with Provider([Never()]) as provider:
        async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="sk-test", max_retries=0) as claude:
            asking = asyncio.create_task(message(claude))
            await asyncio.to_thread(provider.wait_for, 1)
            provider.close()
            with pytest.raises(anthropic.APIConnectionError):
                await asking

    assert provider.requests[0].outcome == "cut"


async def test_a_provider_that_is_down_refuses_and_comes_back_at_the_same_port(
    provider: Provider, open_ai: openai.AsyncOpenAI
) -> None:
    await chat(open_ai)
    provider.down()
    for _ in range(2):
        with pytest.raises(openai.APIConnectionError):
            await chat(open_ai)
    provider.up()

    assert (await chat(open_ai)).choices
    assert len(provider.requests) == 2


async def test_what_is_in_hand_is_broken_off_when_the_provider_goes_down(
    provider: Provider, open_ai: openai.AsyncOpenAI
) -> None:
    provider.script = [Never()]
    asking = asyncio.create_task(chat(open_ai))
    await asyncio.to_thread(provider.wait_for, 1)
    provider.down()
    with pytest.raises(openai.APIConnectionError):
        await asking

    assert provider.requests[0].outcome == "cut"


# Answers that are none ------------------------------------------------------------------------------------------------


async def test_what_is_no_json_reaches_the_client_as_such(provider: Provider, open_ai: openai.AsyncOpenAI) -> None:
    provider.script = [NotJson(), NotJson(content_type="text/html")]
    with pytest.raises(json.JSONDecodeError):
        await chat(open_ai)

    assert "upstream" in await chat(open_ai)


async def test_other_shapes_and_empty_answers_reach_the_client(
    provider: Provider, open_ai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    provider.script = [OtherShape(), EmptyChoices(), EmptyChoices()]

    assert (await chat(open_ai)).choices is None
    assert (await chat(open_ai)).choices == []
    assert (await message(claude)).content == []


async def test_a_huge_answer_is_as_long_as_it_says(provider: Provider, claude: anthropic.AsyncAnthropic) -> None:
    provider.script = [Huge(size=300_001)]

    assert len((await message(claude)).content[0].text) == 300_001


async def test_a_client_that_hangs_up_ends_a_huge_answer(provider: Provider) -> None:
    provider.script = [Huge()]
    body = {"model": "claude-test", "max_tokens": 1, "messages": QUESTION}
    async with httpx2.AsyncClient() as client:
        async with client.stream("POST", f"{provider.url}/v1/messages", json=body) as answer:
            length = int(answer.headers["content-length"])
            await anext(answer.aiter_bytes(1000))
        await client.post(f"{provider.url}/v1/messages", json=body)

    assert length > 50_000_000
    assert [request.behaviour for request in provider.requests] == ["Huge", "Plausible"]


async def test_the_second_response_to_a_request_is_the_answer_to_the_next_one_for_who_does_not_look(
    provider: Provider, open_ai: openai.AsyncOpenAI
) -> None:
    provider.script = [TwoAnswers(first=Answer("one"), second=Answer("two")), Answer("three")]
    answers = [await chat(open_ai) for _ in range(2)]

    assert [answer.choices[0].message.content for answer in answers] == ["one", "two"]
    assert [answer._request_id for answer in answers] == ["req_1", "req_1"]


async def test_two_answers_may_stand_in_one_body(
    provider: Provider, open_ai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    provider.script = [TwoAnswers("one body", times=3)]
    chosen = await chat(open_ai)
    put_out = await open_ai.responses.create(model="gpt-test", input="Is it safe?")
    said = await message(claude)

    assert len(chosen.choices) == len(put_out.output) == len(said.content) == 2


# Tools and schemas, as an agent sees them -----------------------------------------------------------------------------


class Place(BaseModel):
    street: str = Field(max_length=30)
    inner: Place | None = None


class Report(BaseModel):
    verdict: Literal["low risk", "needs a person"]
    score: float = Field(gt=0, lt=1)
    count: int = Field(ge=7, multiple_of=5)
    amount: Decimal
    day: date
    at: datetime
    id: UUID
    place: Place
    tags: tuple[str, int]
    names: list[str] = Field(min_length=2)
    by_name: dict[str, int]
    fine: bool
    nothing: None
    either: int | str
    note: str = "as given"


def test_a_schema_is_filled_with_what_it_allows_and_the_same_each_time() -> None:
    schema = Report.model_json_schema()
    report = Report.model_validate(plausible(schema))

    assert report.verdict == "low risk"
    assert 0 < report.score < 1
    assert (report.count, report.note, len(report.names)) == (10, "as given", 2)
    assert plausible(schema) == plausible(schema)


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [
        (int, {"gt": 1}),
        (int, {"lt": 1}),
        (int, {"ge": -3, "le": -3}),
        (int, {"gt": -8, "lt": -6}),
        (int, {"le": -20}),
        (int, {"ge": 99}),
        (float, {"gt": 0, "lt": 0.1}),
        (float, {"ge": 2.25, "le": 2.4}),
    ],
    ids=str,
)
def test_numbers_keep_their_bounds(kind: type, bounds: dict[str, Any]) -> None:
    adapter: TypeAdapter[float] = TypeAdapter(Annotated[kind, Field(**bounds)])  # type: ignore[arg-type] # made here
    value = plausible(adapter.json_schema())

    assert adapter.validate_python(value, strict=True) == value


def test_wrong_values_are_of_other_types() -> None:
    class Simple(BaseModel):
        text: str
        count: int

    assert wrong(Simple.model_json_schema()) == {"text": {"not": "a string"}, "count": "not a number"}


Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
async def ask(
    protocol: str, open_ai: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> Callable[..., Awaitable[Any]]:
    """An agent that speaks one of the protocols."""
    model: Model
    if protocol == "anthropic":
        model = AnthropicModel("claude-opus-5", provider=AnthropicProvider(anthropic_client=claude))
    else:
        kind = OpenAIChatModel if protocol == "chat" else OpenAIResponsesModel
        model = kind("gpt-5-mini", provider=OpenAIProvider(openai_client=open_ai))

    async def ask(output: Any, **more: Any) -> Any:
        agent: Agent[None, Any] = Agent(model, output_type=output, tools=[weather_on, similar_claims])
        return await agent.run("Is it safe?", **more)

    return ask


def weather_on(day: date) -> str:
    """The weather of a day."""
    return f"rain on {day}"


def similar_claims(text: str, most: int) -> list[str]:
    """Claims like this one."""
    return [text] * most


class Verdict(BaseModel):
    low_risk: bool
    reason: str


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("output", [Verdict, NativeOutput(Verdict)], ids=["tool", "native"])
async def test_an_agent_runs_without_a_script(provider: Provider, ask: Ask, output: Any) -> None:
    result = await ask(output)

    assert result.output == Verdict(low_risk=True, reason="a plausible reason")
    assert [request.asked.called[-1:] for request in provider.requests] == [(), ("weather_on",), ("similar_claims",)]
    assert result.usage.total_tokens == provider.load().tokens


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_agent_takes_as_many_turns_as_it_is_told(provider: Provider, ask: Ask) -> None:
    provider.default = Plausible(turns=9)
    await ask(Verdict)

    assert len(provider.requests) == 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("output", [Verdict, NativeOutput(Verdict)], ids=["tool", "native"])
async def test_a_scripted_agent_calls_tools_and_answers_in_json(provider: Provider, ask: Ask, output: Any) -> None:
    verdict = Verdict(low_risk=False, reason="it burns")
    provider.script = [Answer("A look.", tools=[ToolCall("weather_on", {"day": "2026-03-14"})]), Answer(json=verdict)]
    result = await ask(output)

    assert result.output == verdict
    assert "rain on 2026-03-14" in json.dumps(provider.requests[1].body)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("misuse", [WrongToolArguments(), UnknownTool(), WrongToolArguments(arguments="{not json")])
async def test_an_agent_is_told_of_its_mistake_and_goes_on(provider: Provider, ask: Ask, misuse: Behaviour) -> None:
    provider.script = [misuse]
    result = await ask(Verdict)

    assert result.output.low_risk
    assert len(provider.requests) >= 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_same_tool_is_called_for_ever(provider: Provider, ask: Ask) -> None:
    provider.script = [SameToolForEver("similar_claims")]
    with pytest.raises(UsageLimitExceeded, match="request_limit"):
        await ask(Verdict, usage_limits=UsageLimits(request_limit=7))

    assert provider.requests[-1].asked.called == ("similar_claims",) * 6


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_an_agent_may_ask_for_a_stream(provider: Provider, ask: Ask) -> None:
    async def look(_: Any, events: AsyncIterable[Any]) -> None:
        seen.extend([type(event).__name__ async for event in events])

    seen: list[str] = []
    provider.script = [Answer("A look.", tools=[ToolCall("weather_on", {"day": "2026-03-14"})], tokens=Tokens(9, 4))]
    result = await ask(Verdict, event_stream_handler=look)

    assert result.output.low_risk
    assert all(request.asked.stream for request in provider.requests)
    assert {"PartStartEvent", "FunctionToolResultEvent"} <= set(seen)
    assert result.usage.total_tokens == provider.load().tokens


# A process of its own -------------------------------------------------------------------------------------------------


def test_the_command_serves_until_its_input_ends() -> None:
    command = [sys.executable, "-m", "engine.testing.providers", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        body = {"model": "gpt-test", "messages": QUESTION}
        answer = httpx2.post(f"{said['openai_url']}/chat/completions", json=body)
        stats = httpx2.get(f"{said['url']}/stats").json()
        last, _ = process.communicate("")

    assert answer.json()["choices"]
    assert stats["requests"] == json.loads(last)["requests"] == 1
    assert process.returncode == 0


def test_the_command_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "engine.testing.providers"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        last = process.stdout.readline()

    assert json.loads(last)["requests"] == 0
    assert process.returncode == 0
