from __future__ import annotations

import random

from engine.limits.waiters import Waiter, Waiters


def waiter(number: int, priority: int = 0, new: bool = True) -> Waiter[None]:
    return Waiter("gate", number, (priority, new, number), 0, None, lambda _, __: None)


def owners(waiters: Waiters, count: int = 1000) -> list[object]:
    return [each.owner for each in waiters.take(count)]


def test_the_lowest_priority_goes_first_then_what_has_begun_then_the_first_that_came() -> None:
    waiters = Waiters()
    for each in (waiter(1), waiter(2, priority=-1), waiter(3, new=False), waiter(4, priority=-1, new=False), waiter(5)):
        waiters.put(each)

    assert owners(waiters) == [4, 2, 3, 1, 5]


def test_one_that_is_put_back_has_its_old_place() -> None:
    waiters = Waiters()
    for number in range(5):
        waiters.put(waiter(number))
    first, second = waiters.take(2)
    waiters.put(second)
    waiters.put(first)

    assert owners(waiters) == [0, 1, 2, 3, 4]


def test_those_that_went_away_are_neither_counted_nor_taken() -> None:
    chance = random.Random(1)
    waiters = Waiters()
    all_of_them = [waiter(number) for number in range(1000)]
    for each in all_of_them:
        waiters.put(each)
    gone = set(chance.sample(range(1000), 700))
    for number in gone:
        waiters.drop(all_of_them[number])

    assert len(waiters) == 300
    assert len(waiters._heap) < 800
    assert owners(waiters) == [number for number in range(1000) if number not in gone]
    assert len(waiters) == 0
