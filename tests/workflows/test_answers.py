from __future__ import annotations

import asyncio
import fcntl
import hashlib
from pathlib import Path

import pytest

from tests.workflows.claims import verdict
from workflows.insurance_claim.answers import Asked, Counts, SharedAnswers, Use
from workflows.insurance_claim.data import Assessment


class Model:
    """Counts how often it is asked; answers when it is let."""

    def __init__(self, *, failures: int = 0) -> None:
        self.asked, self.failures = 0, failures
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def ask(self) -> Asked:
        self.asked += 1
        self.was_asked.set()
        await self.may_answer.wait()
        if self.failures:
            self.failures -= 1
            message = "down"
            raise ConnectionError(message)
        return Asked(verdict("low risk"), requests=1, seconds=0.5)


@pytest.fixture
def answers(tmp_path: Path) -> SharedAnswers:
    return SharedAnswers(tmp_path / "answers.sqlite")


async def ask_all(answers: SharedAnswers, model: Model, count: int) -> list[Assessment | BaseException]:
    asking = [asyncio.create_task(answers.answer("like", Use(f"call-{n}", 1), model.ask)) for n in range(count)]
    await model.was_asked.wait()
    model.may_answer.set()
    return await asyncio.gather(*asking, return_exceptions=True)


async def test_like_questions_asked_at_once_are_asked_once(answers: SharedAnswers) -> None:
    model = Model()

    assert await ask_all(answers, model, 8) == [verdict("low risk")] * 8
    assert model.asked == 1
    assert answers.counts() == Counts(model_calls=1, answers_shared=7)
    assert answers.seconds() == [0.5]


async def test_an_answer_outlives_its_process(answers: SharedAnswers) -> None:
    await ask_all(answers, Model(), 1)
    later = Model()

    assert await SharedAnswers(answers.path).answer("like", Use("call-9", 1), later.ask) == verdict("low risk")
    assert later.asked == 0


async def test_a_call_that_asked_and_is_repeated_after_a_kill_is_not_counted_as_shared(answers: SharedAnswers) -> None:
    await ask_all(answers, Model(), 1)
    await answers.answer("like", Use("call-0", 1), Model().ask)

    assert answers.counts() == Counts(model_calls=1, answers_shared=0)


async def test_when_asking_fails_the_next_one_asks(answers: SharedAnswers) -> None:
    model = Model(failures=1)
    results = await ask_all(answers, model, 3)

    assert [type(each) for each in results].count(ConnectionError) == 1
    assert results.count(verdict("low risk")) == 2
    assert model.asked == 2


async def test_a_different_question_is_asked_for_itself(answers: SharedAnswers) -> None:
    model = Model()
    model.may_answer.set()
    await answers.answer("one", Use("call-1", 1), model.ask)
    await answers.answer("two", Use("call-2", 1), model.ask)

    assert model.asked == 2


async def test_only_so_many_are_asked_at_once(tmp_path: Path) -> None:
    answers, model = SharedAnswers(tmp_path / "answers.sqlite", at_once=2), Model()
    asking = [asyncio.create_task(answers.answer(f"q-{n}", Use(f"call-{n}", 1), model.ask)) for n in range(4)]
    done, _ = await asyncio.wait(asking, timeout=0.3)
    assert (len(done), model.asked, answers.counts().model_calls) == (0, 2, 2)

    model.may_answer.set()
    await asyncio.gather(*asking)

    assert model.asked == 4


async def test_a_lock_file_without_an_owner_holds_nobody_up(answers: SharedAnswers) -> None:
    """So it is after a kill: the file stays, the kernel has freed the lock."""
    key = hashlib.sha256(b"like").hexdigest()[:32]
    with (answers.locks / key).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

    assert (await ask_all(answers, Model(), 1)) == [verdict("low risk")]
