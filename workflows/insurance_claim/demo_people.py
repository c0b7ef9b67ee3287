"""Who files, sends, decides and withdraws in the demo: sends what is due in log time, and keeps every receipt."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from engine import Client, LongwatchError
from workflows.insurance_claim.data import ClaimFiled
from workflows.insurance_claim.errors import DemoFailedError
from workflows.insurance_claim.generator import Behaviour, Due, by_calendar, in_answer, known_customers
from workflows.insurance_claim.payment import payment
from workflows.insurance_claim.states import insurance_claim


@dataclass(frozen=True)
class LogClock:
    """Log time, told from one moment at which log and wall were seen together."""

    log: datetime
    wall: float
    """Seconds of `time.time()` at that moment."""
    lapse: float

    def now(self) -> datetime:
        return self.log + timedelta(seconds=(time.time() - self.wall) * self.lapse)


class Standing(Protocol):
    """Where a run stands, as `Client.list` tells it."""

    @property
    def workflow(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def since(self) -> datetime | None: ...


LATE = datetime.max.replace(tzinfo=UTC)
S = TypeVar("S", bound=Standing)


@dataclass(frozen=True)
class Receipt:
    """What a sender holds: the log has taken this event for this run, at this position."""

    key: str
    event_id: str
    position: str


def claims(runs: Iterable[S]) -> list[S]:
    """The runs of claims among those of all workflows."""
    return [run for run in runs if run.workflow == insurance_claim.name]


def settled(runs: Iterable[S]) -> int:
    """How many claims are decided and paid, or known to be worth nothing."""
    return sum(run.workflow == payment.name and run.status == "finished" for run in runs)


class People:
    """All people of the demo, who know of their claims what the run view tells."""

    def __init__(self, crowd: list[Behaviour]) -> None:
        self.crowd = {people.key: people for people in crowd}
        self.receipts: list[Receipt] = []
        self._due: list[tuple[datetime, int, Due]] = []
        self._order = itertools.count()
        self._answered: set[tuple[str, str, datetime]] = set()
        self.states: Counter[str] = Counter()
        self.assessed: list[str] = []
        """Claims whose agents are at work or wait for their model, those first that began first."""
        self.finished = 0

    async def begin(self, client: Client, lapse: float) -> LogClock:
        """Say what is known of the customers, then file the first claim: its run tells what time it is on the log."""
        first = next(iter(self.crowd.values()))
        filing = next(due for due in by_calendar(first, datetime.now(UTC)) if isinstance(due.event, ClaimFiled))
        known = await client.send(*[due.cloud_event() for due in known_customers(datetime.now(UTC))])
        await client.wait_for(known, timeout=120)
        before = time.time()
        sent = await client.send(filing.cloud_event())
        wall = (before + time.time()) / 2
        self.receipts += [Receipt(each.key, each.id, each.receipt.position) for each in sent]
        await client.wait_for(sent, timeout=120)
        (run,) = claims(await client.list(limit=1_000))
        if run.started_at is None:
            raise DemoFailedError("the first claim was filed, and its run has not begun")
        origin = run.started_at - first.filed_after
        for people in self.crowd.values():
            self._plan([due for due in by_calendar(people, origin) if due.id != filing.id])
        return LogClock(run.started_at, wall, lapse)

    def look(self, runs: Sequence[Standing]) -> None:
        """See where the claims are, and plan what people do about it: once for each time a claim comes to a state."""
        self.states = Counter(run.state for run in runs)
        thinking = [run for run in runs if run.state == "Assessing" and run.status == "running" and run.since]
        self.assessed = [run.address for run in sorted(thinking, key=lambda run: run.since or LATE)]
        self.finished = sum(run.status == "finished" for run in runs)
        for run in runs:
            if run.since is not None and (visit := (run.key, run.state, run.since)) not in self._answered:
                self._answered.add(visit)
                self._plan(in_answer(self.crowd[run.key], run.state, run.since))

    async def send(self, client: Client, now: datetime) -> None:
        """Send what is due, in order.

        Raises:
            LongwatchError: the log does not take it now; nothing is forgotten, the next call sends it.
        """
        batch: list[Due] = []
        while self._due and self._due[0][0] <= now:
            batch.append(heapq.heappop(self._due)[2])
        if not batch:
            return
        try:
            sent = await client.send(*[due.cloud_event() for due in batch])
        except LongwatchError:
            self._plan(batch)
            raise
        self.receipts += [Receipt(each.key, each.id, each.receipt.position) for each in sent]

    @property
    def planned(self) -> int:
        """How many events wait for their time."""
        return len(self._due)

    @property
    def are_done(self) -> bool:
        """Whether nothing is left to do or to wait for."""
        return not self._due and self.finished == len(self.crowd)

    def _plan(self, dues: list[Due]) -> None:
        for due in dues:
            heapq.heappush(self._due, (due.at, next(self._order), due))
