"""What waits for people is listed and answered; of two who answer at once one is first, and the other is told."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Awaitable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from engine.client import Client
from engine.core.account import ACCOUNTS, BudgetRaised
from engine.core.errors import EventRefused
from engine.core.model import Raise
from engine.core.steps import Leave
from engine.inbox import AlreadyAnswered, NothingAsked, TakenByOther
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.reports import OrderRefused, UnknownRun, WaitTimeout
from engine.settings import Settings
from tests import desk
from tests.desk import POISON, ClaimFiled, Colour, Dreamt, MoreWanted, ReviewDecided
from tests.plain_engine import PlainEngine

T = TypeVar("T")


@pytest.fixture
def engine(log: RedisLog, server: EmbeddedRedis) -> Iterator[PlainEngine]:
    engine = PlainEngine(desk.app, log, server.url)
    yield engine
    engine.close()


@pytest.fixture
async def client(log: RedisLog, server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Client]:
    del log
    async with Client(desk.app, settings=Settings(data=tmp_path, log=server.url)) as client:
        yield client


async def worked(engine: PlainEngine, asking: Awaitable[T]) -> T:
    """What is asked for, while the engine works."""
    task = asyncio.ensure_future(asking)
    while not task.done():
        engine.work()
        await asyncio.sleep(0)
    return await task


async def appended(log: RedisLog, count: int) -> None:
    """Return when so many answers stand on the log, of which the engine knows nothing yet."""
    found = 0
    while found < count:
        await asyncio.sleep(0)
        items = [item for each in range(log.header.partitions) for item in log.scan("log", each)]
        found = sum(b'"who"' in item.payload for item in items)


async def filed(client: Client, engine: PlainEngine, claim: str = "4711") -> None:
    await client.send(ClaimFiled(claim=claim))
    engine.work()


async def asking(client: Client, engine: PlainEngine) -> None:
    """A claim whose step asks for leave."""
    await filed(client, engine)
    await worked(engine, client.answer("4711", MoreWanted(what="a barn"), who="ann"))
    engine.work()


async def test_the_inbox_says_all_that_one_needs_to_answer(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    (item,) = await client.inbox("claims-reviewers")

    assert (item.address, item.state, item.visit) == ("claims/4711", "HumanReview", 1)
    assert item.question == "Somebody reads the claim and decides."
    assert item.since is not None
    assert item.until is not None
    assert (item.until - item.since).days == 14
    assert [choice.name for choice in item.choices] == ["ReviewDecided", "MoreWanted"]
    assert item.choices[0].fields["note"]["maxLength"] == 40
    assert await client.inbox("adjusters") == []
    assert await client.asked("4711") == [type(item)(**{**vars(item), "place": (0, 0, 0)})]


async def test_an_answer_to_a_state_says_whose_it_is(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    outcome = await worked(engine, client.answer("4711", ReviewDecided(claim="4711", approve=True), who="ann"))
    detail = await client.show("4711")

    assert (outcome.state, outcome.status, outcome.held) == ("Decided", "finished", "")
    assert detail.data == {"approve": True, "by": "ann"}
    assert [line.who for line in await client.history("4711")] == ["", "ann"]
    assert await client.inbox() == []


async def test_the_runs_key_is_filled_in(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    outcome = await worked(engine, client.answer("4711", {"approve": False}, type="ReviewDecided", who="ann"))

    assert outcome.state == "Decided"


async def test_a_call_is_answered_and_goes_on_with_the_answers(client: Client, engine: PlainEngine) -> None:
    await asking(client, engine)
    (leave,) = await client.inbox("adjusters")
    await worked(engine, client.answer(leave, Leave(granted=True), who="bob"))
    engine.work()
    (colour,) = await client.inbox()
    await worked(engine, client.answer("4711", Colour(colour="red"), who="cid"))
    engine.work()
    (review,) = await client.inbox()

    assert (leave.question, leave.name, leave.choices[0].name) == ("Order a survey for a barn?", "survey", "Leave")
    assert (colour.group, colour.question) == ("painters", "Which colour?")
    assert (review.group, review.visit) == ("claims-reviewers", 3)
    assert (await client.show("4711")).data["text"] == "red survey, says bob"


@pytest.mark.parametrize("of_state", [True, False], ids=["a state", "a call"])
async def test_of_two_who_answer_at_once_one_wins_and_the_other_is_told(
    client: Client, engine: PlainEngine, log: RedisLog, server: EmbeddedRedis, tmp_path: Path, *, of_state: bool
) -> None:
    del log
    await (filed if of_state else asking)(client, engine)
    answer: Any = ReviewDecided(claim="4711", approve=True) if of_state else Leave(granted=False)
    async with Client(desk.app, settings=Settings(data=tmp_path / "other", log=server.url)) as other:
        (item,) = await client.inbox()
        asked = [asyncio.ensure_future(each.answer(item, answer, who=who)) for each, who in
                 ((client, "ann"), (other, "bob"))]  # fmt: skip
        await appended(engine.log, 2 if of_state else 3)
        results = await worked(engine, asyncio.gather(*asked, return_exceptions=True))

    (won,) = [each for each in results if not isinstance(each, BaseException)]
    (lost,) = [each for each in results if isinstance(each, BaseException)]
    assert isinstance(lost, AlreadyAnswered)
    assert lost.by == won.who
    assert lost.at == won.at
    assert {won.who, lost.by} < {"ann", "bob"}
    assert f"answered already, by {won.who}" in str(lost)


async def test_who_comes_later_is_told_who_was_first(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    (item,) = await client.inbox()
    yes = ReviewDecided(claim="4711", approve=True)
    await worked(engine, client.answer(item, yes, who="ann"))

    for run in ("4711", item):
        with pytest.raises(AlreadyAnswered) as caught:
            await client.answer(run, yes, who="bob")

        assert caught.value.by == "ann"
        assert caught.value.now == "Decided"


async def test_an_answer_to_a_visit_that_is_over_does_not_count_in_the_next(
    client: Client, engine: PlainEngine
) -> None:
    await filed(client, engine)
    (item,) = await client.inbox()
    await worked(engine, client.answer(item, {"what": "a barn"}, type="MoreWanted", who="ann"))
    engine.work()
    await worked(engine, client.answer("4711", Leave(granted=False, note="too dear"), who="bob"))
    engine.work()

    assert (await client.show("4711")).run.state == "HumanReview"
    with pytest.raises(AlreadyAnswered) as caught:
        await client.answer(item, ReviewDecided(claim="4711", approve=True), who="cid")

    assert caught.value.by == "ann"


async def test_what_one_has_taken_nobody_else_answers(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    yes = ReviewDecided(claim="4711", approve=True)
    await worked(engine, client.take("4711", "ann"))

    assert [item.taken for item in await client.inbox(mine="ann")] == ["ann"]
    assert await client.inbox(mine="bob") == []
    assert [(c.group, c.waiting, c.taken) for c in await client.inbox_counts()] == [("claims-reviewers", 1, 1)]
    for asked in (client.take("4711", "bob"), client.answer("4711", yes, who="bob")):
        with pytest.raises(TakenByOther) as caught:
            await asked

        assert caught.value.by == "ann"

    await worked(engine, client.release("4711", "bob"))
    with pytest.raises(OrderRefused, match="taken by nobody"):
        await client.release("4711", "ann")
    assert (await worked(engine, client.answer("4711", yes, who="bob"))).state == "Decided"


async def test_two_who_take_at_once_are_told_who_has_it(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    first = asyncio.ensure_future(client.take("4711", "ann"))
    second = asyncio.ensure_future(client.take("4711", "bob"))
    results = await worked(engine, asyncio.gather(first, second, return_exceptions=True))

    assert sorted(type(each).__name__ for each in results) == ["Outcome", "TakenByOther"]


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ({"approve": "perhaps"}, "ReviewDecided", "approve: Input should be a valid boolean"),
        ({"approve": True, "note": "x" * 41}, "ReviewDecided", "note: String should have at most 40 characters"),
        ({"approve": True, "mood": 1}, "ReviewDecided", "mood: Extra inputs are not permitted"),
        ({}, "ReviewDecided", "approve: Field required (ReviewDecided has claim, approve, note)"),
        ({"approve": True, "claim": "4712"}, "ReviewDecided", "claim: is '4712', but the run that is answered"),
        ({"approve": True}, "", "answer: say which: HumanReview may be answered with ReviewDecided, MoreWanted"),
        ({"approve": True}, "Decided", "answer: 'Decided' is no answer to HumanReview; choose ReviewDecided"),
        ([1], "MoreWanted", "MoreWanted: Input should be an object"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(
    client: Client, engine: PlainEngine, answer: Any, kind: str, words: str
) -> None:
    await filed(client, engine)
    with pytest.raises(EventRefused) as caught:
        await client.answer("4711", answer, type=kind, who="ann")

    assert words in str(caught.value)
    assert len(await client.history("4711")) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"granted": "yes"}, "granted: 'yes' is not of type 'boolean' (Leave has granted, note)"),
        ({}, "Leave: 'granted' is a required property"),
        ({"granted": True, "more": 1}, "Leave: Additional properties are not allowed ('more' was unexpected)"),
        (True, "Leave: True is not of type 'object'"),
    ],
)
async def test_an_answer_to_a_call_is_checked_against_its_schema(
    client: Client, engine: PlainEngine, answer: Any, words: str
) -> None:
    await asking(client, engine)
    with pytest.raises(EventRefused) as caught:
        await client.answer("4711", answer, who="ann")

    assert words in str(caught.value)


async def test_a_run_whose_budget_is_spent_gets_more(client: Client, engine: PlainEngine) -> None:
    await client.send(Dreamt(text="a"), key="d")
    engine.work()
    asked = await client.inbox("budgets")
    await worked(engine, client.answer(asked[0], Raise(eur=Decimal(1)), who="ann"))
    engine.work()
    (leave,) = await client.inbox()
    await worked(engine, client.answer(leave, Leave(granted=True), who="bob"))

    assert [(item.address, item.name) for item in asked] == [("dreams/d", "budget")]
    assert "0.30 EUR, 0.20 of 0.50 are left" in asked[0].question
    assert [choice.name for choice in asked[0].choices] == ["Raise"]
    assert leave.group == "parents"
    assert (await client.show("d")).data == {"text": "a dream of a, a doze with a"}


async def test_a_run_that_asks_several_things_is_answered_by_name(client: Client, engine: PlainEngine) -> None:
    await client.send(Dreamt(text="a"), key="d")
    engine.work()
    with pytest.raises(OrderRefused, match=r"asks 2 things, say which: .*--call"):
        await client.answer("d", Leave(granted=True), who="ann")
    await worked(engine, client.answer("d", Raise(), name="budget", who="ann"))
    engine.work()

    assert (await client.show("d")).data == {"text": "BudgetRefused: ann gave no more"}


async def test_an_account_whose_budget_is_spent_gets_more(client: Client, engine: PlainEngine) -> None:
    for key in "abc":
        await client.send(Dreamt(text=key), key=key)
    engine.work()
    (spent,) = [item for item in await client.inbox("budgets") if item.workflow == ACCOUNTS]
    before = len(await client.inbox("parents"))
    await worked(engine, client.raise_budget("nights", eur="0.30", who="ann"))
    engine.work()

    assert (spent.key, [choice.name for choice in spent.choices]) == ("nights", ["BudgetRaised"])
    assert (before, len(await client.inbox("parents"))) == (2, 3)
    assert [line.who for line in await client.history(spent.address) if line.who] == ["ann"]
    with pytest.raises(EventRefused, match="nothing is added"):
        await client.raise_budget("nights", who="ann")


async def test_nobody_sends_himself_money(client: Client) -> None:
    with pytest.raises(EventRefused, match="type: is not taken from outside"):
        await client.send(BudgetRaised(account="nights", eur=Decimal(1000)))


async def test_what_is_not_there_is_said(client: Client, engine: PlainEngine) -> None:
    with pytest.raises(UnknownRun):
        await client.answer("4711", {}, who="ann")
    await filed(client, engine)
    with pytest.raises(EventRefused, match="who: is empty"):
        await client.answer("4711", ReviewDecided(claim="4711", approve=True), who=" ")
    with pytest.raises(NothingAsked, match=r"does not ask that .*--call state"):
        await client.answer("4711", {}, call="c-9", who="ann")
    await client.send(Dreamt(text="a"), key="d")
    engine.work()
    with pytest.raises(NothingAsked, match="asks people nothing"):
        await client.answer("nights", {"tokens": 1}, who="ann")
    with pytest.raises(NothingAsked, match="asks people nothing"):
        await client.take("nights", "ann")


async def test_an_answer_that_halts_the_run_is_told_and_put_off(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    (item,) = await client.inbox()
    poison = ReviewDecided(claim="4711", approve=True, note=POISON)
    outcome = await worked(engine, client.answer(item, poison, who="ann"))

    assert (outcome.status, outcome.state) == ("halted", "HumanReview")
    assert outcome.held == "the run halted over it: RuntimeError: no decision by poison"
    assert await client.inbox() == []
    with pytest.raises(OrderRefused, match="claims/4711 is halted"):
        await client.answer(item, ReviewDecided(claim="4711", approve=True), who="bob")
    await client.skip("4711", who="cid")
    engine.work()
    assert (await worked(engine, client.answer(item, {"approve": False}, type="ReviewDecided", who="bob"))).held == ""


async def test_without_an_engine_the_answer_stands_on_the_log(client: Client, engine: PlainEngine) -> None:
    await filed(client, engine)
    yes = ReviewDecided(claim="4711", approve=True)
    with pytest.raises(WaitTimeout, match="stand on the log"):
        await client.answer("4711", yes, who="ann", timeout=0.1)
    engine.work()

    assert (await client.show("4711")).run.state == "Decided"


def test_who_was_first_survives_pickling() -> None:
    for error in (AlreadyAnswered("claims/1", "ann", None, "Decided"), TakenByOther("claims/1", "ann")):
        copy = pickle.loads(pickle.dumps(error))

        assert (str(copy), vars(copy)) == (str(error), vars(error))
