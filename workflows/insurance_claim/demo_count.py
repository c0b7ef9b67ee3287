"""The demo's figures, each counted from what was kept: receipts, histories, outbox, the world's files and a replay."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from engine import Client
from workflows.insurance_claim.demo_people import Receipt, Standing, claims
from workflows.insurance_claim.model_front import Counts, SharedAnswers
from workflows.insurance_claim.world import World

REVIEWERS = "reviewers"
MICRO = 1_000_000
TURN = "turn "
"""How the names of an agent's questions to its model begin."""


class Spending(Protocol):
    """What a model took."""

    @property
    def tokens(self) -> int: ...
    @property
    def cost(self) -> int | None: ...


class Told(Protocol):
    """A line of a run's history, as `Client.history` tells it."""

    @property
    def entry(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def ignored(self) -> str: ...
    @property
    def position(self) -> str: ...
    @property
    def at(self) -> datetime | None: ...
    @property
    def who(self) -> str: ...
    @property
    def inner(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def used(self) -> Spending | None: ...
    @property
    def again(self) -> bool: ...
    @property
    def body(self) -> Any: ...  # noqa: ANN401 - JSON


@dataclass(frozen=True)
class Summary:
    """What the demo prints last; its fields are the keys of `--json`."""

    claims: int
    by_outcome: dict[str, int]
    model_calls: int
    answers_shared: int
    calls_repeated: int
    """What was begun again, because the kill came before its result was kept: attempts, and turns of agents."""
    agents_resumed: int
    """Agents that the kill met in mid-thought, and that went on behind their last stored turn."""
    turns_repeated: int
    """Stored turns that were stored twice, or that the model was asked for again."""
    answers: int
    """Of people, that were taken."""
    payments: int
    """Made by the bank: one for each claim that was approved."""
    paid_eur: int
    budgets_asked: int
    """Questions for a higher budget that were answered."""
    tokens: int
    cost_eur: float
    timers_fired: int
    reminders: int
    entries: int
    ignored: int
    """Events that came late, twice or to a decided claim."""
    dead_letters: int
    kills: int
    restart_seconds: float
    """From the kill until the engine ran again."""
    lost: int
    """Receipts without an entry and its record."""
    doubled: int
    """Published events that an ordinary reader of the outbox is handed twice, and claims that were paid twice."""
    replay_identical: bool
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether what is promised was kept."""
        return not self.lost and not self.doubled and not self.turns_repeated and self.replay_identical


@dataclass(frozen=True)
class Course:
    """How the run of the demo went, as the demo itself saw it."""

    receipts: Sequence[Receipt]
    killed_at: datetime | None
    """Log time; None: it was not killed."""
    restart_seconds: float
    seconds: float


async def count(
    client: Client, world: World, shared: SharedAnswers | None, course: Course, replay: Mapping[str, Any]
) -> Summary:
    """Count everything, with the engine stopped. A provider's model has no `shared` answers here."""
    runs = claims(await client.list(limit=10_000))
    histories = {run.key: await client.history(run.address, bodies=True) for run in runs}
    told = [line for history in histories.values() for line in history]
    published = [each.event async for each in client.outbox(follow=False)]
    payments = world.payments()
    counts = Counts(0, 0) if shared is None else shared.counts()
    spent = [line.used for line in told if line.used is not None]
    return Summary(
        claims=len(runs),
        by_outcome=outcomes(runs),
        model_calls=counts.model_calls if shared else len(spent),
        answers_shared=counts.answers_shared,
        calls_repeated=world.repeated_visits() + (shared.repeated() if shared else turns_again(told)),
        agents_resumed=resumed(told, course.killed_at),
        turns_repeated=turns_repeated(told, shared.asked() if shared else ()),
        answers=sum(
            bool(line.who) and line.entry.startswith(("event ", "answer ")) and not line.ignored for line in told
        ),
        payments=len(payments),
        paid_eur=sum(amount for _, amount in payments),
        budgets_asked=sum(is_raise(line) for line in told),
        tokens=sum(each.tokens for each in spent),
        cost_eur=round(sum(each.cost or 0 for each in spent) / MICRO, 6),
        timers_fired=sum(line.entry.startswith("timer ") and not line.ignored for line in told),
        reminders=sum(message.to == REVIEWERS for _, message, _ in world.messages()),
        entries=int(replay["entries"]),
        ignored=sum(line.entry.startswith("event ") and bool(line.ignored) for line in told),
        dead_letters=len(await client.dead_letters()),
        kills=0 if course.killed_at is None else 1,
        restart_seconds=round(course.restart_seconds, 1),
        lost=lost(course.receipts, histories),
        doubled=doubled((event.id, event.subject) for event in published)
        + len(payments)
        - len({claim for claim, _ in payments}),
        replay_identical=bool(replay["identical"]),
        seconds=round(course.seconds, 1),
    )


def resumed(told: Iterable[Told], killed_at: datetime | None) -> int:
    """Calls that had stored something and were at work when the engine was killed, and went on."""
    calls: dict[tuple[str, str], list[Told]] = defaultdict(list)
    for line in told:
        if line.id and line.entry.startswith(("kept ", "asked ", "answer ", "result ", "failure ")):
            calls[line.run_id, line.id].append(line)
    return 0 if killed_at is None else sum(_went_on(lines, killed_at) for lines in calls.values())


def _went_on(lines: Sequence[Told], killed_at: datetime) -> bool:
    before = [line for line in lines if line.at is not None and line.at < killed_at]
    at_work = bool(before) and not before[-1].entry.startswith(("asked ", "result "))
    return at_work and len(lines) > len(before) and any(line.entry.startswith("kept ") for line in before)


def turns_repeated(told: Iterable[Told], asked: Iterable[tuple[str, float]]) -> int:
    """Stored turns that are there twice, or were asked for (idempotency key, seconds) when they were there."""
    stored: dict[str, float] = {}
    twice = 0
    for line in told:
        if line.entry.startswith("kept ") and line.inner.startswith(TURN) and not line.ignored:
            key = f"{line.run_id}.{line.id}.{line.inner.replace(' ', '-')}"
            twice += key in stored
            stored[key] = line.body["started"] / 1_000 + line.body["took"] / 1_000_000
    return twice + sum(at > stored[key] for key, at in asked if key in stored)


def turns_again(told: Iterable[Told]) -> int:
    """Turns of which it is not known whether they had been begun before."""
    return sum(line.again and line.inner.startswith(TURN) for line in told)


def is_raise(line: Told) -> bool:
    """Whether it is a person's answer to a spent budget."""
    return line.entry.startswith("answer ") and line.inner == "budget" and not line.ignored


def outcomes(runs: Iterable[Standing]) -> dict[str, int]:
    """Claims by the state they ended in; those that have not are under the state they wait in."""
    return dict(sorted(Counter(run.state for run in runs).items()))


def lost(receipts: Iterable[Receipt], histories: Mapping[str, Sequence[Told]]) -> int:
    """Receipts whose entry left no record: neither at its own place nor, as what was kept for later, under its id."""
    places = {(key, line.position) for key, history in histories.items() for line in history}
    events = {(key, line.id) for key, history in histories.items() for line in history}
    return sum((each.key, each.position) not in places and (each.key, each.event_id) not in events for each in receipts)


def doubled(published: Iterable[tuple[str, str]]) -> int:
    """Events that came more than once: by their id, or a second decision of one claim."""
    ids, claims = Counter[str](), Counter[str]()
    for event_id, claim in published:
        ids[event_id] += 1
        claims[claim] += 1
    return max(ids.total() - len(ids), claims.total() - len(claims))
