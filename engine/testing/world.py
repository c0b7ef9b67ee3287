"""Several runs in memory with one log and one calendar, and what goes around between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Raw

from engine.core.account import accounts
from engine.core.context import milliseconds, moment
from engine.core.definition import Workflow
from engine.core.entry import (
    Asker,
    Entry,
    EventEntry,
    FailureEntry,
    QuestionEntry,
    ResultEntry,
    TickEntry,
)
from engine.core.ids import Position
from engine.core.model import Event, key_of
from engine.core.reaction import AskRun, CancelCall, Command, Forget, Keep, PublishEvent, Reply, StartCall
from engine.core.record import DeadLetter
from engine.core.transition import Place, running_calls
from engine.testing.attempt import Crashed, MemoryAttempt
from engine.testing.fakes import Fakes
from engine.testing.run import MemoryRun

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
MAX_CRASHES = 1_000


class World:
    """A small engine without a log: entries are folded in the order in which they come."""

    def __init__(self, workflows: Sequence[Workflow[Any]], now: datetime) -> None:
        self.workflows = {w.name: w for w in workflows}
        self.several = len(self.workflows) > 1
        if any(w.account for w in workflows):
            self.workflows[accounts.name] = accounts
        self.now = now
        self.fakes = Fakes()
        self.runs: dict[tuple[str, str], MemoryRun] = {}
        self._queue: deque[Entry] = deque()
        self._attempts: deque[MemoryAttempt] = deque()
        self._count = 0
        self._crash_in = 0
        """How many results of attempts until the engine dies; 0: it does not."""
        self._loses = False
        self._crashed = False
        self._crashes = 0
        self._runs_attempt = False

    # -- what comes from outside -----------------------------------------------------------------------------------

    def number(self) -> int:
        """A new one, for the place of an entry or the id of an event."""
        self._count += 1
        return self._count

    def run(self, workflow: str, key: str) -> MemoryRun:
        """The run under this key, whether it has begun or not."""
        found = self.runs.get((workflow, key))
        if found is None:
            found = self.runs[workflow, key] = MemoryRun(self.workflows[workflow], key)
        return found

    def rename(self, run: MemoryRun, key: str) -> None:
        """Let a run that has not begun have the key that its first event says."""
        self.runs.pop((run.workflow.name, run.key), None)
        run.key = key
        self.runs[run.workflow.name, key] = run

    def take(self, *entries: Entry) -> None:
        """Fold these, and let all runs go on until they wait."""
        self._queue += entries
        self.work()

    def takers(self, event: type[Event]) -> list[Workflow[Any]]:
        return [w for w in self.workflows.values() if w.events.get(event.__name__) is event]

    def advance(self, until: datetime) -> None:
        """Timers fire in order, each at its due time."""
        while (due := self._next()) is not None and moment(due.wakes) <= until:
            self.now = max(self.now, moment(due.wakes))
            self.work()
        self.now = until

    # -- the engine ------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Let all runs go on until they wait."""
        while True:
            if self._attempts:
                self._attempt(self._attempts.popleft())
            elif self._queue:
                self._fold(self._queue.popleft())
            elif self._crashed:
                self._recover()
            elif (due := self._next()) is not None and moment(due.wakes) <= self.now:
                self._fold(TickEntry(due.workflow.name, due.key, due.wakes))
            else:
                return

    def put(self, entry: Entry, *, counts: bool = True) -> None:
        """An attempt that runs puts an entry on the log, which is folded before the attempt goes on.

        Raises:
            Crashed: it was time to.
        """
        dies = counts and self._dies()
        if not (dies and self._loses):
            self._fold(entry)
            self.fakes.settled()
        if dies:
            raise Crashed

    def crash_after(self, results: int, *, lost: bool) -> None:
        self._crash_in, self._loses = results, lost

    def crash(self) -> None:
        if self._runs_attempt:
            raise Crashed
        self._die()
        self.work()

    def _next(self) -> MemoryRun | None:
        """The run whose timer is due first."""
        return min((r for r in self.runs.values() if r.wakes), key=lambda r: r.wakes, default=None)

    def _fold(self, entry: Entry) -> None:
        run = self.run(entry.workflow, entry.key)
        place = Place(0, Position(f"{self.number()}-0"), milliseconds(self.now))
        for command in run.fold(entry, place).commands:
            self._carry_out(run, command)

    def _carry_out(self, run: MemoryRun, command: Command) -> None:  # noqa: C901 - one case a command
        match command:
            case StartCall():
                self._attempts.append(MemoryAttempt(self, run, command, again=command.again))
            case CancelCall():
                self._drop(a for a in self._attempts if a.run is run and a.call.id == command.id)
            case Keep():
                run.kept.setdefault(command.call, {})[command.name] = command.output
            case Forget():
                run.kept.pop(command.call, None)
            case AskRun():
                self._queue.append(self._asked(run, command))
            case Reply():
                if command.asker.call:
                    self._queue.append(self._replied(command))
            case PublishEvent():
                run.published.append(command.event)
                if self.several:
                    self._publish(command)
            case DeadLetter():
                run.dead.append(command)

    def _drop(self, gone: Iterable[MemoryAttempt]) -> None:
        for attempt in list(gone):
            self._attempts.remove(attempt)

    def _attempt(self, attempt: MemoryAttempt) -> None:
        self._runs_attempt = True
        try:
            entry = attempt.outcome()
            dies = self._dies()
            if not (dies and self._loses):
                self._queue.append(entry)
                self.fakes.settled()
            if dies:
                self._die()
        except Crashed:
            self._die()
        finally:
            self._runs_attempt = False

    # -- crashes ---------------------------------------------------------------------------------------------------

    def _dies(self) -> bool:
        """Count a result of an attempt; whether it was the one that the engine dies after."""
        if self._crash_in == 0:
            return False
        self._crash_in -= 1
        return self._crash_in == 0

    def _die(self) -> None:
        self._crashes += 1
        if self._crashes > MAX_CRASHES:
            message = f"the engine died {MAX_CRASHES} times; let a step that calls run.crash() do so once"
            raise RuntimeError(message)
        self._attempts.clear()
        self.fakes.crashed()
        self._crashed = True

    def _recover(self) -> None:
        """Begin the attempts in flight again, with what they have kept."""
        self._crashed = False
        for run in self.runs.values():
            if run.stored is not None:
                self._attempts += [MemoryAttempt(self, run, call, again=True) for call in running_calls(run.stored)]

    # -- between runs ----------------------------------------------------------------------------------------------

    def _publish(self, command: PublishEvent) -> None:
        event, envelope = command.event, command.envelope
        for workflow in self.takers(type(event)):
            key = key_of(event, workflow.key_path(envelope.type)) or envelope.subject
            self._queue.append(
                EventEntry(
                    workflow.name,
                    key,
                    envelope.id,
                    envelope.source,
                    envelope.type,
                    envelope.data,
                    envelope.time,
                    envelope.traceparent,
                    envelope.tracestate,
                    envelope.longwatchhops,
                    baggage=envelope.baggage,
                )
            )

    def _asked(self, run: MemoryRun, command: AskRun) -> Entry:
        """The question to the run that answers it, or a fake's answer."""
        question, asker = command.question, command.asker
        name = type(question).__name__
        step = f"ask {name}"
        run.inputs.setdefault(step, []).append(question)
        if step in self.fakes.answers:
            return self._faked(run, step, command)
        answering = next((w for w in self.workflows.values() if name in w.questions), None)
        if answering is None:
            message = (
                f"{name} was asked, but nobody answers it here; say run.fake(ask({name}), lambda question: ...) "
                f"or Simulation({run.workflow.name}, others=[the workflow that answers it])"
            )
            raise LookupError(message)
        key = key_of(question, answering.on_key.get(name, type(question).__key__))
        data = Raw(question.model_dump_json().encode())
        carried = {"tracestate": command.tracestate, "baggage": command.baggage}
        return QuestionEntry(answering.name, key, name, data, asker, command.traceparent, **carried)

    def _faked(self, run: MemoryRun, name: str, command: AskRun) -> Entry:
        step, asker = run.workflow.steps[name], command.asker
        try:
            output = Raw(step.write_output(self.fakes.answers[name](command.question)))
        except Exception as error:  # noqa: BLE001 - whatever a fake raises is an answer that cannot be had
            return self._failure(asker, type(error).__name__, str(error))
        return ResultEntry(asker.workflow, asker.key, asker.run, asker.call, 1, output)

    def _replied(self, reply: Reply) -> Entry:
        asker = reply.asker
        if reply.error:
            return self._failure(asker, reply.error, reply.message)
        return ResultEntry(asker.workflow, asker.key, asker.run, asker.call, 1, reply.output)

    def _failure(self, asker: Asker, error: str, message: str) -> FailureEntry:
        return FailureEntry(asker.workflow, asker.key, asker.run, asker.call, 1, error, message, final=True)
