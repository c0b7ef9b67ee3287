"""Money and tokens that calls may use, and what becomes of a run that has none left.

Every call of a step with bounds reserves them before it begins, and is settled by what it used: in the run's own
budget, which is part of its snapshot, and in an account that many runs share (see `engine.core.account`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from engine.core.record import Spent
from engine.core.steps import Spends

MICRO = 1_000_000


def micro(eur: Decimal | str | float) -> int:
    """Euros as millionths; what is less than one counts as one.

    Raises:
        TypeError, ValueError: it is no amount, or a float, which is hardly ever what it was written as.
    """
    if isinstance(eur, float):
        message = f"eur={eur!r}: write it as text, such as eur='0.20', or as a Decimal"
        raise TypeError(message)
    try:
        return int((Decimal(eur) * MICRO).to_integral_value(ROUND_CEILING))
    except (InvalidOperation, ValueError, OverflowError):
        message = f"eur={eur!r} is no amount of money; write it such as eur='0.20'"
        raise ValueError(message) from None


def euros(cost: int) -> str:
    """Millionths as people read them: `0.20`, `0.0031`."""
    text = f"{Decimal(cost) / MICRO:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"{whole}.{part.ljust(2, '0')}"


@dataclass(frozen=True)
class Amount:
    """So much money, so many tokens, or both; None: no bound."""

    eur: Decimal | str | None = None
    tokens: int | None = None

    @property
    def cost(self) -> int | None:
        """Millionths of a euro."""
        return None if self.eur is None else micro(self.eur)

    def __post_init__(self) -> None:
        bounds = (self.cost, self.tokens)
        if bounds == (None, None) or any(b is not None and b <= 0 for b in bounds):
            message = f"{self}: give eur=, tokens= or both, above 0"
            raise ValueError(message)


@dataclass(frozen=True)
class Budget:
    """What the runs of a workflow may use: each by itself, all together, all together in one day of log time (UTC).

    `total` and `day` are kept by an account; workflows that name the same `account` share it.
    """

    run: Amount | None = None
    total: Amount | None = None
    day: Amount | None = None
    account: str = ""
    """The default is the workflow's name."""

    def __post_init__(self) -> None:
        if self.run is None and not self.shared:
            message = "Budget(): give run=, total= or day="
            raise ValueError(message)

    @property
    def shared(self) -> bool:
        """Whether there is an account."""
        return self.total is not None or self.day is not None


def lacking(budget: Amount, spent: Spent, needs: Spends) -> str:
    """Why a call that needs so much cannot be paid for; empty: it can."""
    bound = budget.cost
    if bound is not None:
        taken = spent.cost + spent.reserved_cost
        if taken + (needs.cost or 0) > bound + spent.more_cost:
            whole = bound + spent.more_cost
            left = euros(max(0, whole - taken))
            return f"it may cost {euros(needs.cost or 0)} EUR, {left} of {euros(whole)} are left"
    if budget.tokens is not None:
        taken, most = spent.tokens + spent.reserved_tokens, budget.tokens + spent.more_tokens
        if taken + (needs.tokens or 0) > most:
            return f"it may use {needs.tokens or 0} tokens, {max(0, most - taken)} of {most} are left"
    return ""
