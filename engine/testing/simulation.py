"""`Simulation`: one run, driven by a test."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw
from pydantic_core import to_jsonable_python

from engine.core.account import ACCOUNTS, Account, BudgetRaised
from engine.core.definition import Workflow
from engine.core.entry import AnswerEntry, EventEntry, Order, OrderEntry
from engine.core.errors import EventRefused
from engine.core.model import Event, Raise, State, key_of
from engine.core.record import Asks, DeadLetter, Halted, Record, Spent
from engine.core.snapshot import Snapshot
from engine.core.spending import GROUP
from engine.core.steps import I, Leave, Step
from engine.inbox import checked, items_of
from engine.testing.run import MemoryRun
from engine.testing.stage import Stage
from engine.testing.world import START, World

E = TypeVar("E", bound=Event)
W = TypeVar("W", bound=Event)
LEAVE = {"yes": Leave(granted=True), "no": Leave(granted=False)}
LEAVE_SCHEMA = Leave.model_json_schema()


class Simulation(Stage, Generic[E]):
    """One run of `workflow`. Steps answer as they were told with `fake`, at once; failures follow their retries.

    `others` are workflows whose runs this one asks and publishes to: `run.other(workflow, key)` looks at one of them.
    """

    def __init__(self, workflow: Workflow[E], now: datetime = START, *, others: Sequence[Workflow[Any]] = ()) -> None:
        super().__init__(World([workflow, *others], now))
        self.workflow = workflow
        self._run = self._world.run(workflow.name, "test")

    @classmethod
    def of(cls, world: World, run: MemoryRun) -> Simulation[Any]:
        """One of the runs of a world."""
        made: Simulation[Any] = cls.__new__(cls)
        made._world, made.workflow, made._run = world, run.workflow, run
        return made

    def other(self, workflow: Workflow[W], key: str) -> Simulation[W]:
        """A run of another workflow in the same world."""
        return Simulation.of(self._world, self._world.run(workflow.name, key))

    # -- what comes ------------------------------------------------------------------------------------------------

    def send(self, event: Event, *, id: str | None = None, who: str = "", visit: int = 0) -> None:
        """Send an event, and let the run go on until it waits.

        `who` is the person whose answer it is; `visit` is the visit of a state that this person saw (0: not checked).
        """
        name = type(event).__name__
        id_ = id or f"event-{self._world.number()}"
        data = Raw(event.model_dump_json().encode())
        takers = self._world.takers(type(event)) or [self.workflow]
        for workflow in takers:
            path = workflow.key_path(name) if name in workflow.events else ""
            key = key_of(event, path) or self._run.key
            if workflow is self.workflow:
                self._named(key, name)
            self._world.take(EventEntry(workflow.name, key, id_, "test", name, data, who=who, visit=visit))

    def _named(self, key: str, event: str) -> None:
        if key == self._run.key:
            return
        if self._run.records:
            message = f"{event} is for the run {key!r}, this one is {self._run.key!r}; use Simulations for several runs"
            raise ValueError(message)
        self._world.rename(self._run, key)

    def order(self, order: Order, *, who: str = "test", why: str = "") -> None:
        """Give an operator's order: resume, skip, retry, cancel, take or release."""
        self._world.take(OrderEntry(self.workflow.name, self._run.key, order, who, why))

    # -- people ----------------------------------------------------------------------------------------------------

    def inbox(self) -> list[Asks]:
        """What waits for people: of this run, and of the account that it is paid from."""
        account = self._account_run()
        return [a for run in (self._run, account) if run is not None and run.records for a in run.records[-1].asks]

    def answer(self, answer: object, *, who: str = "test", name: str = "") -> None:
        """Give a person's answer: an event to a state, a value to a step that asks, a `Raise` to a spent budget.

        "yes" and "no" answer a question for `Leave`. `name` says which, where several are asked.

        Raises:
            LookupError: nothing like that is asked.
            ValueError: it is no answer to what is asked.
        """
        if isinstance(answer, Event):
            self.send(answer, who=who, visit=self.snapshot.visit if self.snapshot else 0)
            return
        asked = [a for a in self.inbox() if a.call and name in ("", a.name)]
        if isinstance(answer, Raise):
            asked = [a for a in asked if a.group == GROUP]
            if not asked and (account := self._account_run()) is not None and account.records[-1].asks:
                event = BudgetRaised(account=account.key, eur=answer.eur, tokens=answer.tokens)
                Simulation.of(self._world, account).send(event, who=who)
                return
        one = self._one(asked, name)
        raw = self._written(one, answer)
        self._world.take(AnswerEntry(self.workflow.name, self._run.key, one.call, one.name, who, raw))

    def take(self, who: str) -> None:
        """Somebody takes upon himself what the run asks."""
        self.order("take", who=who)

    def release(self, who: str = "test") -> None:
        """It is anybody's again."""
        self.order("release", who=who)

    def _one(self, asked: list[Asks], name: str) -> Asks:
        if not asked:
            waits = ", ".join(a.name or f"state (group {a.group})" for a in self.inbox()) or "nothing"
            message = f"no call asks for {name or 'such an answer'}; what waits for people: {waits}"
            raise LookupError(message)
        if len(asked) > 1:
            message = f"several calls ask: {', '.join(a.name for a in asked)}; say which with name="
            raise LookupError(message)
        return asked[0]

    def _written(self, asks: Asks, answer: object) -> Raw:
        """The answer's JSON, checked as a client checks it."""
        if isinstance(answer, str):
            answer = _meant(asks, answer)
        item = next(i for i in items_of(self.records[-1], None) if (i.call, i.name) == (asks.call, asks.name))
        try:
            return Raw(checked(item, item.choices[0], to_jsonable_python(answer)))
        except EventRefused as refused:
            message = f"{answer!r} is no answer to {asks.question!r}: {refused}"
            raise ValueError(message) from None

    # -- what came of it -------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The state that the run is in.

        Raises:
            LookupError: nothing has started it yet.
        """
        if self._run.state is None:
            message = "the run has not begun; send the event that starts it"
            raise LookupError(message)
        return self._run.state

    def calls(self, step: Step[I, Any]) -> list[I]:
        """The inputs of every attempt of `step`."""
        return self._run.inputs.get(step.name, [])

    def halted(self) -> Halted | None:
        """Why the run stands still, if it does."""
        return self.records[-1].halted if self.records else None

    def budget(self) -> Spent:
        """What the run has spent and reserved of its own budget."""
        return (self.records[-1].spent if self.records else None) or Spent()

    def account(self) -> Account:
        """The budget that it shares with others, as it stands.

        Raises:
            LookupError: there is none, or nothing has been paid from it yet.
        """
        run = self._account_run()
        if run is None or not isinstance(run.state, Account):
            message = f"nothing is paid from an account by {self.workflow.name!r} (yet)"
            raise LookupError(message)
        return run.state

    def _account_run(self) -> MemoryRun | None:
        return self._world.runs.get((ACCOUNTS, self.workflow.account))

    @property
    def key(self) -> str:
        """The key of the run."""
        return self._run.key

    @property
    def records(self) -> list[Record]:
        """What every entry did."""
        return self._run.records

    @property
    def published(self) -> list[Event]:
        """The events that the run published."""
        return self._run.published

    @property
    def dead(self) -> list[DeadLetter]:
        """The letters that nobody could take."""
        return self._run.dead

    @property
    def ignored(self) -> list[str]:
        """What was ignored, and why."""
        return [r.ignored for r in self.records if r.ignored]

    @property
    def snapshot(self) -> Snapshot | None:
        """What is stored of the run; None before it begins and after its last call is answered."""
        return self._run.snapshot

    @property
    def finished(self) -> bool:
        """Whether it has reached a `Final`, or was cancelled."""
        return bool(self.records) and self.records[-1].status == "finished"


def _meant(asks: Asks, word: str) -> object:
    """What "yes" and "no" stand for here."""
    if asks.group == GROUP:
        return Raise() if word == "no" else word
    return LEAVE.get(word, word) if msgspec.json.decode(asks.schema) == LEAVE_SCHEMA else word
