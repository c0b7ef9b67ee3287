"""What a request to a model costs, in millionths of a euro. An unknown price is None, never nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from genai_prices.types import PriceCalculation
    from pydantic_ai.usage import RequestUsage

MICRO: Final = 1_000_000


@dataclass(frozen=True)
class Price:
    """What a model costs by contract, or here: EUR for a million tokens. Give whole numbers or strings, not floats.

    It counts tokens of input and output only. `Price(0, 0)` is a model of one's own that costs nothing by the token.
    """

    input: Decimal | str | int
    output: Decimal | str | int
    cached_input: Decimal | str | int | None = None
    """Of input that the provider read from its cache; None: as other input."""

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached_input"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, _amount(name, given))

    def cost(self, usage: RequestUsage) -> Decimal:
        """Millionths of a euro: a euro for a million tokens is a millionth for one."""
        full, output = Decimal(self.input), Decimal(self.output)
        cached = full if self.cached_input is None else Decimal(self.cached_input)
        read = min(usage.cache_read_tokens, usage.input_tokens)
        return (usage.input_tokens - read) * full + read * cached + usage.output_tokens * output


def cost_of(
    usage: RequestUsage,
    *,
    provider: str,
    model: str,
    eur_per_usd: Decimal,
    price: Price | None = None,
    url: str | None = None,
    at: datetime | None = None,
) -> int | None:
    """Millionths of a euro, rounded up; None when nobody knows: neither `price` nor the published list (genai-prices).

    Args:
        usage: As pydantic-ai counts one request. Without any tokens the provider did not count, and it is not known.
        provider: `openai`, `anthropic`, ... as the list names it.
        model: As the provider names the one that answered.
        eur_per_usd: The list is in dollars.
        price: Stands in place of the list.
        url: Where the provider was asked. At an address that the list does not know the name of a model says nothing.
        at: When; prices change. None: now.
    """
    if price is not None and not (price.input or price.output):
        return 0
    if not usage.input_tokens and not usage.output_tokens:
        return None
    if price is not None:
        return _rounded(price.cost(usage))
    dollars = _published(usage, provider=provider, model=model, url=url, at=at)
    return None if dollars is None else _rounded(dollars * eur_per_usd * MICRO)


def is_known(*, provider: str, model: str, price: Price | None = None, url: str | None = None) -> bool:
    """Whether `cost_of` can tell, before anything is asked."""
    from pydantic_ai.usage import RequestUsage  # noqa: PLC0415 - an extra

    usage = RequestUsage(input_tokens=1, output_tokens=1)
    return cost_of(usage, provider=provider, model=model, eur_per_usd=Decimal(1), price=price, url=url) is not None


def _published(
    usage: RequestUsage, *, provider: str, model: str, url: str | None, at: datetime | None
) -> Decimal | None:
    """Dollars, by the list."""
    from genai_prices import calc_price  # noqa: PLC0415 - an extra

    def by_url() -> PriceCalculation:
        return calc_price(usage, model, provider_api_url=url, genai_request_timestamp=at)

    def by_name() -> PriceCalculation:
        return calc_price(usage, model, provider_id=provider, genai_request_timestamp=at)

    found = _found(by_name if url is None else by_url)
    if found is None or (found.total_price == 0 and found.model_price.input_mtok is None):
        return None  # the second: it is charged by something else than tokens
    return found.total_price


def _found(look_up: Callable[[], PriceCalculation]) -> PriceCalculation | None:
    """None for a model or provider that is not listed, and for counts that do not add up."""
    try:
        return look_up()
    except (LookupError, ValueError):
        return None


def _amount(name: str, given: Decimal | str | float) -> Decimal:
    if isinstance(given, float | bool):
        message = f"Price({name}={given!r}): write a whole number, a string or a Decimal, such as '0.25'"
        raise TypeError(message)
    amount = Decimal(given)
    if not amount.is_finite() or amount < 0:
        message = f"Price({name}={given!r}): EUR for a million tokens, 0 or more"
        raise ValueError(message)
    return amount


def _rounded(micro: Decimal) -> int:
    """Up: a cost that is known is never nothing."""
    return int(micro.to_integral_value(rounding=ROUND_CEILING))
