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
from tests.llm.memory import Call
from tests.workflows.claims import dossier
from workflows.insurance_claim import assessor, model_server
from workflows.insurance_claim.data import Like, Message, Survey, Verdict, Weather
from workflows.insurance_claim.errors import ModelNotInstalledError
from workflows.insurance_claim.generator import behaviour, make_world, registers
from workflows.insurance_claim.model_front import Counts, SharedAnswers
from workflows.insurance_claim.model_server import ModelServer, running_server
from workflows.insurance_claim.steps import (
    assess_risk,
    fetch_policy,
    find_similar_claims,
    order_survey,
    send_message,
    weather_on,
)
from workflows.insurance_claim.world import CONFIRMED, PATH_SETTING, SMALLER, World

installed = importlib.util.find_spec("xllamacpp") is not None and importlib.util.find_spec("pydantic_ai") is not None
needs_model = pytest.mark.skipif(not installed, reason="the extra `model` is not installed: make setup")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> SharedAnswers:
    return SharedAnswers(tmp_path_factory.mktemp("answers") / "answers.sqlite")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, answers: SharedAnswers) -> Iterator[ModelServer]:
    with running_server(tmp_path_factory.mktemp("model") / "model.log", answers.path) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv(PATH_SETTING, str(tmp_path / "world.sqlite"))
    return make_world(tmp_path / "world.sqlite")


def context(key: str = "call-1", **resources: object) -> StepContext:
    return StepContext(key, 1, datetime(2026, 1, 5, tzinfo=UTC), resources)


@needs_model
async def test_the_model_looks_something_up_and_assesses_and_like_claims_share_that(
    server: ModelServer, answers: SharedAnswers, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LONGWATCH_MODEL_CLAIMS_ASSESSOR", raising=False)
    monkeypatch.setenv("LONGWATCH_MODEL_URL", server.url)
    async with assessor.opened("claims-assessor") as model:
        resources = {"world": world, "model:claims-assessor": model}
        first, like = Call(), Call()
        said = await first.run(assess_risk, dossier(words="burst pipe"), resources)

        assert said.verdict in get_args(Verdict)
        assert await like.run(assess_risk, dossier(amount_eur=950), resources) == said
    assert first.begun == like.begun == ["turn 1", "find_similar_claims 1.1", "turn 2"]
    assert answers.counts() == Counts(model_calls=2, answers_shared=2)
    assert first.used == like.used
    assert all(used.cost for used in first.used)
    assert {key for key, _ in answers.asked()} == {"run.call.turn-1", "run.call.turn-2"}


@needs_model
def test_a_server_ends_by_its_pid(tmp_path: Path) -> None:
    with running_server(tmp_path / "model.log", tmp_path / "answers.sqlite") as server:
        os.kill(server.pid, signal.SIGTERM)

        assert server.process.wait(timeout=10) == 0
    assert not model_server.is_ready(server.port)


def test_a_missing_extra_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with (
        pytest.raises(ModelNotInstalledError, match="make setup"),
        running_server(tmp_path / "model.log", tmp_path / "answers.sqlite"),
    ):
        pass


async def test_the_other_steps_read_and_write_the_world(world: World) -> None:
    claim, (policies, _) = behaviour(0).claim, registers()
    here = context(world=world)
    await send_message(Message(to="u-1", text="send a photo"), here)
    await send_message(Message(to="u-1", text="send a photo"), here)

    assert await fetch_policy(claim.policy_id, here) == policies[claim.policy_id]
    assert world.repeated_visits() == 2
    assert [(key, attempts) for key, _, attempts in world.messages()] == [("call-1", 2)]


async def test_the_tools_answer_in_bands(world: World) -> None:
    here = context(world=world)

    assert await find_similar_claims(Like(amount="small"), here) == "others like it were approved"
    assert await weather_on(Weather(cause="hail"), here) == "hail was reported"
    assert await weather_on(Weather(cause="storm"), here) == "no storm was reported"


async def test_a_survey_is_ordered_once_for_a_key(world: World) -> None:
    survey = Survey(of="building")
    found = {await order_survey(survey, context(f"call-{n % 20}", world=world)) for n in range(40)}

    assert found == {CONFIRMED, SMALLER}
    assert world.surveys() == 20
