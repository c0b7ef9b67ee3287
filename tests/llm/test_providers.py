"""Against a real server on loopback that misbehaves on order, through `Model`, its clients, and the loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest
from openai import AsyncOpenAI, omit
from pydantic import BaseModel

from engine import Limits, Model, NeverAgain, Price, Retry, Step, StepHalts, llm_step, step
from engine.limits.outcome import OK, Outage
from engine.llm.connections import Health
from engine.llm.quick_chat import QuickOpenAI
from tests.llm.memory import Call, Moment
from tests.providers import (
    FOREVER,
    Answer,
    Behaviour,
    Cut,
    Drip,
    EmptyChoices,
    Huge,
    Never,
    NotJson,
    OtherShape,
    Plausible,
    Provider,
    Refuse,
    SameToolForEver,
    Status,
    Tokens,
    TwoAnswers,
    UnknownTool,
    WrongToolArguments,
)

KEY = "sk-never-to-be-seen-again-4711"
PROTOCOLS = ("openai-chat", "openai-responses", "anthropic")


class Dossier(BaseModel, frozen=True):
    claim: str


class Assessment(BaseModel, frozen=True):
    verdict: str
    score: int


class Lookup(BaseModel, frozen=True):
    number: int


@step()
async def look_up(asked: Lookup) -> str:
    """Look something up."""
    return f"found {asked.number}"


GOOD = Answer(json=Assessment(verdict="low risk", score=1), tokens=Tokens(100, 20, 40))
PRICE = Price(1, 2)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", KEY)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def model(provider: Provider, protocol: str = "openai-chat", **more: Any) -> Model:
    url = provider.url if protocol == "anthropic" else provider.openai_url
    name = "claude-haiku-4-5" if protocol == "anthropic" else "gpt-5-mini"
    return Model(f"{protocol}:{name}", base_url=url, key_setting="OUR_KEY", **more)


def assess(**more: Any) -> Step[Dossier, Assessment]:
    known: dict[str, Any] = {"model": "assessor", "instructions": "Assess.", "takes": Dossier, "gives": Assessment}
    return llm_step("assess_risk", **(known | more))


@contextlib.asynccontextmanager
async def opened(chosen: Model) -> AsyncIterator[dict[str, Any]]:
    async with chosen.opened("assessor") as found:
        yield {"model:assessor": found}


async def ask(chosen: Model, call: Call, asked: Step[Dossier, Assessment] | None = None, tries: int = 20) -> Assessment:
    async with opened(chosen) as resources:
        return await call.run(asked or assess(), Dossier(claim="c"), resources, tries=tries)


def charged(provider: Provider, since: int) -> int:
    """Tokens that the server has counted."""
    return sum(request.tokens.total for request in provider.requests[since:])


async def test_a_model_answers_and_says_what_it_took(provider: Provider, protocol: str) -> None:
    provider.script = [GOOD]
    call = Call()

    answer = await ask(model(provider, protocol, price=PRICE), call)

    assert answer == Assessment(verdict="low risk", score=1)
    (used,) = call.used
    assert used.model == "assessor"
    assert used.answered
    assert (used.input, used.output, used.cached) == (100, 20, 40)
    assert used.cost == 140
    assert used.finish in {"stop", "tool_call"}
    assert used.request
    assert call.reports == [OK]
    (gate, tokens) = call.gates[0]
    assert gate == "model:assessor"
    assert tokens > 0


async def test_the_inner_calls_id_is_the_idempotency_key_where_the_provider_has_one(
    provider: Provider, protocol: str
) -> None:
    provider.script = [Status(500), GOOD]
    await ask(model(provider, protocol), Call())

    keys = [r.headers.get("idempotency-key") for r in provider.requests]
    assert keys == [None if protocol == "anthropic" else "run.call.turn-1"] * 2


async def test_an_agent_of_ten_turns_killed_at_each_of_its_keeps_pays_for_nothing_twice_that_was_kept(
    provider: Provider, protocol: str
) -> None:
    provider.default = Plausible(turns=9)
    agent = assess(tools=[look_up])
    async with opened(model(provider, protocol, price=PRICE)) as resources:
        whole = Call()
        expected = await whole.run(agent, Dossier(claim="c"), resources)
        assert len(provider.requests) == 10
        assert sum(u.tokens for u in whole.used) == charged(provider, 0)
        for place in range(1, len(whole.kept) + 1, 1 if protocol == "openai-chat" else 5):
            for moment in get_args(Moment):
                before = len(provider.requests)
                killed = Call(die=(place, moment))
                answer = await killed.run(agent, Dossier(claim="c"), resources)

                assert answer == expected
                is_turn = list(whole.kept)[place - 1].startswith("turn")
                lost = is_turn and moment == "before"
                paid = sum(u.tokens for u in killed.used)
                assert len(provider.requests) - before == (11 if lost else 10)
                assert paid < charged(provider, before) if lost else paid == charged(provider, before)


@pytest.mark.parametrize(
    ("fault", "name", "outage", "after"),
    [
        (Status(429, retry_after=7), "RateLimited", True, 7),
        (Status(429), "RateLimited", True, None),
        (Status(429, retry_after=9, as_date=True, clock=timedelta(hours=5)), "RateLimited", True, 9),
        (Status(500), "ProviderFailed", True, None),
        (Status(529), "ProviderOverloaded", True, None),
        (Cut(), "ConnectionFailed", True, None),
        (Cut(reset=True), "ConnectionFailed", True, None),
        (OtherShape(), "AnswerInvalid", False, None),
        (Huge(), "AnswerTooLong", False, None),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
async def test_a_trouble_of_the_provider_is_waited_for(
    provider: Provider, protocol: str, fault: Behaviour, name: str, outage: bool, after: float | None
) -> None:
    provider.script = [fault, GOOD]
    call = Call()

    answer = await ask(model(provider, protocol), call)

    assert answer.score == 1
    (wait,) = call.waits
    assert (type(wait).__name__, wait.outage) == (name, outage)
    if after is None:
        assert wait.after is None
    else:
        assert wait.after is not None
        assert abs(wait.after.total_seconds() - after) <= 1
    assert KEY not in str(wait)
    assert KEY.encode() not in b"".join(call.kept.values())
    assert call.begun == ["turn 1", "turn 1"]
    assert [type(r) for r in call.reports] == [Outage if outage else type(OK), type(OK)]
    assert len(call.used) == 1


@pytest.mark.parametrize(
    "fault", [NotJson(), EmptyChoices(), TwoAnswers(), Drip()], ids=lambda fault: type(fault).__name__
)
async def test_an_odd_answer_costs_a_turn_or_an_attempt_and_no_more(
    provider: Provider, protocol: str, fault: Behaviour
) -> None:
    provider.script = [fault, GOOD]

    answer = await ask(model(provider, protocol), Call())

    assert isinstance(answer, Assessment)
    assert len(provider.requests) <= 2


async def test_a_provider_that_is_not_there_is_an_outage(provider: Provider, protocol: str) -> None:
    call = Call()
    async with opened(model(provider, protocol)) as resources:
        provider.down()
        with pytest.raises(AssertionError):
            await call.run(assess(), Dossier(claim="c"), resources, tries=3)
        provider.up()
        answer = await call.run(assess(), Dossier(claim="c"), resources)

    assert isinstance(answer, Assessment)
    assert [type(w).__name__ for w in call.waits] == ["ConnectionFailed"] * 3
    assert all(w.outage for w in call.waits)


@pytest.mark.parametrize("fault", [Refuse(), Refuse("content_filter")], ids=["refusal", "filter"])
async def test_a_refusal_is_final_and_paid_for_once(provider: Provider, protocol: str, fault: Behaviour) -> None:
    provider.default = fault
    call = Call(die=(1, "after"))

    with pytest.raises(NeverAgain, match="refused to answer") as raised:
        await ask(model(provider, protocol), call)

    assert type(raised.value).__name__ == "ContentRefused"
    assert len(provider.requests) == 1
    assert call.attempts == 2
    assert len(call.used) == 1


@pytest.mark.parametrize(("status", "name"), [(401, "KeyRefused"), (400, "RequestRefused"), (404, "ModelNotFound")])
async def test_what_an_operator_has_to_mend_halts_with_words(
    provider: Provider, protocol: str, status: int, name: str
) -> None:
    provider.default = Status(status, message=f"no: {KEY}")
    call = Call()

    with pytest.raises(StepHalts, match="assessor") as raised:
        await ask(model(provider, protocol), call)

    assert type(raised.value).__name__ == name
    assert KEY not in str(raised.value)
    assert len(provider.requests) == 1
    assert call.reports == [OK if name == "RequestRefused" else Outage(0.0, name)], (
        "the others wait, if it is not this one"
    )


async def test_a_key_that_is_not_set_halts_with_its_variables_name(
    provider: Provider, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OUR_KEY")
    call = Call()

    with pytest.raises(StepHalts, match="OUR_KEY is to hold its key"):
        await ask(model(provider, protocol), call)

    assert call.reports == [Outage(0.0, "NotSetUp")], "the others wait"


async def test_a_key_under_any_name_is_hidden(
    provider: Provider, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_ENTRANCE", "open.sesame.4711")
    provider.default = Status(400, message="open.sesame.4711 is a strange word")
    chosen = model(provider, protocol)

    with pytest.raises(StepHalts) as raised:
        await ask(Model(chosen.name, base_url=chosen.base_url, key_setting="OUR_ENTRANCE"), Call())

    assert "*** is a strange word" in str(raised.value)


async def test_a_password_in_an_address_is_not_kept(provider: Provider, protocol: str) -> None:
    call = Call()
    chosen = model(provider, protocol)
    url = (chosen.base_url or "").replace("//", "//ann:secret-4711@")
    await ask(Model(chosen.name, base_url=url, key_setting="OUR_KEY"), call)

    assert b"secret-4711" not in b"".join(call.kept.values())


@pytest.mark.parametrize("name", ["openai:gpt-5-mini", "anthropic:claude-haiku-4-5"])
async def test_a_provider_without_any_key_halts_with_its_usual_variables_name(name: str) -> None:
    with pytest.raises(StepHalts, match=r"assessor.*_API_KEY"):
        await ask(Model(name), Call())


@pytest.mark.parametrize("fault", [UnknownTool(), WrongToolArguments()], ids=["unknown tool", "wrong arguments"])
async def test_a_bad_call_of_a_tool_goes_back_to_the_model(provider: Provider, protocol: str, fault: Behaviour) -> None:
    provider.script = [fault, GOOD]
    call = Call()

    answer = await ask(model(provider, protocol), call, assess(tools=[look_up]))

    assert answer.score == 1
    assert call.begun == ["turn 1", "turn 2"]


async def test_the_same_tool_for_ever_is_bounded(provider: Provider, protocol: str) -> None:
    provider.default = SameToolForEver()

    with pytest.raises(NeverAgain, match="made 8 calls"):
        await ask(model(provider, protocol), Call(), assess(tools=[look_up], limits=Limits(calls=8)))

    assert len(provider.requests) == 4


async def test_money_is_bounded(provider: Provider) -> None:
    provider.default = SameToolForEver()
    call = Call()

    agent = assess(tools=[look_up], limits=Limits(calls=1_000, eur="0.01"))
    with pytest.raises(NeverAgain, match=r"has cost .* EUR, its limit is 0\.01") as raised:
        await ask(model(provider, price=Price(10, 10)), call, agent)

    assert type(raised.value).__name__ == "TooDear"
    assert sum(u.cost or 0 for u in call.used) < 2 * 10_000


async def test_the_published_price_is_taken_only_of_the_providers_own_address(provider: Provider) -> None:
    with pytest.raises(NeverAgain, match="price of openai-chat:gpt-5-mini is not known"):
        await ask(model(provider), Call(), assess(limits=Limits(eur=Decimal("0.2"))))

    assert provider.requests == []


# -- fallbacks ---------------------------------------------------------------------------------------------------------


async def test_a_short_trouble_is_waited_for_and_a_longer_one_goes_to_the_fallback(provider: Provider) -> None:
    provider.script = lambda request: Status(500) if request.model == "gpt-5-mini" else GOOD
    call = Call()
    chosen = model(provider, fallback=[model(provider, "anthropic")])

    await ask(chosen, call)

    assert [r.model for r in provider.requests] == ["gpt-5-mini"] * 3 + ["claude-haiku-4-5"]
    assert [type(w).__name__ for w in call.waits] == ["ProviderFailed"] * 2
    assert (call.used[0].model, call.used[0].provider) == ("assessor", "anthropic")
    assert call.used[0].answered == "claude-haiku-4-5"
    assert call.reports == [OK]


async def test_while_a_provider_is_down_its_fallback_is_asked_at_once(provider: Provider) -> None:
    provider.script = lambda request: Status(500) if request.model == "gpt-5-mini" else GOOD
    async with opened(model(provider, fallback=[model(provider, "anthropic")])) as resources:
        await Call().run(assess(), Dossier(claim="a"), resources)
        before = len(provider.requests)
        await Call().run(assess(), Dossier(claim="b"), resources)

    assert [r.model for r in provider.requests[before:]] == ["claude-haiku-4-5"]


async def test_a_provider_that_never_answers_is_given_up_and_its_fallback_asked(provider: Provider) -> None:
    provider.script = lambda request: Never() if request.model == "gpt-5-mini" else GOOD
    call = Call()
    chosen = model(provider, fallback=[model(provider, "anthropic")])

    await ask(chosen, call, assess(timeout=timedelta(seconds=3)))

    assert [r.model for r in provider.requests] == ["gpt-5-mini"] * 2 + ["claude-haiku-4-5"]
    assert [type(w).__name__ for w in call.waits] == ["TimedOut"]


async def test_a_model_that_is_not_there_goes_to_the_fallback_and_a_bad_key_does_not(provider: Provider) -> None:
    provider.script = lambda request: Status(404) if request.model == "gpt-5-mini" else GOOD
    call = Call()
    await ask(model(provider, fallback=[model(provider, "openai-responses"), model(provider, "anthropic")]), call)
    assert [r.model for r in provider.requests] == ["gpt-5-mini", "gpt-5-mini", "claude-haiku-4-5"]
    assert call.waits == []

    provider.script = lambda request: Status(401) if request.model == "gpt-5-mini" else GOOD
    with pytest.raises(StepHalts, match="key"):
        await ask(model(provider, fallback=[model(provider, "anthropic")]), Call())


async def test_when_all_are_down_the_gate_is_told(provider: Provider) -> None:
    provider.default = Status(503, retry_after=3)
    call = Call()

    with pytest.raises(AssertionError):
        await ask(model(provider, fallback=[model(provider, "anthropic")]), call, tries=4)

    assert [type(r) for r in call.reports] == [Outage, Outage]
    assert call.reports[0] == Outage(3.0, "ProviderUnavailable")


async def test_a_wrong_answer_of_the_first_model_may_be_mended_by_the_second(provider: Provider) -> None:
    provider.script = [WrongToolArguments(), Status(404), GOOD]
    call = Call()

    answer = await ask(model(provider, fallback=[model(provider, "anthropic")]), call)

    assert answer.score == 1
    assert [u.provider for u in call.used] == ["openai", "anthropic"]


async def test_a_retry_of_the_step_ends_what_never_gets_better(provider: Provider) -> None:
    provider.script = [OtherShape(times=FOREVER)]
    call = Call()

    with pytest.raises(AssertionError):
        await ask(model(provider), call, assess(retry=Retry(attempts=3)), tries=3)

    assert [w.outage for w in call.waits] == [False] * 3


def test_a_provider_that_is_down_for_long_is_looked_at_once_a_minute() -> None:
    health = Health()
    for _ in range(10_000):
        health.failed()
    assert health.is_down

    health.answered()
    assert not health.is_down


@pytest.mark.parametrize("stream", [False, True])
async def test_the_quick_client_sends_what_openais_own_sends(provider: Provider, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "stop": omit,
        "timeout": 5,
        "stream": stream,
        "extra_headers": {"x-one": "1"},
        "extra_body": {"two": 2},
        "extra_query": {"three": "3"},
    }
    for kind in (AsyncOpenAI, QuickOpenAI):
        async with kind(base_url=provider.openai_url, api_key=KEY, max_retries=0) as client:
            found = await client.chat.completions.create(**asked)
            if stream:
                assert [chunk async for chunk in found]
            else:
                assert found.choices[0].message.content

    own, quick = provider.requests
    assert quick.body == own.body
    assert quick.headers.pop("user-agent").startswith("QuickOpenAI/")
    assert own.headers.pop("user-agent").startswith("AsyncOpenAI/")
    for request in (quick, own):  # of a trace of its own, where an earlier test has had clients traced
        request.headers.pop("traceparent", None)
    assert quick.headers == own.headers
