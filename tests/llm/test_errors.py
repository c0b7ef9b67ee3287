"""Every fault of the provider, through the real clients: its class, its words, how long to wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import (
    ContentFilterError,
    IncompleteToolCall,
    ModelHTTPError,
    ModelRequestRejectedError,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from engine.llm.connections import AnswerTooLong, http_client
from engine.llm.errors import Asked, Outcome, classify, judge, retry_after
from tests.providers import (
    Answer,
    Behaviour,
    Cut,
    EmptyChoices,
    Huge,
    Never,
    NotJson,
    OtherShape,
    Provider,
    Refuse,
    Status,
)

KEY = "unheard-of-key-83f1"
ASKED = Asked("claims-assessor", "openai:gpt-5-mini")
TLS = httpx2.create_ssl_context()
"""Made once: it takes longer than a test."""
QUESTION = [ModelRequest.user_text_prompt("Is it safe?")]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture(params=["chat", "responses", "anthropic", "anthropic-stream"])
async def model(provider: Provider, request: pytest.FixtureRequest) -> AsyncIterator[Model]:
    """pydantic-ai streams where a model of Anthropic has no `max_tokens`."""
    async with httpx2.AsyncClient(verify=TLS) as http:
        of_openai = openai.AsyncOpenAI(base_url=provider.openai_url, api_key=KEY, max_retries=0, http_client=http)
        claude = anthropic.AsyncAnthropic(base_url=provider.url, api_key=KEY, max_retries=0, http_client=http)
        match request.param:
            case "chat":
                yield OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(openai_client=of_openai))
            case "responses":
                yield OpenAIResponsesModel("gpt-5-mini", provider=OpenAIProvider(openai_client=of_openai))
            case streamed:
                settings: Any = {} if streamed == "anthropic-stream" else {"max_tokens": 100}
                yield AnthropicModel(
                    "claude-opus-5", provider=AnthropicProvider(anthropic_client=claude), settings=settings
                )


def _short(value: Any) -> str:
    """The id of a case: what is said of a behaviour."""
    if not isinstance(value, Behaviour):
        return str(value)
    said = [repr(getattr(value, each.name)) for each in fields(value) if getattr(value, each.name) != each.default]
    return f"{type(value).__name__}({', '.join(said)})"[:60]


async def outcome(model: Model, failures: int = 0, seconds: float = 30) -> Outcome:
    """Of one request that must not be answered."""
    try:
        response = await model_request(model, QUESTION, model_settings={"timeout": seconds})
    except Exception as error:  # noqa: BLE001 (any of them)
        return classify(error, ASKED, failures=failures)
    judged = judge(response, ASKED)
    assert judged is not None, response
    return judged


@pytest.mark.parametrize(
    ("behaviour", "kind", "name"),
    [
        (Status(429), "wait", "RateLimited"),
        (Status(500), "wait", "ProviderFailed"),
        (Status(502, body="<html>Bad gateway</html>"), "wait", "ProviderFailed"),
        (Status(503), "wait", "ProviderUnavailable"),
        (Status(529), "wait", "ProviderOverloaded"),
        (Status(408), "wait", "TimedOut"),
        (Status(409), "wait", "ProviderBusy"),
        (Cut(0), "wait", "ConnectionFailed"),
        (Cut(0.05), "wait", "ConnectionFailed"),
        (Cut(0.5), "wait", "ConnectionFailed"),
        (Cut(0.95, reset=True), "wait", "ConnectionFailed"),
        (Status(402), "fallback", "QuotaSpent"),
        (Status(429, kind="insufficient_quota"), "fallback", "QuotaSpent"),
        (Status(400, message="Your credit balance is too low to use this API."), "fallback", "QuotaSpent"),
        (Status(404), "fallback", "ModelNotFound"),
        (Status(413), "fallback", "QuestionTooLong"),
        (Status(400, message="prompt is too long: 300000 tokens"), "fallback", "QuestionTooLong"),
        (Status(400, kind="content_policy_violation"), "refused", "ContentRefused"),
        (Refuse(), "refused", "ContentRefused"),
        (Refuse("content_filter"), "refused", "ContentRefused"),
        (Status(400), "halt", "RequestRefused"),
        (Status(422), "halt", "RequestRefused"),
        (Status(401), "halt", "KeyRefused"),
        (Status(403), "halt", "KeyRefused"),
        (EmptyChoices(), "invalid", {"EmptyAnswer", "AnswerInvalid"}),
    ],
    ids=_short,
)
async def test_a_fault_has_its_class(
    provider: Provider, model: Model, behaviour: Behaviour, kind: str, name: str | set[str]
) -> None:
    provider.script = [behaviour]
    found = await outcome(model)

    assert (found.kind, found.name) == (kind, name) if isinstance(name, str) else found.name in name
    assert "'claims-assessor' (openai:gpt-5-mini)" in found.words


@pytest.mark.parametrize(
    "behaviour",
    [
        NotJson(),
        NotJson(content_type="text/html"),
        OtherShape(),
        OtherShape({"error": "not here"}),
        Status(200, body="[]"),
        Status(200, body="null"),
        Status(200, body=""),
    ],
    ids=_short,
)
async def test_an_answer_of_another_shape_is_no_answer_and_no_crash(
    provider: Provider, model: Model, behaviour: Behaviour
) -> None:
    """Which of the two it is depends on how far a client reads it: both are tried again, a bounded number of times."""
    provider.script = [behaviour]
    found = await outcome(model)

    assert found.name in {"AnswerUnreadable", "AnswerInvalid", "EmptyAnswer"}
    assert not found.is_outage


async def test_an_answer_without_end_is_bounded_by_the_engines_own_client(provider: Provider) -> None:
    provider.script = [Huge()]
    async with http_client() as http:
        client = openai.AsyncOpenAI(base_url=provider.openai_url, api_key=KEY, max_retries=0, http_client=http)
        found = await outcome(OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(openai_client=client)))

    assert (found.kind, found.name) == ("invalid", "AnswerTooLong")


async def test_no_answer_in_time(provider: Provider, model: Model) -> None:
    provider.script = [Never()]

    assert (await outcome(model, seconds=0.2)).name == "TimedOut"


async def test_a_refused_connection(provider: Provider, model: Model) -> None:
    provider.down()
    found = await outcome(model)

    assert (found.kind, found.name, found.is_outage) == ("wait", "ConnectionFailed", True)


async def test_an_answer_is_one(provider: Provider, model: Model) -> None:
    provider.script = [Answer("It is.")]

    assert judge(await model_request(model, QUESTION), ASKED) is None


async def test_a_provider_that_stays_overloaded_is_given_up_for_another(provider: Provider, model: Model) -> None:
    provider.script = [Status(529, retry_after=9)]
    found = await outcome(model, failures=3)

    assert (found.kind, found.wait_seconds) == ("fallback", 9)
    assert found.without_fallback().kind == "wait"


# Retry-After ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "least", "most"),
    [
        (Status(429, retry_after=7), 7, 7),
        (Status(503, retry_after=7), 7, 7),
        (Status(429, retry_after=7, as_date=True), 6, 8),
        (Status(429, retry_after=7, as_date=True, clock=timedelta(hours=5)), 6, 8),
        (Status(429, retry_after=7, as_date=True, clock=timedelta(days=-400)), 6, 8),
        (Status(429, retry_after=90_000), 3600, 3600),
        (Status(429, retry_after=-60, as_date=True), 0, 0),
    ],
    ids=_short,
)
async def test_the_wait_is_what_the_provider_asks_for_whatever_its_clock_says(
    provider: Provider, model: Model, behaviour: Behaviour, least: float, most: float
) -> None:
    provider.script = [behaviour]
    found = await outcome(model)

    assert found.wait_seconds is not None
    assert least <= found.wait_seconds <= most


async def test_a_provider_that_does_not_say_leaves_the_wait_open(provider: Provider, model: Model) -> None:
    provider.script = [Status(429)]

    assert (await outcome(model)).wait_seconds is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "3"}, 3),
        ({"retry-after": " 0 "}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "NaN"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "999999999"}, 3600),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": "Sun, 22 Nov 2026 11:59:50 GMT"}, 40),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT", "date": "nonsense"}, 30),
        ({"retry-after": "Sunday, 22-Nov-26 12:00:30 GMT"}, 30),
        ({"retry-after": "Sun Nov 22 12:00:30 2026"}, 30),
    ],
    ids=str,
)
def test_a_header_is_read_or_says_nothing(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)) == seconds


# Words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (401, "set OPENAI_API_KEY to"),
        (404, "LONGWATCH_MODEL_CLAIMS_ASSESSOR"),
        (402, "top it up"),
        (413, "give the step less to read"),
        (400, "see that the settings of Model('openai:gpt-5-mini')"),
    ],
)
def test_an_operator_is_told_who_what_and_what_to_do(status: int, mend: str) -> None:
    error = ModelHTTPError(status, "gpt-5-mini", {"message": "told to fail"})
    found = classify(error, ASKED).without_fallback()

    assert found.kind == "halt"
    assert found.words.startswith("model 'claims-assessor' (openai:gpt-5-mini): ")
    assert f"{status}: told to fail" in found.words
    assert mend in found.words


def test_the_setting_of_the_key_is_the_one_that_was_used() -> None:
    error = ModelHTTPError(401, "gpt-5-mini", None)

    assert "set OUR_KEY to" in classify(error, Asked("a", "openai-chat:x", "OUR_KEY")).words
    assert "set OPENAI_API_KEY to" in classify(error, Asked("a", "openai-chat:x")).words
    assert "set ANTHROPIC_API_KEY to" in classify(error, Asked("a", "anthropic:x")).words


async def test_a_key_that_the_provider_repeats_is_in_no_words(
    provider: Provider, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = f"key {KEY} is bad; Authorization: Bearer {KEY}; see https://me:{KEY}@host/?key={KEY}"
    provider.script = [
        Status(401, message=said),
        Status(500, body=said),
        Status(400, body={"error": said}),
        NotJson(said, content_type="text/plain"),
        Refuse(words=said),
        OtherShape({"key": KEY, "choices": KEY, "output": KEY, "content": KEY}),
    ]
    words = [(await outcome(model)).words for _ in range(6)]

    assert KEY not in " ".join(words)


def test_somebody_elses_words_are_short_on_one_line_and_move_no_terminal() -> None:
    error = ModelHTTPError(400, "gpt-5-mini", {"message": "one\r\ntwo\x1b[2J\x07" + "x" * 10_000})
    words = classify(error, ASKED).words

    assert "one two [2J" in words
    assert words.isprintable()
    assert len(words) < 700


# Errors that come another way -----------------------------------------------------------------------------------------


def _of_httpx(status: int) -> httpx2.HTTPStatusError:
    request = httpx2.Request("POST", "https://example.org")
    return httpx2.HTTPStatusError("", request=request, response=httpx2.Response(status, request=request))


def _of_sdk(kind: Any, status: int, body: Any) -> Exception:
    response = httpx2.Response(status, headers={"retry-after": "4"}, request=httpx2.Request("POST", "https://a.org"))
    error: Exception = kind("no", response=response, body=body)
    return error


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


REQUEST = httpx2.Request("POST", "https://example.org")


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (TimeoutError(), "wait", "TimedOut"),
        (httpx2.ReadTimeout(""), "wait", "TimedOut"),
        (openai.APITimeoutError(request=REQUEST), "wait", "TimedOut"),
        (anthropic.APITimeoutError(request=REQUEST), "wait", "TimedOut"),
        (httpx2.ConnectError("no route"), "wait", "ConnectionFailed"),
        (httpx2.RemoteProtocolError("peer closed"), "wait", "ConnectionFailed"),
        (ConnectionRefusedError(111, "refused"), "wait", "ConnectionFailed"),
        (openai.APIConnectionError(request=REQUEST), "wait", "ConnectionFailed"),
        (anthropic.APIConnectionError(request=REQUEST), "wait", "ConnectionFailed"),
        (_caused(openai.APIConnectionError(request=REQUEST), AnswerTooLong("4 MiB")), "invalid", "AnswerTooLong"),
        (_of_httpx(503), "wait", "ProviderUnavailable"),
        (_of_httpx(401), "halt", "KeyRefused"),
        (_of_sdk(openai.RateLimitError, 429, {"code": "insufficient_quota"}), "fallback", "QuotaSpent"),
        (_of_sdk(openai.RateLimitError, 429, {"code": "rate_limit_exceeded"}), "wait", "RateLimited"),
        (_of_sdk(anthropic.APIStatusError, 529, {"error": {"type": "overloaded_error"}}), "wait", "ProviderOverloaded"),
        (json.JSONDecodeError("no", "<html>", 0), "wait", "AnswerUnreadable"),
        (UnexpectedModelBehavior("strange"), "invalid", "AnswerInvalid"),
        (IncompleteToolCall("cut"), "invalid", "AnswerCutShort"),
        (ContentFilterError("filtered"), "refused", "ContentRefused"),
        (UserError("no such provider"), "halt", "NotSetUp"),
        (openai.OpenAIError("api_key must be set"), "halt", "NotSetUp"),
        (ExceptionGroup("both", [_of_httpx(529), _of_httpx(401)]), "wait", "ProviderOverloaded"),
        (ZeroDivisionError("ours"), "invalid", "ZeroDivisionError"),
    ],
    ids=repr,
)
def test_every_error_has_a_class(error: Exception, kind: str, name: str) -> None:
    found = classify(error, ASKED)

    assert (found.kind, found.name) == (kind, name)


def test_flagged_input_is_refused_content_and_no_bad_key() -> None:
    """As OpenRouter says it: a 403 that pydantic-ai does not take for one about credentials."""
    error = ModelHTTPError.for_category(ModelRequestRejectedError, status_code=403, model_name="x", body={})

    assert classify(error, ASKED).name == "ContentRefused"


@pytest.mark.parametrize(
    ("response", "name"),
    [
        (ModelResponse(parts=[], finish_reason="content_filter"), "ContentRefused"),
        (ModelResponse(parts=[], finish_reason="length"), "AnswerCutShort"),
        (ModelResponse(parts=[], finish_reason="stop"), "EmptyAnswer"),
        (ModelResponse(parts=[TextPart("hm")], finish_reason="error"), "ProviderFailed"),
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_judged(response: ModelResponse, name: str) -> None:
    judged = judge(response, ASKED)

    assert judged is not None
    assert judged.name == name
