"""What `docs/people.md` shows works: the state that asks, the step that asks, and the client, on a real log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import Application, Client, StepContext
from engine.log.archive import Archive
from engine.log.redis_log import RedisLog
from engine.log.server import EmbeddedRedis
from engine.settings import Settings
from engine.testing import Simulation
from tests.cli.pages import Page
from tests.plain_engine import PlainEngine

PAGE = Page("people")

AROUND = """
from engine import StepFailed, runs


class Paying(State):
    claim: Filed

    @runs(pay_out)
    def payment(self) -> str:
        return self.claim.claim_id

    @payment.done
    def paid(self, words: str) -> Paid:
        return Paid(words=words)

    @payment.failed
    def failed(self, failure: StepFailed) -> Paid:
        return Paid(words=failure.error)


class Paid(Final):
    words: str


def pay(event: Filed) -> Paying:
    return Paying(claim=event)


payments = Workflow("payments", start=pay, states=[Paying, Paid])
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return PAGE.module(tmp_path_factory.mktemp("people"), *PAGE.blocks("python"), AROUND)


def test_the_pages_state_passes_the_pages_test(page: ModuleType) -> None:
    page.test_a_reviewer_decides()


def test_a_claim_that_nobody_decides_is_closed_by_the_calendar(page: ModuleType) -> None:
    run = Simulation(page.claims)
    run.fake(page.remind_reviewers, lambda claim_id: None)
    run.send(page.Filed(claim_id="4711", text="hail"))
    run.advance(days=14)

    assert run.state() == page.Closed(approved=False, by="calendar")


class Bank:
    async def pay(self, claim: str, *, key: str) -> str:
        assert key
        return f"{claim} paid"


@pytest.mark.parametrize(("said", "words"), [("yes", "4711 paid"), ("no", "cleo said no: ")])
def test_the_pages_step_asks_for_leave(page: ModuleType, said: str, words: str) -> None:
    assert StepContext is page.StepContext
    run = Simulation(page.payments)
    run.real(page.pay_out, resources={"bank": Bank()})
    run.send(page.Filed(claim_id="4711", text="hail"))
    run.advance(days=30)
    assert [asks.group for asks in run.inbox()] == ["treasury"]
    run.answer(said, who="cleo")

    assert run.state() == page.Paid(words=words)


@pytest.mark.redis
async def test_the_pages_client_answers_what_waits(page: ModuleType, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", fsync="everysec")
    server.ensure()
    app = Application(workflows=[page.claims])
    log = RedisLog.create(server.url, 1, archive=Archive(tmp_path / "archive"))
    engine = PlainEngine(app, log, server.url)
    try:
        async with Client(app, settings=Settings(data=tmp_path, log=server.url)) as client:
            await client.send(page.Filed(claim_id="4711", text="hail"), page.Filed(claim_id="4712", text="storm"))
            engine.work()
            taking = asyncio.ensure_future(client.take("claims/4712", "bob"))
            await _worked(engine, taking)
            answering = asyncio.ensure_future(page.approve_all(client, "ann"))
            await _worked(engine, answering)
    finally:
        engine.close()
        log.close()
        server.stop()

    closed, taken = sorted(answering.result())
    assert closed == "claims/4711 is in Closed"
    assert taken.startswith("claims/4712 is taken by bob")


async def _worked(engine: PlainEngine, task: asyncio.Future[Any]) -> None:
    while not task.done():
        engine.work()
        await asyncio.sleep(0)
    await task
