"""With the real model, where its packages are installed: seconds."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from engine import StepContext
from tests.workflows.claims import dossier
from workflows.insurance_claim import model_server
from workflows.insurance_claim.answers import Counts
from workflows.insurance_claim.assessor import Assessor
from workflows.insurance_claim.data import Message, Verdict
from workflows.insurance_claim.errors import ModelNotInstalledError
from workflows.insurance_claim.generator import behaviour, make_world, registers
from workflows.insurance_claim.model_server import ModelServer, running_server
from workflows.insurance_claim.steps import assess_risk, fetch_policy, send_message
from workflows.insurance_claim.world import PATH_SETTING, World

installed = importlib.util.find_spec("xllamacpp") is not None and importlib.util.find_spec("pydantic_ai") is not None
needs_model = pytest.mark.skipif(not installed, reason="the extra `model` is not installed: make setup")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with running_server(tmp_path_factory.mktemp("model") / "model.log") as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv(PATH_SETTING, str(tmp_path / "world.sqlite"))
    return make_world(tmp_path / "world.sqlite")


def context(**resources: object) -> StepContext:
    return StepContext("call-1", 1, datetime(2026, 1, 5, tzinfo=UTC), resources)


@needs_model
async def test_the_model_assesses_and_like_claims_share_it(
    server: ModelServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LONGWATCH_MODEL", raising=False)
    monkeypatch.setenv("LONGWATCH_MODEL_URL", server.url)
    async with Assessor.from_environment() as assessor:
        first = await assess_risk(dossier(words="burst pipe"), context(assessor=assessor, world=world))
        like = StepContext("call-2", 1, datetime(2026, 1, 5, tzinfo=UTC), {"assessor": assessor, "world": world})
        second = await assess_risk(dossier(amount_eur=950, words="burst pipe"), like)

        assert first.verdict in get_args(Verdict)
        assert second == first
        assert assessor.answers.counts() == Counts(model_calls=1, answers_shared=1)


@needs_model
async def test_a_model_that_is_not_there_is_a_failed_attempt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGWATCH_MODEL", raising=False)
    monkeypatch.setenv("LONGWATCH_MODEL_URL", f"http://127.0.0.1:{model_server.free_port()}/v1")
    async with Assessor.from_environment() as assessor:
        with pytest.raises(Exception, match="Connection"):
            await assess_risk(dossier(), context(assessor=assessor, world=world))


@needs_model
def test_a_server_ends_by_its_pid(tmp_path: Path) -> None:
    with running_server(tmp_path / "model.log") as server:
        os.kill(server.pid, signal.SIGTERM)

        assert server.process.wait(timeout=10) == 0
    assert not model_server.answers(server.port)


def test_a_missing_extra_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ModelNotInstalledError, match="make setup"), running_server(tmp_path / "model.log"):
        pass


async def test_the_other_steps_read_and_write_the_world(world: World) -> None:
    claim, (policies, _) = behaviour(0).claim, registers()
    here = context(world=world)
    await send_message(Message(to="u-1", text="send a photo"), here)
    await send_message(Message(to="u-1", text="send a photo"), here)

    assert await fetch_policy(claim.policy_id, here) == policies[claim.policy_id]
    assert world.repeated_visits() == 2
    assert [(key, attempts) for key, _, attempts in world.messages()] == [("call-1", 2)]
