from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.log.errors import LogBusy
from engine.log.protocol import MAX_INDEX, Header, Position, last_output, order_of, output_id, place_of

origins = st.integers(1_600_000_000_000, 2_000_000_000_000)
lapses = st.one_of(st.just(1.0), st.integers(1, 1_000_000).map(float), st.floats(1, 1e6, allow_nan=False))
waits = st.integers(-(10**9), 10**12)
positions = st.tuples(st.integers(0, 2**43), st.integers(0, 2**40)).map(lambda order: Position("{}-{}".format(*order)))


@given(origins, lapses, waits)
def test_the_wall_time_of_a_log_time_is_the_first_that_reaches_it(origin: int, lapse: float, wait: int) -> None:
    header = Header("x", 1, origin, lapse)
    due = origin + wait
    wall = header.wall_time(due)

    assert header.log_time(wall) >= due
    assert header.log_time(wall - 1) < due


@given(origins, lapses, waits, st.integers(1, 10**6))
def test_log_time_never_goes_back_while_stamps_do_not(origin: int, lapse: float, wait: int, step: int) -> None:
    header = Header("x", 1, origin, lapse)

    assert header.log_time(origin + wait) < header.log_time(origin + wait + step)


@given(origins, waits)
def test_a_lapse_of_one_is_the_wall_clock(origin: int, wait: int) -> None:
    header = Header("x", 1, origin)

    assert header.log_time(origin + wait) == origin + wait


def test_a_lapse_of_twenty_thousand_makes_a_day_of_four_seconds_and_a_bit() -> None:
    header = Header("x", 1, 1_000, 20_000.0)

    assert header.log_time(1_000 + 4_320) == 1_000 + 86_400_000


@pytest.mark.parametrize("lapse", [0.5, 0, -1, float("inf"), float("nan")])
def test_a_lapse_below_one_is_refused(lapse: float) -> None:
    with pytest.raises(ValueError, match="give a number from 1"):
        Header("x", 1, 0, lapse)


@given(positions, st.integers(0, MAX_INDEX))
def test_an_output_id_gives_its_place_back(position: Position, index: int) -> None:
    assert place_of(output_id(position, index)) == (position, index)


@given(positions, positions, st.integers(0, MAX_INDEX), st.integers(0, MAX_INDEX))
def test_output_ids_are_ordered_by_entry_and_index(one: Position, other: Position, i: int, j: int) -> None:
    by_id = order_of(output_id(one, i)) < order_of(output_id(other, j))

    assert by_id == ((order_of(one), i) < (order_of(other), j))


@pytest.mark.parametrize("index", [-1, MAX_INDEX + 1])
def test_an_index_that_does_not_fit_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="an entry has outputs 0 to"):
        output_id("1-0", index)


def test_the_last_output_is_before_the_next_entry() -> None:
    assert order_of(last_output("5-1")) < order_of(output_id("5-2", 0))


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(LogBusy("words", host="here", pid=7)))

    assert (str(error), error.host, error.pid) == ("words", "here", 7)
