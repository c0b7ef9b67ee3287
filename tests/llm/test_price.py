"""What a request costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai.usage import RequestUsage

from engine.llm.price import Price, cost_of, is_known

USAGE = RequestUsage(input_tokens=1_000, output_tokens=100, cache_read_tokens=500)


def cost(usage: RequestUsage = USAGE, **more: Any) -> int | None:
    asked: dict[str, Any] = {"provider": "openai", "model": "gpt-5-mini", "eur_per_usd": Decimal("0.8"), **more}
    return cost_of(usage, **asked)


def test_the_published_price_is_in_dollars_and_answered_in_millionths_of_a_euro() -> None:
    from genai_prices import calc_price  # noqa: PLC0415 (what it is held against)

    dollars = calc_price(USAGE, "gpt-5-mini", provider_id="openai").total_price

    assert cost() == dollars * Decimal("0.8") * 1_000_000 == 270


@pytest.mark.parametrize(("provider", "model"), [("openai-responses", "gpt-5-mini"), ("anthropic", "claude-haiku-4-5")])
def test_providers_are_known_by_the_names_that_models_have(provider: str, model: str) -> None:
    assert cost(provider=provider, model=model)
    assert is_known(provider=provider, model=model)


@pytest.mark.parametrize(
    "asked", [{"model": "nonsense"}, {"provider": "nobody"}, {"provider": "openai", "url": "http://127.0.0.1:8931/v1"}]
)
def test_a_price_that_nobody_knows_is_none_and_not_nothing(asked: dict[str, Any]) -> None:
    assert cost(**asked) is None
    assert not is_known(**{"provider": "openai", "model": "gpt-5-mini", **asked})


def test_a_known_address_has_known_prices() -> None:
    assert cost(url="https://api.openai.com/v1/") == cost()


def test_what_the_provider_did_not_count_has_no_known_cost() -> None:
    assert cost(RequestUsage()) is None
    assert cost(RequestUsage(), price=Price(1, 1)) is None


def test_counts_that_do_not_add_up_have_no_known_cost() -> None:
    assert cost(RequestUsage(input_tokens=1, cache_read_tokens=9, cache_write_tokens=9)) is None


def test_a_price_of_ones_own_is_in_euros_for_a_million_tokens() -> None:
    assert cost(price=Price("0.20", "2.50")) == 200 + 250
    assert cost(price=Price("0.20", "2.50", cached_input="0.02")) == 100 + 10 + 250
    assert cost(price=Price("0.20", "2.50"), model="our-own", url="http://127.0.0.1:1/v1") == 450


def test_a_cost_is_rounded_up() -> None:
    assert cost(RequestUsage(input_tokens=1), price=Price("0.01", 0)) == 1


def test_what_costs_nothing_costs_nothing_counted_or_not() -> None:
    assert cost(price=Price(0, 0)) == cost(RequestUsage(), price=Price("0", "0")) == 0
    assert is_known(provider="openai", model="our-own", price=Price(0, 0))


@pytest.mark.parametrize(
    ("wrong", "kind"), [(0.25, TypeError), (-1, ValueError), ("NaN", ValueError), (True, TypeError)]
)
def test_a_price_that_is_none_is_refused(wrong: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="Price\\(input="):
        Price(wrong, 1)
