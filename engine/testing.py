"""A run in memory, with a calendar that the test moves. Nothing sleeps, nothing is written.

    run = Simulation(insurance_claim)
    run.fake(fetch_policy, lambda policy_id: Policy(limit_eur=1_000))
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(days=15)
    assert run.state() == Expired(claim=CLAIM)

Every entry is folded twice, each time from the stored bytes as after a crash: a handler that does not answer the same
twice, and a state that does not come back from its bytes, are found at once. A handler that raises halts the run, as it
would in the engine: `run.halted()` says why.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from msgspec import Raw

from engine.core.context import milliseconds, moment
from engine.core.definition import Workflow
from engine.core.entry import Entry, EventEntry, FailureEntry, Order, OrderEntry, ResultEntry, TickEntry
from engine.core.errors import HandlerFailed, LongwatchError
from engine.core.ids import Position
from engine.core.model import Event, State, key_of
from engine.core.record import DeadLetter, Halted, Record
from engine.core.snapshot import Snapshot, read_stored
from engine.core.steps import I, O, Step
from engine.core.transition import Held, Place, PublishEvent, Reaction, StartCall, Verdict, transition

E = TypeVar("E", bound=Event)
START = datetime(2026, 1, 5, 9, tzinfo=UTC)


class NotRepeatable(LongwatchError):
    """A handler answered differently when the same entry was folded again."""


class Simulation(Generic[E]):
    """One run of `workflow`. Steps answer as they were told with `fake`, at once; failures follow their retries.

    `records` tells what every entry did, `published` holds the events that the run published, `dead` the letters that
    nobody could take, `now` the day on its calendar.
    """

    def __init__(self, workflow: Workflow[E], now: datetime = START) -> None:
        self.workflow, self.now = workflow, now
        self.records: list[Record] = []
        self.published: list[Event] = []
        self.dead: list[DeadLetter] = []
        self._stored: bytes | None = None
        self._key = "test"
        self._fakes: dict[str, Callable[[Any], Any]] = {}
        self._inputs: dict[str, list[Any]] = {}
        self._queue: deque[Entry] = deque()
        self._held: list[Held] = []
        self._state: State | None = None
        self._wakes = 0
        self._count = 0

    def fake(self, step: Step[I, O], answer: Callable[[I], O]) -> None:
        """Have `step` answer with `answer(input)` (it may be async); what it raises is a failed attempt."""
        self._fakes[step.name] = answer

    def send(self, event: Event, *, id: str | None = None) -> None:
        """Send an event, and let the run go on until it waits."""
        name = type(event).__name__
        path = self.workflow.key_path(name) if name in self.workflow.events else ""
        self._key = key_of(event, path) or self._key
        self._count += 1
        data = Raw(event.model_dump_json().encode())
        entry = EventEntry(self.workflow.name, self._key, id or f"event-{self._count}", "test", name, data)
        self._queue.append(entry)
        self._work()

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Move the calendar on; timers fire in order, each at its due time."""
        until = self.now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        while self._wakes and moment(self._wakes) <= until:
            self.now = max(self.now, moment(self._wakes))
            self._work()
        self.now = until

    def order(self, order: Order, *, who: str = "test", why: str = "") -> None:
        """Give an operator's order: resume, skip, retry or cancel."""
        self._queue.append(OrderEntry(self.workflow.name, self._key, order, who, why))
        self._work()

    def state(self) -> State:
        """The state that the run is in.

        Raises:
            LookupError: nothing has started it yet.
        """
        if self._state is None:
            message = "the run has not begun; send the event that starts it"
            raise LookupError(message)
        return self._state

    def calls(self, step: Step[I, Any]) -> list[I]:
        """The inputs of every attempt of `step`."""
        return self._inputs.get(step.name, [])

    def halted(self) -> Halted | None:
        """Why the run stands still, if it does."""
        return self.records[-1].halted if self.records else None

    @property
    def ignored(self) -> list[str]:
        """What was ignored, and why."""
        return [r.ignored for r in self.records if r.ignored]

    @property
    def snapshot(self) -> Snapshot | None:
        """What is stored of the run; None before it begins and after its last call is answered."""
        known = read_stored(self._stored) if self._stored else None
        return known if isinstance(known, Snapshot) else None

    @property
    def finished(self) -> bool:
        """Whether it has reached a `Final`, or was cancelled."""
        return bool(self.records) and self.records[-1].status == "finished"

    def _work(self) -> None:
        while self._queue or (self._wakes and moment(self._wakes) <= self.now):
            if not self._queue:
                self._queue.append(TickEntry(self.workflow.name, self._key, self._wakes))
            entry = self._queue.popleft()
            self._count += 1
            self._take(entry, self._fold(entry, Place(0, Position(f"{self._count}-0"), milliseconds(self.now))))

    def _fold(self, entry: Entry, place: Place) -> Reaction:
        verdict: Verdict | None = None
        try:
            first = transition(self.workflow, self._stored, entry, place, held=self._held)
        except HandlerFailed as failed:
            verdict = Verdict(failed.index, failed.error, failed.where, failed.cause)
            first = transition(self.workflow, self._stored, entry, place, held=self._held, verdict=verdict)
        second = transition(self.workflow, self._stored, entry, place, held=self._held, verdict=verdict)
        if first != second:
            message = (
                f"{type(entry).__name__} in {self._state!r} led to two different answers; a handler must be pure: "
                "take time, randomness and ids from its Context"
            )
            raise NotRepeatable(message)
        return first

    def _take(self, entry: Entry, reaction: Reaction) -> None:
        place = Position(f"{self._count}-0")
        self._held = self._held[reaction.release :]
        if reaction.hold:
            self._held.append(Held(place, milliseconds(self.now), entry))
        self._stored, self._wakes = reaction.stored, reaction.wakes
        self.records += reaction.records
        for record in reaction.records:
            if bytes(record.data):
                self._state = self.workflow.specs[record.to].read(bytes(record.data))
        for command in reaction.commands:
            if isinstance(command, StartCall):
                self._run(command)
            elif isinstance(command, PublishEvent):
                self.published.append(command.event)
            elif isinstance(command, DeadLetter):
                self.dead.append(command)

    def _run(self, call: StartCall) -> None:
        step = self.workflow.steps[call.step]
        value = step.read_input(bytes(call.input))
        self._inputs.setdefault(step.name, []).append(value)
        if step.name not in self._fakes:
            message = f"step {step.name} was called, but not faked; say run.fake({step.name}, lambda input: ...)"
            raise LookupError(message)
        self._queue.append(self._attempt(step, call, value))

    def _attempt(self, step: Step[Any, Any], call: StartCall, value: object) -> Entry:
        name, key = self.workflow.name, self._key
        kind = ""
        try:
            answer = self._fakes[step.name](value)
            if inspect.isawaitable(answer):
                answer = asyncio.run(_wait(answer))
            kind = "InvalidResult"
            output = Raw(step.write_output(answer))
        except Exception as error:  # noqa: BLE001 - whatever a step raises is a failed attempt
            final = isinstance(error, step.retry.never)
            kind = kind or type(error).__name__
            return FailureEntry(name, key, call.run, call.id, call.attempt, kind, str(error), final=final)
        return ResultEntry(name, key, call.run, call.id, call.attempt, output)


async def _wait(answer: Awaitable[object]) -> object:
    return await answer
