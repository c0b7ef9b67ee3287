"""The demo's figures, each counted from what was kept: receipts, histories, outbox, the world's files and a replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine import Client
from workflows.insurance_claim.answers import SharedAnswers
from workflows.insurance_claim.assessor import answers_path
from workflows.insurance_claim.demo_people import Receipt, Standing
from workflows.insurance_claim.world import World

REVIEWERS = "reviewers"


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


@dataclass(frozen=True)
class Summary:
    """What the demo prints last; its fields are the keys of `--json`."""

    claims: int
    by_outcome: dict[str, int]
    model_calls: int
    answers_shared: int
    calls_repeated: int
    """Attempts that ran again under their number, because the kill came before their result was kept."""
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
    """Published events that an ordinary reader of the outbox is handed twice."""
    replay_identical: bool
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether what is promised was kept."""
        return not self.lost and not self.doubled and self.replay_identical


@dataclass(frozen=True)
class Course:
    """How the run of the demo went, as the demo itself saw it."""

    receipts: Sequence[Receipt]
    kills: int
    restart_seconds: float
    seconds: float


async def count(client: Client, world: World, course: Course, replay: Mapping[str, Any]) -> Summary:
    """Count everything, with the engine stopped."""
    runs = await client.list(limit=10_000)
    histories = {run.key: await client.history(run.key) for run in runs}
    told = [line for history in histories.values() for line in history]
    published = [each.event async for each in client.outbox(follow=False)]
    asked = SharedAnswers(answers_path(world)).counts()
    return Summary(
        claims=len(runs),
        by_outcome=outcomes(runs),
        model_calls=asked.model_calls,
        answers_shared=asked.answers_shared,
        calls_repeated=world.repeated_visits(),
        timers_fired=sum(line.entry.startswith("timer ") and not line.ignored for line in told),
        reminders=sum(message.to == REVIEWERS for _, message, _ in world.messages()),
        entries=int(replay["entries"]),
        ignored=sum(line.entry.startswith("event ") and bool(line.ignored) for line in told),
        dead_letters=len(await client.dead_letters()),
        kills=course.kills,
        restart_seconds=round(course.restart_seconds, 1),
        lost=lost(course.receipts, histories),
        doubled=doubled((event.id, event.subject) for event in published),
        replay_identical=bool(replay["identical"]),
        seconds=round(course.seconds, 1),
    )


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
