from __future__ import annotations

import pytest

from engine.limits import Limit, NeverFits, Pace


@pytest.mark.parametrize("wrong", [{"calls": 0}, {"requests": -1}, {"tokens": True}, {"calls": 1.5}])
def test_a_limit_is_a_whole_number_of_at_least_one(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) + ".*whole number"):
        Limit(**wrong)


def test_a_limit_that_limits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limits nothing"):
        Limit()


def test_a_call_that_could_never_pass_is_refused_with_both_numbers() -> None:
    with pytest.raises(NeverFits, match=r"model:x: .* 50,000 tokens .* 40,000 a minute"):
        Limit(tokens=40_000).check("model:x", 50_000)


@pytest.mark.parametrize("wrong", [{"minute": 0}, {"poll": -1}, {"slack": -1}, {"first_wait": 100.0}])
def test_a_pace_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Pace"):
        Pace(**wrong)  # type: ignore[arg-type]


def test_a_window_needs_no_slack() -> None:
    assert Pace(slack=0).slack == 0
