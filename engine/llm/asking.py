"""One turn: a model is asked and, when it cannot answer now, its fallbacks. Needs the extra `longwatch[model]`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, TypeVar, assert_never, cast

import msgspec
from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model as Asked
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from engine.core.entry import Used
from engine.core.steps import NeverAgain, Runner, StepContext, StepHalts, TryAgain
from engine.limits.limit import NeverFits
from engine.limits.outcome import OK, Outage
from engine.limits.passes import Pass
from engine.llm.bounds import PriceUnknown
from engine.llm.connections import Candidate, candidate
from engine.llm.errors import Asked as Who
from engine.llm.errors import Outcome, classify, judge
from engine.llm.held import Held
from engine.llm.model import Model
from engine.llm.opened import OpenedModel
from engine.llm.output import OutputForm
from engine.llm.step import Thinking

E = TypeVar("E", bound=Exception)

SHARE: Final = 0.95
"""Of the step's timeout, in which all candidates are asked."""
RESPONSE: Final[TypeAdapter[ModelResponse]] = TypeAdapter(ModelResponse)
FEW_TOKENS: Final = 4_096
"""So many any model may be allowed to answer; a larger bound is not said to a provider, which may not know it."""
LEAST_TOKENS: Final = 16
"""Fewer no provider takes for a bound."""
CLOSED: Final = frozenset({"KeyRefused", "ModelNotFound", "QuotaSpent"})
"""Halts of every run that asks this model, until an operator has mended it."""
Kept = dict[str, Any]
"""What is kept of a turn: `used` and `response`."""


class ContentRefused(NeverAgain):
    """A model, or a filter in front of it, does not answer this."""


@dataclass(frozen=True)
class Turn:
    """What a model answered, and what it took."""

    response: ModelResponse
    used: Used


@dataclass(frozen=True)
class Failed:
    """No answer."""

    outcome: Outcome
    is_last: bool = False
    """Nobody else is left to be asked."""

    def error(self) -> Exception:
        """What the engine is told."""
        outcome = self.outcome
        match outcome.kind:
            case "refused":
                return ContentRefused(outcome.words)
            case "halt":
                halts: type[StepHalts] = _named(StepHalts, outcome.name)
                return halts(outcome.words)
            case "wait" | "fallback" | "invalid":
                wait = outcome.wait_seconds
                after = None if wait is None else timedelta(seconds=wait)
                again: type[TryAgain] = _named(TryAgain, outcome.name)
                return again(outcome.words, after=after, outage=outcome.is_outage)
        assert_never(outcome.kind)


@dataclass(frozen=True)
class Question:
    """What is asked in one turn."""

    messages: Sequence[ModelMessage]
    tools: Sequence[ToolDefinition]
    form: OutputForm
    key: str
    """Of the inner call, the same in every attempt."""
    tokens: int
    """An estimate of what it has."""
    most_tokens: int
    """What is left for the answer."""


def read_turn(kept: Kept) -> Turn:
    """What `once` gives back."""
    return Turn(RESPONSE.validate_json(msgspec.json.encode(kept["response"])), used_of(kept))


def used_of(kept: Kept) -> Used:
    """What the turn took."""
    return msgspec.convert(kept["used"], Used)


def _kept(turn: Turn) -> Kept:
    """Without the address that was asked, which may hold a password."""
    response = RESPONSE.dump_python(turn.response, mode="json", exclude={"provider_url"}, exclude_none=True)
    return {"used": msgspec.to_builtins(turn.used), "response": response}


async def candidates_of(thinking: Thinking, context: StepContext) -> tuple[Candidate, ...]:
    """The models that the step asks: what the application's worker has opened or, in a test, a pydantic-ai model.

    Raises:
        StepHalts: there is none under the name.
    """
    found = context.resources.get(f"model:{thinking.model}")
    if isinstance(found, OpenedModel):
        try:
            return await found.candidates()
        except StepHalts:
            async with _passing(context.runner, thinking.model, 0) as passed:
                if passed is not None:
                    passed.report(Outage(0.0, "NotSetUp"))
            raise
    if isinstance(found, tuple) and all(isinstance(one, Candidate) for one in found):
        return found
    if isinstance(found, Asked):
        model = Model(f"test:{found.model_name}")
        return (candidate(Who(thinking.model, model.name), model, found),)
    raise StepHalts(
        f"step {thinking.name} asks the model {thinking.model!r}, which nobody has opened; name it in "
        f"Application(models=...), or in a test fake the step, or hand in resources={{'model:{thinking.model}': ...}}"
    )


class Asking:
    """The models of one call."""

    def __init__(self, thinking: Thinking, candidates: Sequence[Candidate], runner: Runner) -> None:
        self._thinking, self._candidates, self._runner = thinking, candidates, runner
        # So that each can be asked before the step's own timeout ends the attempt.
        self._share = SHARE * thinking.step.timeout.total_seconds() / len(candidates)

    @property
    def first(self) -> Candidate:
        return self._candidates[0]

    def check_prices(self) -> None:
        """Refuse to ask for what nobody knows the price of, where money is the bound.

        Raises:
            PriceUnknown: of one of the models.
        """
        if self._thinking.limits.cost is None:
            return
        for one in self._candidates:
            if not one.has_price:
                raise PriceUnknown(
                    f"{self._thinking.name} is bounded by money, and the price of {one.who.spec} is not known; "
                    "say it in Model(price=Price(...)), or bound the step by tokens"
                )

    def check_refusal(self, response: ModelResponse) -> None:
        """Raise for a kept answer that is a refusal.

        Raises:
            ContentRefused: it is.
        """
        judged = judge(response, self.first.who)
        if judged is not None and judged.kind == "refused":
            raise ContentRefused(judged.words)

    async def ask(self, question: Question) -> Kept:
        """The first answer that is one, in the form that is kept.

        Raises:
            TryAgain, NeverAgain, StepHalts: none of the models gave one.
        """
        try:
            async with self._gate(question) as passed:
                found = await self._ask_each(question)
                if passed is not None:
                    _report(passed, found)
        except NeverFits as error:
            raise StepHalts(str(error)) from error
        if isinstance(found, Failed):
            raise found.error()
        return _kept(found)

    def _gate(self, question: Question) -> AbstractAsyncContextManager[Pass | None]:
        return _passing(self._runner, self._thinking.model, question.tokens)

    async def _ask_each(self, question: Question) -> Turn | Failed:
        """An answer, or what became of the last one that was asked."""
        *others, last = self._candidates
        for one in others:
            if one.health.is_down:
                continue
            found = await self._ask(one, question)
            if not isinstance(found, Failed) or not self._falls_back(one, found.outcome):
                return found
        found = await self._ask(last, question)
        return found if isinstance(found, Turn) else Failed(found.outcome.without_fallback(), is_last=True)

    def _falls_back(self, one: Candidate, outcome: Outcome) -> bool:
        """Whether the next model is asked now. A short trouble is waited for: the first one is wanted."""
        if outcome.kind == "wait" and outcome.is_outage:
            return one.health.is_down
        return outcome.kind == "fallback" or (outcome.kind in {"wait", "invalid"} and self._runner.failures > 0)

    async def _ask(self, one: Candidate, question: Question) -> Turn | Failed:
        held = Held(question.messages, question.tools, question.form) if one.output == "held" else None
        try:
            parameters = held.parameters() if held else question.form.parameters(one.output, list(question.tools))
            messages = one.asked.prepare_messages(held.messages() if held else list(question.messages), parameters)
            async with asyncio.timeout(self._share):
                response = await one.asked.request(messages, _settings(one, question), parameters)
            response = held.read(response) if held else response
        except Exception as error:  # noqa: BLE001 - each is classed
            outcome = classify(error, one.who, failures=self._runner.failures)
        else:
            judged = judge(response, one.who)
            if judged is None or judged.kind in {"invalid", "refused"}:  # it is paid for: the loop sees to it
                one.health.answered()
                return Turn(response, self._used(one, response))
            outcome = judged
        if outcome.is_outage:
            one.health.failed()
        return Failed(outcome)

    def _used(self, one: Candidate, response: ModelResponse) -> Used:
        usage = response.usage
        return Used(
            model=self._thinking.model,
            answered=response.model_name or one.asked.model_name,
            provider=response.provider_name or one.asked.system,
            input=usage.input_tokens,
            output=usage.output_tokens,
            cached=usage.cache_read_tokens,
            thought=usage.details.get("reasoning_tokens", 0),
            cost=one.cost(response),
            finish=response.finish_reason or "",
            request=response.provider_response_id or "",
        )


def _settings(one: Candidate, question: Question) -> ModelSettings:
    settings: dict[str, Any] = dict(one.settings)
    if question.most_tokens < min(FEW_TOKENS, settings.get("max_tokens", FEW_TOKENS)):
        settings["max_tokens"] = max(LEAST_TOKENS, question.most_tokens)
    if one.is_idempotent:
        settings["extra_headers"] = {**settings.get("extra_headers", {}), "Idempotency-Key": question.key}
    return cast("ModelSettings", settings)


def _passing(runner: Runner | None, model: str, tokens: int) -> AbstractAsyncContextManager[Pass | None]:
    """A pass of the model's gate; None where there is none, as in a test."""
    passing = getattr(runner, "passing", None)
    if passing is None:
        return nullcontext()
    gate: AbstractAsyncContextManager[Pass] = passing(f"model:{model}", tokens=tokens)
    return gate


def _report(passed: Pass, found: Turn | Failed) -> None:
    """What the gate is told; nothing bad of a model that has fallbacks: they are asked before anybody waits.

    A key that is refused is like an outage to all others: they wait, and do not halt one after the other.
    """
    if isinstance(found, Turn):
        passed.used(found.used.tokens)
        passed.report(OK)
    elif found.outcome.name in CLOSED:
        passed.report(Outage(0.0, found.outcome.name))
    elif not found.outcome.is_outage:
        passed.report(OK)
    elif found.is_last:
        passed.report(Outage(found.outcome.wait_seconds or 0.0, found.outcome.name))


@lru_cache
def _named(kind: type[E], name: str) -> type[E]:
    """A class whose name says what happened: it is what `.failed` and the history are told."""
    return cast("type[E]", type(name, (kind,), {"__module__": __name__}))
