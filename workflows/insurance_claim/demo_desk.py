"""Who answers the inbox in the demo: reviewers, those who may order surveys, those who hold the budget.

The first of each kind is answered as a person does it, by the commands `longwatch take` and `longwatch answer`; a
process each is too slow for all of them, so the others go through the client.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from engine import Client, LongwatchError
from workflows.insurance_claim.demo_engine import APPLICATION
from workflows.insurance_claim.demo_people import Receipt
from workflows.insurance_claim.errors import DemoFailedError
from workflows.insurance_claim.generator import Behaviour, Reply, reply

AT_ONCE = 6
"""Answers under way."""
ANSWERED_WITHIN_S = 10.0
WITH_APPLICATION = ("--app", APPLICATION)


class Asked(Protocol):
    """An item of the inbox, as `Client.inbox` tells it."""

    @property
    def key(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def call(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def visit(self) -> int: ...
    @property
    def since(self) -> datetime | None: ...


class Commands(Protocol):
    """What runs `longwatch` on the demo's folder."""

    async def command(self, *words: str) -> list[dict[str, Any]]: ...


@dataclass(frozen=True)
class Planned:
    """A reply that somebody will give."""

    item: Asked
    reply: Reply


class Desk:
    """All who answer. They know what waits from the inbox alone."""

    def __init__(self, crowd: Mapping[str, Behaviour], say: Callable[[str], None]) -> None:
        self.receipts: list[Receipt] = []
        self.waiting = 0
        """What stood in the inbox at the last look."""
        self._crowd, self._say = crowd, say
        self._due: list[tuple[datetime, int, Planned]] = []
        self._order = itertools.count()
        self._seen: set[tuple[str, str, str, datetime]] = set()
        self._shown: set[str] = set()
        """Kinds of replies that were given by commands."""
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self, items: Sequence[Asked]) -> None:
        """See what waits, and plan who answers it when: once for each question."""
        self.waiting = len(items)
        for item in items:
            if item.since is None or item.key not in self._crowd or (place := _place(item)) in self._seen:
                continue
            self._seen.add(place)
            if (found := reply(self._crowd[item.key], item.group, item.since)) is not None:
                heapq.heappush(self._due, (found.at, next(self._order), Planned(item, found)))

    def answer(self, client: Client, commands: Commands, now: datetime) -> None:
        """Have what is due answered, beside everything else."""
        while self._due and self._due[0][0] <= now and len(self._tasks) < AT_ONCE:
            planned = heapq.heappop(self._due)[2]
            self._begin(self._answer(planned, client, commands))

    async def settled(self) -> None:
        """Wait until no answer is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is about to answer anything."""
        return not self._due and not self._tasks

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, planned: Planned, client: Client, commands: Commands) -> None:
        """Give one answer. What did not arrive is planned anew, as long as it stands in the inbox."""
        item, kind = planned.item, planned.reply.kind
        try:
            if kind in self._shown:
                await self._by_client(planned, client)
            else:
                self._shown.add(kind)
                await self._by_commands(planned, commands)
        except DemoFailedError:  # of a command; such as one that the kill met
            self._shown.discard(kind)
            self._seen.discard(_place(item))
        except (LongwatchError, OSError):
            self._seen.discard(_place(item))

    async def _by_client(self, planned: Planned, client: Client) -> None:
        item, given = planned.item, planned.reply
        outcome = await client.answer(
            item.address,
            given.answer,
            who=given.who,
            call=item.call or "state",
            name=item.name,
            visit=0 if item.call else item.visit,
            timeout=ANSWERED_WITHIN_S,
        )
        self._received(item.key, outcome.sent.id, outcome.sent.receipt.position)

    async def _by_commands(self, planned: Planned, commands: Commands) -> None:
        """As a person: looks into the inbox, takes a review, answers."""
        item, given = planned.item, planned.reply
        listed = await commands.command("inbox", item.group, *WITH_APPLICATION)
        if not any(f"{each['workflow']}/{each['key']}" == item.address for each in listed):
            raise DemoFailedError(f"{item.address} does not stand in the inbox any more")
        if not item.call:
            await commands.command("take", item.address, "--as", given.who)
        words = ("answer", item.address, *given.words, "--as", given.who)
        (outcome,) = await commands.command(*words, *WITH_APPLICATION)
        self._received(item.key, outcome["id"], outcome["position"])
        self._say(f"{given.who}, at a terminal: longwatch {' '.join(words)}")

    def _received(self, key: str, id: str, position: str) -> None:
        self.receipts.append(Receipt(key, id, position))


def _place(item: Asked) -> tuple[str, str, str, datetime]:
    assert item.since is not None  # noqa: S101 - such items are left out
    return item.address, item.call, item.name, item.since
