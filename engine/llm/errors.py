"""What may go wrong with one request to a model, and what becomes of it. Needs the extra `longwatch[model]`.

    wait      the same request may succeed later: too many requests, a provider or a connection that is down
    fallback  this model cannot serve it, another may: `otherwise` says what it is where there is no other
    refused   the content was refused: final, and no fault of anybody's setting
    halt      an operator's matter: a key, an address, a model's name, an account, a request that no provider takes
    invalid   an answer came and is none: of another shape, empty, too long

Nothing here does anything: the loop raises `TryAgain`, `NeverAgain` or `StepHalts` by the kind. The words are for the
operator, on one line, without secrets; what a provider said is in them, cut short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, Literal

import anthropic
import httpx2
import openai
from pydantic_ai.exceptions import (
    ContentFilterError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRequestTimeout,
    ModelTimeoutError,
    OutputTokenLimitExceeded,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.messages import ModelResponse

from engine.llm.model import variable
from engine.llm.scrubbing import scrubbed

Kind = Literal["wait", "fallback", "refused", "halt", "invalid"]

LONGEST_WAIT: Final = 3600.0
"""Seconds. A provider that says more is asked again after an hour."""
LONG_OVERLOADED: Final = 3
"""After so many failed attempts a provider that says it is overloaded is one that cannot serve."""
OVERLOADED: Final = 529
"""Anthropic's status, in no RFC."""
LONGEST_QUOTE: Final = 300
"""Characters of what a provider said."""

_QUOTA_CODES: Final = frozenset(
    {
        "billing_error",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
_REFUSAL_CODES: Final = frozenset(
    {"content_filter", "content_policy_violation", "invalid_prompt", "moderation_blocked"}
)
_TOO_LONG_CODES: Final = frozenset({"context_length_exceeded", "request_too_large"})
_TOO_LONG_WORDS: Final = ("prompt is too long", "maximum context length")
_MODEL_LIBRARIES: Final = frozenset({"anthropic", "openai", "pydantic_ai"})
_TRANSPORT_LIBRARIES: Final = frozenset({"aiohttp", "h11", "h2", "httpcore", "httpcore2", "httpx", "httpx2"})


@dataclass(frozen=True)
class Outcome:
    """What becomes of a request that has no answer."""

    kind: Kind
    name: str
    """Of what happened, for `.failed`, metrics and tests: `RateLimited`, `ContentRefused`, ..."""
    words: str
    wait_seconds: float | None = None
    """What the provider asked for, at most an hour; None: it did not say."""
    otherwise: Kind | None = None
    """What a `fallback` is where there is nothing to fall back on."""

    @property
    def is_outage(self) -> bool:
        """The other side cannot be reached or serves nobody: such an attempt says nothing about this request."""
        return self.kind == "wait" and self.name not in {"AnswerUnreadable", "TimedOut"}

    def without_fallback(self) -> Outcome:
        """The same where no other model is left."""
        return self if self.otherwise is None else replace(self, kind=self.otherwise, otherwise=None)


@dataclass(frozen=True)
class Asked:
    """Who was asked: what an operator has to know to mend it."""

    name: str
    """The application's name for the model."""
    spec: str
    """`provider:name`."""
    key_setting: str = ""
    """The environment variable with the key; empty: the provider's usual one."""

    @property
    def provider(self) -> str:
        return self.spec.partition(":")[0]

    @property
    def key(self) -> str:
        vendor = self.provider.removesuffix("-chat").removesuffix("-responses")
        return self.key_setting or f"{vendor.upper().replace('-', '_')}_API_KEY"

    def __str__(self) -> str:
        return f"model {self.name!r} ({self.spec})"


def classify(error: BaseException, asked: Asked, *, failures: int = 0) -> Outcome:
    """What becomes of a request that raised; `failures` are the failed attempts before it.

    `asyncio.CancelledError` and the like are nobody's failure: do not bring them here.
    """
    if isinstance(error, BaseExceptionGroup):
        return classify(error.exceptions[0], asked, failures=failures)
    if (answer := _answered_too_much(error, asked)) is not None:
        return answer
    if (response := _Response.of(error)) is not None:
        return _of_response(response, error, asked, failures)
    return _of_exception(error, asked)


def judge(response: ModelResponse, asked: Asked) -> Outcome | None:
    """What becomes of an answer that is none: a refusal comes as one, without an exception. None: it is an answer."""
    if response.finish_reason == "content_filter":
        details = response.provider_details or {}
        return _refused(asked, str(details.get("refusal") or details.get("finish_reason") or "no reason given"))
    if response.finish_reason == "error":
        return Outcome("wait", "ProviderFailed", f"{asked}: the answer ended in an error of the provider")
    if response.parts:
        return None
    if response.finish_reason == "length":
        return _cut_short(asked)
    return Outcome("invalid", "EmptyAnswer", f"{asked}: the answer is empty")


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by `Retry-After-Ms` or `Retry-After` (RFC 9110, 10.2.3), between none and an hour.

    A date is held against the server's own `Date`, so that it does no harm when its clock, or ours, is wrong. Without
    that header it is held against `now`. What cannot be read says nothing: None.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    if (ms := _number(named.get("retry-after-ms"))) is not None:
        return _bounded(ms / 1000)
    given = named.get("retry-after")
    if (seconds := _number(given)) is not None:
        return _bounded(seconds)
    due = _date(given)
    if due is None:
        return None
    return _bounded((due - (_date(named.get("date")) or now or datetime.now(UTC))).total_seconds())


# An HTTP answer that is an error --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Response:
    """What the clients' errors have in common."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str]
    retry_after: float | None = None
    """As pydantic-ai read it, for what no header says."""

    @classmethod
    def of(cls, error: BaseException) -> _Response | None:
        match error:
            case ModelHTTPError():
                code = error.provider_error_code or error.provider_error_type
                return cls._of(error.status_code, error.body, error.headers or {}, code, error.retry_after)
            case openai.APIStatusError() | anthropic.APIStatusError():
                code = error.code if isinstance(error, openai.APIStatusError) else None
                return cls._of(error.status_code, error.body, dict(error.response.headers), code)
            case httpx2.HTTPStatusError():
                return cls._of(error.response.status_code, None, dict(error.response.headers), None)
            case _:
                return None

    @classmethod
    def _of(
        cls, status: int, body: object, headers: Mapping[str, str], code: str | None, after: float | None = None
    ) -> _Response:
        """The body is `{"error": {...}}` or what is in it, with `message` and `code` or `type`."""
        inner = body.get("error", body) if isinstance(body, dict) else {}
        inner = inner if isinstance(inner, dict) else {"message": inner}
        message = inner.get("message") or (body if isinstance(body, str) else "")
        named = code or inner.get("code") or inner.get("type") or ""
        return cls(status, str(named), str(message), headers, after)

    @property
    def wait(self) -> float | None:
        found = retry_after(self.headers)
        if found is None and "retry-after" not in self.headers and self.retry_after is not None:
            return _bounded(self.retry_after)
        return found

    @property
    def said(self) -> str:
        return f"{self.status}: {_quoted(self.message)}" if self.message else str(self.status)


def _of_response(response: _Response, error: BaseException, asked: Asked, failures: int) -> Outcome:
    if _is_refusal(response, error):
        return _refused(asked, response.said)
    if isinstance(error, ModelQuotaExceededError) or response.status == HTTPStatus.PAYMENT_REQUIRED or _quota(response):
        return _quota_spent(response, asked)
    if isinstance(error, ModelContextWindowExceededError) or _too_long(response):
        return _question_too_long(response, asked)
    match response.status:
        case 401 | 403:
            return _key_refused(response, asked)
        case 404:
            return _model_not_found(response, asked)
        case 408:
            return Outcome(
                "wait", "TimedOut", f"{asked}: the provider gave up waiting ({response.said})", response.wait
            )
        case 409 | 425:
            return Outcome("wait", "ProviderBusy", f"{asked}: not now ({response.said})", response.wait)
        case 429:
            return Outcome("wait", "RateLimited", f"{asked}: too many requests ({response.said})", response.wait)
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _provider_down(response, error, asked, failures)
        case _:
            return _request_refused(response, asked)


def _is_refusal(response: _Response, error: BaseException) -> bool:
    """By its code; or OpenRouter's 403 for flagged input, which pydantic-ai does not take for one about a key."""
    flagged = (
        response.status == HTTPStatus.FORBIDDEN
        and isinstance(error, ModelHTTPError)
        and not isinstance(error, ModelAuthenticationError)
    )
    return response.code in _REFUSAL_CODES or flagged


def _quota(response: _Response) -> bool:
    return response.code in _QUOTA_CODES or "credit balance is too low" in response.message.lower()


def _too_long(response: _Response) -> bool:
    words = response.message.lower()
    return (
        response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        or response.code in _TOO_LONG_CODES
        or any(each in words for each in _TOO_LONG_WORDS)
    )


def _provider_down(response: _Response, error: BaseException, asked: Asked, failures: int) -> Outcome:
    said = f"({response.said})"
    if isinstance(error, ModelOverloadedError) or response.status == OVERLOADED or response.code == "overloaded_error":
        words = f"{asked}: the provider {asked.provider} is overloaded {said}"
        if failures >= LONG_OVERLOADED:
            return Outcome("fallback", "ProviderOverloaded", words, response.wait, otherwise="wait")
        return Outcome("wait", "ProviderOverloaded", words, response.wait)
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        words = f"{asked}: the provider {asked.provider} is not available {said}"
        return Outcome("wait", "ProviderUnavailable", words, response.wait)
    return Outcome("wait", "ProviderFailed", f"{asked}: the provider {asked.provider} failed {said}", response.wait)


def _key_refused(response: _Response, asked: Asked) -> Outcome:
    what = "is not accepted" if response.status == HTTPStatus.UNAUTHORIZED else "may not do this"
    words = f"{asked}: the key for {asked.provider} {what} ({response.said})"
    return Outcome("halt", "KeyRefused", f"{words}; set {asked.key} to a key that may, then resume the run")


def _model_not_found(response: _Response, asked: Asked) -> Outcome:
    words = f"{asked}: {asked.provider} does not know this model, or its address is wrong ({response.said})"
    mend = f"name another one in Application(models=...) or in {variable(asked.name)}, then resume the run"
    return Outcome("fallback", "ModelNotFound", f"{words}; {mend}", otherwise="halt")


def _quota_spent(response: _Response, asked: Asked) -> Outcome:
    words = f"{asked}: the account at {asked.provider} is used up ({response.said})"
    mend = f"top it up, or set {asked.key} to another account's key, then resume the run"
    return Outcome("fallback", "QuotaSpent", f"{words}; {mend}", otherwise="halt")


def _question_too_long(response: _Response, asked: Asked) -> Outcome:
    words = f"{asked}: the question is longer than the model reads ({response.said})"
    mend = f"give the step less to read, or name a model that reads more in {variable(asked.name)}"
    return Outcome("fallback", "QuestionTooLong", f"{words}; {mend}", otherwise="halt")


def _request_refused(response: _Response, asked: Asked) -> Outcome:
    words = f"{asked}: {asked.provider} does not take this request ({response.said})"
    mend = f"see that the settings of Model({asked.spec!r}) and the schemas of its tools suit it, then resume the run"
    return Outcome("halt", "RequestRefused", f"{words}; {mend}")


def _refused(asked: Asked, said: str) -> Outcome:
    return Outcome("refused", "ContentRefused", f"{asked}: refused to answer ({_quoted(said)})")


# No HTTP answer, or one that is no error ------------------------------------------------------------------------------


def _of_exception(error: BaseException, asked: Asked) -> Outcome:
    match error:
        case ContentFilterError():
            return _refused(asked, error.message)
        case OutputTokenLimitExceeded():
            return _cut_short(asked)
        case UnexpectedModelBehavior():
            return _invalid(asked, error.message)
        case UserError():
            return _not_set_up(asked, error.message)
        case (
            ModelTimeoutError()
            | ModelRequestTimeout()
            | openai.APITimeoutError()
            | anthropic.APITimeoutError()
            | httpx2.TimeoutException()
            | TimeoutError()
        ):
            return Outcome("wait", "TimedOut", f"{asked}: no answer in time")
        case ModelConnectionError() | openai.APIConnectionError() | anthropic.APIConnectionError() | OSError():
            return _connection_failed(error, asked)
        case ModelAPIError() | json.JSONDecodeError() | UnicodeDecodeError():
            words = f"{asked}: the answer cannot be read ({_quoted(_first_line(error))})"
            return Outcome("wait", "AnswerUnreadable", words)
        case openai.OpenAIError() | anthropic.AnthropicError():
            return _not_set_up(asked, str(error))
        case _:
            return _of_origin(error, asked)


def _of_origin(error: BaseException, asked: Asked) -> Outcome:
    """By where it comes from: clients stumble over answers of other shapes with whatever Python raises."""
    if type(error).__module__.partition(".")[0] in _TRANSPORT_LIBRARIES:
        return _connection_failed(error, asked)
    if _MODEL_LIBRARIES & set(_rooms(error)):
        return _invalid(asked, f"its client stumbled over it: {type(error).__name__}: {_first_line(error)}")
    words = f"{asked}: {type(error).__name__}: {_quoted(_first_line(error))}"
    return Outcome("invalid", type(error).__name__, words)


def _connection_failed(error: BaseException, asked: Asked) -> Outcome:
    root = _chain(error)[-1]
    said = _first_line(root) or type(root).__name__
    words = f"{asked}: no connection to {asked.provider}, or it broke off ({_quoted(said)})"
    return Outcome("wait", "ConnectionFailed", words)


def _answered_too_much(error: BaseException, asked: Asked) -> Outcome | None:
    """The bound of our own client, which the providers' clients take for a broken connection."""
    found = next((each for each in _chain(error) if type(each).__name__ == "AnswerTooLong"), None)
    return None if found is None else Outcome("invalid", "AnswerTooLong", f"{asked}: {_quoted(str(found))}")


def _invalid(asked: Asked, said: str) -> Outcome:
    return Outcome("invalid", "AnswerInvalid", f"{asked}: what came is no answer ({_quoted(said)})")


def _cut_short(asked: Asked) -> Outcome:
    words = f"{asked}: the answer ended at the bound on its length; raise max_tokens in the settings of the model"
    return Outcome("invalid", "AnswerCutShort", words)


def _not_set_up(asked: Asked, said: str) -> Outcome:
    words = f"{asked}: cannot be asked as it is set up ({_quoted(said)})"
    return Outcome("halt", "NotSetUp", f"{words}; see {asked.key} and {variable(asked.name)}, then resume the run")


# What it is made of ---------------------------------------------------------------------------------------------------


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the root last."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in chain:
        chain.append(found)
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return chain


def _rooms(error: BaseException) -> Iterator[str]:
    """The packages whose code the error has come through."""
    trace = error.__traceback__
    while trace is not None:
        yield str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        trace = trace.tb_next


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _quoted(said: str) -> str:
    """Somebody else's words: without secrets, on one line, with nothing that moves a terminal, and cut."""
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", scrubbed(said)).strip()
    return plain if len(plain) <= LONGEST_QUOTE else f"{plain[:LONGEST_QUOTE]}..."


def _number(text: str | None) -> float | None:
    """A plain number, as a header has it: no sign, no `inf`."""
    return float(text) if text is not None and re.fullmatch(r"\d{1,15}(\.\d{1,9})?", text) else None


def _date(text: str | None) -> datetime | None:
    try:
        read = parsedate_to_datetime(text or "")
    except (ValueError, IndexError, OverflowError):
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_WAIT)
