"""How much one call of an `llm_step` may use, and what it has used so far."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from engine.core.budget import euros, micro
from engine.core.entry import Used
from engine.core.steps import NeverAgain, Spends

DEFAULT_CALLS = 50


class TooManyCalls(NeverAgain):
    """A step has made as many calls, of models and tools together, as its limits allow."""


class TooManyTurns(NeverAgain):
    """A step has asked its model as often as its limits allow."""


class TooManyTokens(NeverAgain):
    """A step has used the tokens of its limits, or its next question would not fit into what is left."""


class TooDear(NeverAgain):
    """A step has cost what its limits allow."""


class PriceUnknown(NeverAgain):
    """A step is bounded by money, and nobody knows what its model costs."""


@dataclass(frozen=True)
class Limits:
    """What one call of a step may use, all its attempts together; None: no bound.

    The bound on calls is there by default: a model that asks for the same tool for ever comes to its end.
    """

    calls: int | None = DEFAULT_CALLS
    """Of models and tools together."""
    turns: int | None = None
    """Calls of the model alone."""
    tokens: int | None = None
    """Input and output together. What the step reserves from the budgets."""
    eur: Decimal | str | None = None
    """A model with an unknown price is not asked at all then."""

    def __post_init__(self) -> None:
        if any(bound is not None and bound < 1 for bound in (self.calls, self.turns, self.tokens)):
            message = f"{self}: calls, turns and tokens are 1 or more; None is no bound"
            raise ValueError(message)
        if self.cost is not None and self.cost <= 0:
            message = f"{self}: eur is above 0; leave it out for no bound"
            raise ValueError(message)

    @property
    def cost(self) -> int | None:
        """Millionths of a euro."""
        return None if self.eur is None else micro(self.eur)

    @property
    def spends(self) -> Spends | None:
        """What is reserved from the budgets when a call is made."""
        if self.tokens is None and self.cost is None:
            return None
        return Spends(tokens=self.tokens, cost=self.cost)


NO_BOUND = 1 << 62


class Tally:
    """What a call has used, held against its limits: ask before each call, tell after it."""

    def __init__(self, step: str, limits: Limits) -> None:
        self._step, self._limits = step, limits
        self.calls = self.turns = self.tokens = self.cost = 0
        self._unpriced = ""
        """A model whose answer nobody could price."""

    def before_turn(self, question_tokens: int) -> None:
        """Refuse a question to the model that the limits do not allow; `question_tokens` is an estimate.

        Raises:
            TooManyTurns, TooManyCalls, TooManyTokens, TooDear: the bound that is reached.
            PriceUnknown: money is bounded, and nobody knows what was spent.
        """
        limits = self._limits
        if limits.turns is not None and self.turns >= limits.turns:
            raise TooManyTurns(f"{self._step} asked its model {self.turns} times, as often as its limits allow")
        self._before_call()
        if question_tokens > self.tokens_left:
            raise TooManyTokens(
                f"{self._step} has used {self.tokens:,} of {limits.tokens:,} tokens, and its next question has about "
                f"{question_tokens:,}; raise Limits(tokens=...), or give it less to read"
            )
        if limits.cost is not None and self.cost >= limits.cost:
            raise TooDear(f"{self._step} has cost {euros(self.cost)} EUR, its limit is {euros(limits.cost)}")
        if limits.cost is not None and self._unpriced:
            raise PriceUnknown(
                f"{self._step} is bounded by money, and what {self._unpriced} took is not known; "
                "say its price in Model(price=Price(...)), or bound the step by tokens"
            )
        self.turns += 1
        self.calls += 1

    def before_tool(self) -> None:
        """Refuse a tool's call that the limits do not allow.

        Raises:
            TooManyCalls: the bound is reached.
        """
        self._before_call()
        self.calls += 1

    def after_turn(self, used: Used, tokens: int) -> None:
        """Count an answer of the model; `tokens` is an estimate, for a provider that does not count."""
        self.tokens += used.tokens or tokens
        self.cost += used.cost or 0
        if used.cost is None:
            self._unpriced = used.answered or used.model

    @property
    def tokens_left(self) -> int:
        bound = self._limits.tokens
        return NO_BOUND if bound is None else max(0, bound - self.tokens)

    def _before_call(self) -> None:
        bound = self._limits.calls
        if bound is not None and self.calls >= bound:
            raise TooManyCalls(f"{self._step} made {self.calls} calls of models and tools, as many as its limits allow")
