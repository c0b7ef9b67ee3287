"""Steps by themselves: awaited in a test, their inputs and outputs as JSON, and what a handler knows of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, NewType

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from engine import Context, Leave, Retry, StepContext, step
from engine.core.context import milliseconds, moment
from engine.core.ids import RunId
from engine.core.steps import has_floats
from tests.core import zoo
from tests.core.zoo import Pair


@step(name="adding", retry=Retry(attempts=2), timeout=timedelta(seconds=3))
async def add(pair: Pair, context: StepContext) -> int:
    return pair.left + pair.right + context.attempt


async def test_a_step_is_awaited_as_the_function_it_is() -> None:
    context = StepContext("r.1.0", 3, datetime(2026, 1, 1, tzinfo=UTC))

    assert await zoo.fetch("abc") == 3
    assert await add(Pair(left=1, right=2), context) == 6
    assert (add.takes_context, zoo.fetch.takes_context) == (True, False)


def test_a_call_is_a_value() -> None:
    assert zoo.fetch.call("abc") == zoo.fetch.call("abc")
    assert add.call(Pair(left=1, right=2)).step.name == "adding"
    assert hash(add) == hash(add)


def test_inputs_and_outputs_are_json() -> None:
    raw = add.write_input(Pair(left=1, right=2))

    assert raw == b'{"left":1,"right":2}'
    assert add.read_input(raw) == Pair(left=1, right=2)
    assert add.read_output(add.write_output(7)) == 7


def test_what_is_not_of_the_type_is_not_written() -> None:
    with pytest.raises(PydanticSerializationError):
        add.write_output("seven")
    with pytest.raises(PydanticSerializationError):
        zoo.fetch.write_input(7)


Weight = NewType("Weight", float)


class Deep(BaseModel):
    inner: Pair
    more: Deep | None = None
    weight: Weight


@step()
async def measure(values: tuple[float, ...]) -> Annotated[float, "metres"] | None:
    return sum(values)


def test_what_json_cannot_carry_is_not_written() -> None:
    assert measure.write_output(1.5) == b"1.5"
    with pytest.raises(ValueError, match="Input should be a valid number"):
        measure.write_input((1.0, float("nan")))


def test_floats_are_found_wherever_they_are() -> None:
    assert has_floats(tuple[dict[str, float], ...])
    assert has_floats(Any)
    assert has_floats(list[Deep])
    assert has_floats(tuple[Weight, ...])
    assert not has_floats(Pair)
    assert not has_floats(str | None)


def test_a_step_must_be_async() -> None:
    def blocking(number: int) -> int:
        return number

    with pytest.raises(TypeError, match="is not async; write `async def`, since a step may wait"):
        step()(blocking)  # type: ignore[arg-type]  # wrong on purpose


def test_a_retry_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="there must be at least one attempt"):
        Retry(attempts=0)
    with pytest.raises(ValueError, match="step fetch: timeout and total must be above 0"):
        step(timeout=timedelta())(zoo.fetch.function)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone; a timer needs one"):
        milliseconds(datetime(2026, 1, 1))  # noqa: DTZ001 - what is refused


def test_times_come_back_and_a_part_of_a_millisecond_counts_as_a_whole_one() -> None:
    east = timezone(timedelta(hours=5))

    assert moment(milliseconds(datetime(2026, 1, 1, 5, tzinfo=east))) == datetime(2026, 1, 1, tzinfo=UTC)
    assert milliseconds(datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)) == 1_001
    assert milliseconds(datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)) == -1


def test_a_context_draws_the_same_every_time_and_for_each_handler_its_own() -> None:
    def context(part: int = 1, seq: int = 3) -> Context:
        return Context("k", RunId("r"), 5_000, 2_000, seq, part)

    assert context().uuid() == context().uuid()
    assert context().uuid().version == 4
    assert len({context().random.random(), context(part=2).random.random(), context(seq=4).random.random()}) == 3
    assert (context().now, context().entered_at) == (moment(5_000), moment(2_000))


async def test_the_name_under_which_budgets_are_asked_about_is_the_engines() -> None:
    context = StepContext("r.1.0", 1, datetime(2026, 1, 1, tzinfo=UTC))

    with pytest.raises(ValueError, match="the engine asks about budgets under that name"):
        await context.ask("people", "may I?", Leave, name="budget")
