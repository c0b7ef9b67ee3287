"""Which model a name is: by the application, the project file, the environment; and what a definition refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai.models import Model as Asked
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

from engine import (
    Application,
    DefinitionError,
    Event,
    Limit,
    Model,
    Price,
    State,
    StepFailed,
    StepHalts,
    Workflow,
    llm_step,
    runs,
)
from engine import Final as End
from engine.llm.connections import Candidate
from engine.llm.model import chosen
from engine.llm.opened import OpenedModel
from engine.settings import ModelSettings
from tests.llm.memory import Call
from tests.providers import Answer, Plausible, Provider

NAME = "claims-assessor"


class Question(BaseModel, frozen=True):
    text: str


class Verdict(BaseModel, frozen=True):
    verdict: str


class Filed(Event, key="text"):
    text: str


class Done(End):
    verdict: str = ""


assess = llm_step("assess", model=NAME, instructions="Assess.", takes=Question, gives=Verdict)


class Assessing(State):
    text: str

    @runs(assess)
    def question(self) -> Question:
        return Question(text=self.text)

    @question.done
    def assessed(self, verdict: Verdict) -> Done:
        return Done(verdict=verdict.verdict)

    @question.failed
    def unassessed(self, failure: StepFailed) -> Done:
        return Done(verdict=failure.error)


def begin(filed: Filed) -> Assessing:
    return Assessing(text=filed.text)


claims = Workflow("claims", start=begin, states=[Assessing, Done])


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a project, and an environment without keys."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LONGWATCH_MODEL_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def candidates(model: Model, name: str = NAME) -> tuple[Candidate, ...]:
    async with model.opened(name) as opened:
        assert isinstance(opened, OpenedModel)
        return await opened.candidates()


# -- who it is ---------------------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_project_file_which_wins_over_the_code() -> None:
    model = Model("openai:gpt-5-mini", fallback=["embedded"], price=Price(1, 2), settings={"temperature": 0})
    table = ModelSettings(model="anthropic:claude-haiku-4-5", fallback=("openai:gpt-5",), key="TEAM_KEY")

    by_file = chosen(NAME, model, table, {})
    assert by_file == Model(
        "anthropic:claude-haiku-4-5", fallback=["openai:gpt-5"], key_setting="TEAM_KEY", settings={"temperature": 0}
    )

    own = "LONGWATCH_MODEL_CLAIMS_ASSESSOR"
    by_environment = chosen(
        NAME, model, table, {own: "embedded", f"{own}_URL": "http://x/v1", f"{own}_FALLBACK": "none"}
    )
    assert by_environment == Model("embedded", base_url="http://x/v1", settings={"temperature": 0})

    assert chosen(NAME, model, None, {f"{own}_FALLBACK": "a:b, embedded"}).fallback == ("a:b", "embedded")
    assert chosen(NAME, model, None, {}) == model


def test_another_model_does_not_get_what_was_said_of_the_first() -> None:
    model = Model("openai:gpt-5-mini", price=Price(1, 2), settings={"openai_store": False, "max_tokens": 9})
    other = chosen(NAME, model, ModelSettings(model="anthropic:claude-haiku-4-5"), {})

    assert other.price is None
    assert dict(other.settings) == {"max_tokens": 9}


@pytest.mark.parametrize("spec", ["gpt-5-mini", "", "openai:", "Open AI:x", "openai:gpt 5"])
def test_what_is_no_models_name_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="write provider:name"):
        Model(spec)
    with pytest.raises(ValueError, match="write provider:name"):
        Model("embedded", fallback=[spec])


def test_a_fallback_is_a_list() -> None:
    with pytest.raises(TypeError, match="fallback is a list"):
        Model("embedded", fallback="openai:gpt-5")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai:gpt-5-mini", OpenAIResponsesModel),
        ("openai-chat:gpt-5-mini", OpenAIChatModel),
        ("anthropic:claude-haiku-4-5", AnthropicModel),
        ("embedded", OpenAIChatModel),
        ("embedded:other", OpenAIChatModel),
    ],
)
async def test_a_name_makes_a_model(name: str, kind: type[Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGWATCH_MODEL_CLAIMS_ASSESSOR_KEY", "k")
    (made,) = await candidates(Model(name))

    assert isinstance(made.asked, kind)
    assert made.asked.model_name == {"embedded": "smollm2-135m"}.get(name, name.partition(":")[2])
    assert made.output == ("held" if made.who.provider == "embedded" else "native")


async def test_how_a_model_answers_can_be_said() -> None:
    (made,) = await candidates(Model("embedded", output="tool"))

    assert made.output == "tool"


async def test_the_keys_variable_of_the_environment_is_for_the_first_model_alone(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGWATCH_MODEL_CLAIMS_ASSESSOR_KEY", "first-key")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "usual-key")
    provider.default = Answer(json={"verdict": "v"})
    second = Model("anthropic:claude-haiku-4-5", base_url=provider.url)
    async with Model("openai:m", base_url=provider.openai_url, fallback=[second]).opened(NAME) as opened:
        first, other = await opened.candidates()
        for one in (first, other):
            call = Call()
            await call.run(assess, Question(text="t"), {f"model:{NAME}": (one,)})

    headers = [request.headers for request in provider.requests]
    assert headers[0]["authorization"] == "Bearer first-key"
    assert headers[1]["authorization"] == "Bearer usual-key"


async def test_the_project_file_chooses_at_run_time(place: Path, provider: Provider) -> None:
    (place / "longwatch.toml").write_text(
        f'eur_per_usd = 0.9\n[models.{NAME}]\nmodel = "embedded"\nurl = "{provider.openai_url}"\n', encoding="utf-8"
    )
    provider.default = Plausible()
    call = Call()
    async with Model("openai:gpt-5-mini").opened(NAME) as opened:
        await call.run(assess, Question(text="t"), {f"model:{NAME}": opened})
        (made,) = await opened.candidates()

    assert str(made.eur_per_usd) == "0.9"
    assert call.used[0].cost == 0
    (request,) = provider.requests
    assert request.model == "smollm2-135m"
    assert request.asked.schema is not None
    assert "authorization" in request.headers


async def test_settings_that_cannot_be_used_halt_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGWATCH_MODEL_CLAIMS_ASSESSOR", "gpt")

    with pytest.raises(StepHalts, match=r"model 'claims-assessor': .*write provider:name"):
        await candidates(Model("embedded"))


async def test_a_worker_that_asks_nobody_connects_to_nobody() -> None:
    async with Model("openai:no-key-anywhere").opened(NAME) as opened:
        assert isinstance(opened, OpenedModel)


def test_the_price_of_a_well_known_model_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.llm.price import is_known  # noqa: PLC0415 - an extra

    assert is_known(provider="openai", model="gpt-5-mini")


# -- the application ---------------------------------------------------------------------------------------------------


def test_an_application_names_the_models_that_its_steps_ask() -> None:
    app = Application(workflows=[claims], models={NAME: Model("embedded", limits=Limit(calls=2))})

    assert list(app.worker_resources()) == [f"model:{NAME}"]
    assert app.limits() == {f"model:{NAME}": Limit(calls=2)}


def test_a_model_that_is_not_named_is_found_at_definition() -> None:
    with pytest.raises(DefinitionError, match=r"asks the model 'claims-assessor', but models= is not given"):
        Application(workflows=[claims])
    with pytest.raises(DefinitionError, match=r"but models= names other; write Application\(models="):
        Application(workflows=[claims], models={"other": Model("embedded")})


@pytest.mark.parametrize("name", ["Claims", "claims_assessor", "a-url", "key", "x-fallback", "", "1a"])
def test_a_models_name_is_one_that_a_variable_can_be_made_of(name: str) -> None:
    models: dict[str, Any] = {NAME: Model("embedded"), name: Model("embedded")}

    with pytest.raises(DefinitionError, match="its environment variables are made of it"):
        Application(workflows=[claims], models=models)


def test_defining_a_thinking_step_imports_no_client() -> None:
    code = (
        "import sys, json; import engine; from engine import Limits, Model, asking_leave, llm_step, mcp_tools;"
        "Model('openai:gpt-5', fallback=['embedded']); mcp_tools('http://x/mcp');"
        "llm_step('a', model='m', instructions='i', takes=str, gives=str, limits=Limits(calls=1));"
        "heavy = {'pydantic_ai', 'openai', 'anthropic', 'mcp', 'fastmcp', 'httpx2', 'genai_prices', 'redis'};"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    here = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)

    assert json.loads(found.stdout) == []
