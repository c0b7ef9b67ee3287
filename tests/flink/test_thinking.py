"""Agents and questions on a real engine that is killed, whose provider is down for days, or that has many workers.

What was asked, and what it cost, is the provider's own word: its log of requests is held against the journal.

`make test` kills twice and has 200 runs wait. By hand:
`LONGWATCH_KILLS=10 LONGWATCH_RUNS=5000 LONGWATCH_MINUTES=3 pytest tests/flink/test_thinking.py -s`. The instants of the
kills are drawn from `LONGWATCH_SEED`, which is printed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from typer.testing import CliRunner

from engine.cli.app import app as longwatch
from engine.core.account import ACCOUNTS, BudgetRaised
from engine.core.record import Record
from engine.limits import GateState, read_gates
from engine.log.protocol import order_of
from engine.testing.providers import Answer, Behaviour, Plausible, Provider, Request, Status, Tokens
from tests.flink.harness import PATIENCE, Stage, is_alive
from tests.flink.thinking_world import (
    AT_ONCE,
    INPUT_PRICE,
    MOST_TOKENS,
    OUTPUT_PRICE,
    SHARED_A_MINUTE,
    SHARED_AT_ONCE,
    TURNS,
    Asked,
    Priced,
    Sought,
    application,
    environment,
)
from tests.flink.world import EFFECTS

pytestmark = [pytest.mark.flink, pytest.mark.redis]

APP = "tests.flink.thinking_world:application"
KILLS = int(os.environ.get("LONGWATCH_KILLS", "2"))
RUNS = int(os.environ.get("LONGWATCH_RUNS", "200"))
MINUTES = int(os.environ.get("LONGWATCH_MINUTES", "0"))
SEED = int(os.environ.get("LONGWATCH_SEED", str(random.randrange(10**6))))
DELAY = 0.15
"""Seconds that a model thinks."""
RESULTS = 2 * TURNS - 1
"""What an agent keeps: its turns, and the tools between them."""
DAY_MS = 86_400_000
QUICK: dict[str, Any] = {"java": ("-XX:TieredStopAtLevel=1",)}
"""Half the CPU of a start: nothing here runs long enough to miss the rest."""


PRICED, RAISED = 8, 160_000
"""Before each kill: so many ask the account that is short, and so much is added to it."""


def think(request: Request) -> Behaviour | None:
    return Answer(json={"score": 1}, tokens=Tokens(15_000, 5_000), delay=DELAY) if request.model == "valuer" else None


def say(*words: str) -> None:
    """The figures of the proof."""
    print("\n" + "; ".join(words))  # noqa: T201


def told(stage: Stage, *words: str) -> str:
    """What a command prints."""
    result = CliRunner().invoke(longwatch, [*words, "--data", str(stage.data)])
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


# An agent that is killed ----------------------------------------------------------------------------------------------


def test_agents_of_ten_turns_that_are_killed_go_on_and_ask_for_nothing_again(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    keys = [f"a{number}" for number in range(2 + KILLS // 2)]
    said = [f"seed {SEED}, {len(keys)} agents"]
    with (
        Provider(think, default=Plausible(turns=TURNS - 1, delay=DELAY)) as provider,
        Stage(tmp_path, application=application) as stage,
    ):
        told = environment(provider.openai_url)
        stage.start(app=APP, environment=told, **QUICK)
        stage.send(*(Sought(id=key, text="a ring") for key in keys))
        for number, what in enumerate(kinds(chance)):
            until_kept(stage, RESULTS * len(keys) * (number + 1) // (KILLS + 2) + chance.randrange(3))
            check_reservation(stage, keys)
            stage.send(*(Priced(id=f"p{number}-{one}") for one in range(PRICED)))
            stage.send(BudgetRaised(account="purse", tokens=RAISED))
            live(stage, chance.uniform(0, 2 * DELAY))
            kill(stage, what)
            said.append(f"{what} killed behind {len(parts(stage))} results")
            stage.start(app=APP, environment=told, **QUICK)
        stage.send(Sought(id="calm", text="a ring"))
        stage.until_status("seek", "finished", len(keys) + 1)
        stage.until_status("price", "finished", PRICED * KILLS)
        pure = stage.proven()

        bill = Bill.of(pure.records, provider.requests)
        assert bill.turns_repeated == []
        assert bill.unlisted == set(), "asked for more than once, and the journal does not say so"
        assert bill.gone <= bill.again, "in flight at a kill"
        assert tools_repeated(stage, pure.records) <= bill.again
        assert len(bill.stored) == TURNS * (len(keys) + 1) + PRICED * KILLS
        calm = story(stage, "calm")
        assert len(calm.names) == RESULTS
        assert [story(stage, key) for key in keys] == [calm] * len(keys)
        for key in [*keys, "calm"]:
            check_bill(stage, key, bill)
        check_account(stage, "thoughts", bill.of_workflow("seek"))
        purse = check_account(stage, "purse", bill.of_workflow("price"))
        assert purse["more"]["tokens"] == RAISED * KILLS
        said += [
            f"turns_repeated {len(bill.turns_repeated)}, calls_repeated {len(bill.again)}",
            f"{len(bill.stored)} turns stored, {len(provider.requests)} asked",
            f"accounts: {tokens_of(bill.charged.values()):,} tokens, as charged for stored turns",
            f"{provider.tokens - tokens_of(bill.charged.values()):,} charged for calls that were lost in kills",
        ]
    say(*said)


def kinds(chance: random.Random) -> list[str]:
    """What is killed, in any order."""
    found = [("driver", "jvm")[number % 2] for number in range(KILLS)]
    chance.shuffle(found)
    return found


def kill(stage: Stage, what: str) -> None:
    """The driver or its JVM, at once; each ends when the other does."""
    assert stage.engine is not None
    jvm = stage.jvm
    os.kill(jvm if what == "jvm" else stage.engine.process.pid, signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while is_alive(jvm) or stage.engine.process.poll() is None:
        stage.journal.read()
        assert time.monotonic() < until, f"the engine outlives its {what}"
    stage.engine.kill()


def until_kept(stage: Stage, count: int) -> None:
    stage.until(lambda: len(parts(stage)) >= count, f"{count} results are kept")


def live(stage: Stage, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stage.journal.read(20)


def parts(stage: Stage) -> list[Record]:
    return [r for r in stage.journal.records if is_part(r)]


def is_part(record: Record) -> bool:
    """Whether it says that something was kept."""
    return record.cause == "kept" and bool(record.inner) and not record.ignored


def key_of(record: Record) -> str:
    """The idempotency key under which a kept turn or tool was asked for."""
    return f"{record.run}.{record.id}.{record.inner.replace(' ', '-')}"


@dataclass
class Bill:
    """The provider's log against the journal."""

    stored: dict[str, Record] = field(default_factory=dict)
    """Turns by their key."""
    charged: dict[str, Request] = field(default_factory=dict)
    """The request whose answer was stored, likewise."""
    again: set[str] = field(default_factory=set)
    """All of which the journal says that an earlier attempt may have happened."""
    turns_repeated: list[Request] = field(default_factory=list)
    """Requests for a turn that was stored."""
    unlisted: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    """Keys of requests that a kill broke off."""

    @classmethod
    def of(cls, records: list[Record], requests: list[Request]) -> Bill:
        bill = cls(again={key_of(r) for r in records if is_part(r) and r.again})
        by_number = {f"chatcmpl-{request.number}": request for request in requests}
        for record in records:
            if is_part(record) and record.used is not None:
                bill.stored[key_of(record)] = record
                bill.charged[key_of(record)] = by_number[record.used.request]
        asked = Counter(str(r.idempotency_key) for r in requests)
        bill.unlisted = {key for key, count in asked.items() if count > 1} - bill.again | asked.keys() - bill.stored
        bill.turns_repeated = [r for r in requests if r.at * 1000 > bill.stored_at(str(r.idempotency_key))]
        bill.gone = {str(r.idempotency_key) for r in requests if r.outcome != "answered"}
        return bill

    def stored_at(self, key: str) -> float:
        """When its entry came to the log, wall ms; its own request is older."""
        return order_of(self.stored[key].entry)[0]

    def of_workflow(self, name: str) -> list[Request]:
        """What was paid for by its runs."""
        return [self.charged[key] for key, record in self.stored.items() if record.workflow == name]


def tokens_of(requests: Iterable[Request]) -> int:
    return sum(request.tokens.total for request in requests)


def cost_of(request: Request) -> int:
    return request.tokens.input * INPUT_PRICE + request.tokens.output * OUTPUT_PRICE


def tools_repeated(stage: Stage, records: list[Record]) -> set[str]:
    """Keys of the tools that ran more than once."""
    effects = Counter((stage.data / EFFECTS).read_text().split())
    kept = {key_of(r) for r in records if is_part(r) and r.used is None}
    assert effects.keys() == kept
    return {key for key, count in effects.items() if count > 1}


@dataclass(frozen=True)
class Story:
    """What must be the same whether an agent was killed or not."""

    state: str
    data: dict[str, Any]
    names: tuple[str, ...]


def story(stage: Stage, key: str) -> Story:
    records = stage.journal.of("seek", key)
    last = next(r for r in reversed(records) if r.data != Raw(b""))
    return Story(last.to, msgspec.json.decode(last.data), tuple(r.inner for r in records if is_part(r)))


def check_bill(stage: Stage, key: str, bill: Bill) -> None:
    """While it thinks its bound is reserved; when it is over it has spent what was charged for its stored turns."""
    records = stage.journal.of("seek", key)
    paid = [bill.charged[key_of(r)] for r in records if is_part(r) and r.used is not None]
    for record in records:
        spent = record.spent
        assert spent is not None
        if record.status == "finished":
            assert (spent.reserved_tokens, spent.reserved_cost, spent.unpriced) == (0, 0, 0)
            assert spent.tokens == tokens_of(paid)
            assert spent.cost == sum(map(cost_of, paid))
        else:
            assert (spent.reserved_tokens, spent.reserved_cost) == (MOST_TOKENS, 1_000_000)


def check_reservation(stage: Stage, keys: list[str]) -> None:
    """The account holds what those that think may use, and nothing for those that are over."""
    stage.until(lambda: reserved(stage) == thinking(stage, keys) * MOST_TOKENS, "what thinks is reserved")


def thinking(stage: Stage, keys: list[str]) -> int:
    return sum(stage.journal.latest["seek", key].status != "finished" for key in keys)


def reserved(stage: Stage) -> int:
    found: int = account_of(stage, "thoughts")["reserved"]["tokens"]
    return found


def check_account(stage: Stage, name: str, paid: list[Request]) -> dict[str, Any]:
    """Nothing is reserved, nobody waits, and what was charged is spent."""
    account = account_of(stage, name)
    assert account["reserved"] == {"tokens": 0, "cost": 0}
    assert account["waiting"] == []
    assert account["spent"] == {"tokens": tokens_of(paid), "cost": sum(map(cost_of, paid))}
    return account


def account_of(stage: Stage, name: str) -> dict[str, Any]:
    last = next(r for r in reversed(stage.journal.of(ACCOUNTS, name)) if r.data != Raw(b""))
    found: dict[str, Any] = msgspec.json.decode(last.data)
    return found


# A provider that is down ----------------------------------------------------------------------------------------------

DOWN_DAYS = 2
DOWN_SECONDS = 60.0 if RUNS > 1_000 else 10.0
"""So long it is down by the wall."""


def test_a_provider_that_is_down_for_two_days_is_probed_and_nothing_is_lost(tmp_path: Path) -> None:
    lapse = DOWN_DAYS * DAY_MS / 1000 / DOWN_SECONDS
    with (
        Provider(lambda _: Status(503, message="no room in the night")) as provider,
        Stage(tmp_path, lapse=lapse, application=application) as stage,
    ):
        stage.start(app=APP, environment=environment(provider.openai_url), **QUICK)
        stage.send(*(Asked(id=f"q{number}") for number in range(RUNS)))
        stage.until(lambda: any(gate.is_shut for gate in gates(stage)), "the gate is shut")
        began = now_of(stage)
        stage.until(lambda: now_of(stage) > began + DAY_MS, "a day has gone by")
        (gate,) = gates(stage)
        waiting_first, why = gate.waiting, (gate.name, gate.is_shut, gate.waits_for, gate.reason)
        shown, status = told(stage, "show", f"ask/q{RUNS - 1}", "--app", APP), told(stage, "status")
        provider.down()
        stage.until(lambda: now_of(stage) > began + DOWN_DAYS * DAY_MS, "another day")
        (gate,) = gates(stage)
        made = failures(stage)
        seen, down_for = len(provider.requests), now_of(stage) - began
        provider.script = ()
        provider.up()
        up = time.monotonic()
        stage.until_status("ask", "finished", RUNS)
        drained, noticed = time.monotonic() - up, provider.requests[seen].began - up
        stage.proven()

        ends = {stage.journal.latest["ask", f"q{number}"].to for number in range(RUNS)}
        assert ends == {"Over"}
        assert why == ("model:judge", True, "shut", "ProviderUnavailable")
        assert gate.reason == "ConnectionFailed"
        for text in (shown, status):
            assert "model:judge is shut since" in text
            assert "(ProviderUnavailable), is tried" in text
        assert " wait\n" in shown
        assert waiting_first >= RUNS - AT_ONCE
        assert seen < len(made) <= AT_ONCE + PROBES
        assert {r.error.partition(":")[0] for r in made} == {"ProviderUnavailable", "ConnectionFailed"}
        assert len(provider.requests) - seen == RUNS, "when it was back each was asked once"
        assert provider.load("judge").peak_at_once <= AT_ONCE
    say(
        f"{RUNS} runs, provider down for {down_for / DAY_MS:.2f} days of the log ({DOWN_SECONDS:g} s)",
        f"{len(made)} calls made meanwhile ({AT_ONCE} at once when it began), {waiting_first} waiting",
        f"back: noticed after {noticed:.1f} s, drained after {drained:.1f} s, none lost",
    )


PROBES = 14
"""At growing distances, up to a minute, with what the breaker takes in at its first failures."""


def now_of(stage: Stage) -> int:
    """Log time."""
    return stage.log.header.log_time(int(time.time() * 1000))


def gates(stage: Stage) -> list[GateState]:
    return [gate for gate in read_gates(stage.server.url) if gate.waiting]


def failures(stage: Stage) -> list[Record]:
    return [r for r in stage.journal.records if r.cause == "failure"]


# Two workers and one limit --------------------------------------------------------------------------------------------


def test_two_workers_never_exceed_the_limit_that_they_share(tmp_path: Path) -> None:
    runs = SHARED_A_MINUTE * (MINUTES + 2)
    with (
        Provider(default=Plausible(delay=DELAY)) as provider,
        Stage(tmp_path, application=application) as stage,
    ):
        cluster: dict[str, Any] = {"cluster": "standalone", "parallelism": 2}
        stage.start(app=APP, environment=environment(provider.openai_url), **cluster, **QUICK)
        stage.send(*(Asked(id=f"s{number}", of="shared") for number in range(runs)))
        stage.until_status("ask", "finished", SHARED_A_MINUTE * (MINUTES + 1))
        stage.until(lambda: gates(stage) and gates(stage)[0].waits_for == "requests", "the minute is full")
        live(stage, 3.0)
        (gate,) = gates(stage)
        workers = {name: at for name, at in gate.workers.items() if at.waiting}
        load = provider.load("shared")

        assert len(workers) == 2
        assert gate.waiting == runs - load.requests
        assert load.peak_at_once <= SHARED_AT_ONCE
        assert load.peak_requests <= SHARED_A_MINUTE
        assert load.requests <= SHARED_A_MINUTE * (MINUTES + 2)
    say(
        f"2 workers, {load.requests} of {runs} requests in {MINUTES + 1} minutes",
        f"at most {load.peak_requests} in any minute (limit {SHARED_A_MINUTE})",
        f"at most {load.peak_at_once} at once (limit {SHARED_AT_ONCE})",
    )
