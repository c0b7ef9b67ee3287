"""An engine without Flink for tests: reads a real log, folds in this process, runs steps at once, puts all out."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from pydantic import TypeAdapter

from engine.core.entry import (
    AskedEntry,
    EventEntry,
    FailureEntry,
    KeptEntry,
    QuestionEntry,
    ResultEntry,
    read_entry,
    write_entry,
)
from engine.core.errors import HandlerFailed
from engine.core.model import key_of
from engine.core.partition import partition_of
from engine.core.reaction import AskRun, Keep, Reply
from engine.core.record import DeadLetter, write_record
from engine.core.steps import Answered, StepContext
from engine.core.transition import Held, Place, PublishEvent, Reaction, StartCall, Verdict, transition
from engine.log.redis_cursor import RedisCursor

if TYPE_CHECKING:
    from engine.core.application import Application
    from engine.core.entry import Entry
    from engine.core.ids import Position
    from engine.log.redis_log import RedisLog

Name = tuple[str, str]


class Asks(Exception):
    """A step asks a person: its attempt is over."""

    def __init__(self, name: str, group: str, question: str, schema: bytes) -> None:
        self.facts: dict[str, Any] = {"name": name, "group": group, "question": question, "schema": Raw(schema)}
        super().__init__(question)


class AskingRunner:
    """Gives a step the answers that are kept, and ends it where it asks for another."""

    failures, again = 0, False

    def __init__(self, kept: dict[str, Raw]) -> None:
        self._kept = kept
        self.notes: list[str] = []

    async def once(self, *_: Any, **__: Any) -> Any:
        message = "the plain engine keeps no results"
        raise AssertionError(message)

    def progress(self, note: str) -> None:
        self.notes.append(note)

    async def ask(self, group: str, question: str, gives: type[Any], name: str) -> Answered[Any]:
        adapter = TypeAdapter(gives)
        if name not in self._kept:
            raise Asks(name, group, question, msgspec.json.encode(adapter.json_schema()))
        kept = msgspec.json.decode(self._kept[name])
        return Answered(kept["who"], adapter.validate_python(kept["answer"]))


class PlainEngine:
    """Holds the runs in memory. It gives its lease back at once, so that others project the view."""

    def __init__(self, application: Application, log: RedisLog, url: str) -> None:
        self.application = application
        self.log = log
        lease = log.take_lease()
        self.cursor = RedisCursor(url, lease.epoch)
        log.release_lease(lease)
        self.partitions = log.header.partitions
        self.cursor.assign(dict.fromkeys(range(self.partitions)))
        self.stored: dict[Name, bytes | None] = {}
        self.held: dict[Name, list[Held]] = defaultdict(list)
        self.kept: dict[tuple[str, str], dict[str, Raw]] = defaultdict(dict)
        self.times: dict[int, int] = {}
        self.entries = 0

    def work(self) -> int:
        """Fold until the log has nothing more; how many entries."""
        begun = self.entries
        while batches := self.cursor.read(1000, 0):
            for partition, entries in batches:
                for position, stamp, payload in entries:
                    self.entries += 1
                    self._take(partition, position, stamp, payload)
                self.cursor.passed({partition: entries[-1][0]})
            self.cursor.flush()
        self.cursor.flush()
        return self.entries - begun

    def close(self) -> None:
        self.cursor.close()

    def _take(self, partition: int, position: Position, stamp: int, payload: bytes) -> None:
        at = max(self.times.get(partition, 0), self.log.header.log_time(stamp))
        self.times[partition] = at
        place = Place(partition, position, at, self.log.header.lapse)
        try:
            entry = read_entry(payload)
        except msgspec.DecodeError as error:
            letter = DeadLetter(reason=f"unreadable: {error}", at=at, entry=position, body=payload)
            self.cursor.put("dead", partition, position, 0, write_record(letter))
            return
        if entry.workflow not in self.application.workflows:
            reason = f"this application has no workflow {entry.workflow!r}"
            letter = DeadLetter(reason=reason, at=at, entry=position, body=payload, workflow=entry.workflow)
            self.cursor.put("dead", partition, position, 0, write_record(letter))
            return
        self._put(place, entry, self._fold(entry, place))

    def _fold(self, entry: Entry, place: Place) -> Reaction:
        name = (entry.workflow, entry.key)
        workflow, held = self.application.workflows[entry.workflow], self.held[name]
        try:
            reaction = transition(workflow, self.stored.get(name), entry, place, held=held)
        except HandlerFailed as failed:
            verdict = Verdict(failed.index, failed.error, failed.where, failed.cause)
            self.cursor.verdict(place.partition, place.position, msgspec.json.encode(verdict))
            reaction = transition(workflow, self.stored.get(name), entry, place, verdict=verdict, held=held)
        self.stored[name] = reaction.stored
        self.held[name] = held[reaction.release :]
        if reaction.hold:
            self.held[name].append(Held(place.position, place.at, entry))
        return reaction

    def _put(self, place: Place, entry: Entry, reaction: Reaction) -> None:
        for record in reaction.records:
            self.cursor.put("journal", place.partition, place.position, record.index, write_record(record))
        letters = [each for each in reaction.commands if isinstance(each, DeadLetter)]
        for index, letter in enumerate(letters):
            self.cursor.put("dead", place.partition, place.position, index, write_record(letter))
        published = [each for each in reaction.commands if isinstance(each, PublishEvent)]
        for index, each in enumerate(published):
            self.cursor.put("outbox", place.partition, place.position, index, write_record(each.envelope))
            if self.application.takers(type(each.event).__name__):
                self._append(*self.application.entries(each.event, each.envelope))
        for command in reaction.commands:
            if isinstance(command, StartCall):
                self._append(self._run(entry, command))
            elif isinstance(command, Keep):
                self.kept[command.run, command.call][command.name] = command.output
            elif isinstance(command, AskRun):
                self._append(self._question(command))
            elif isinstance(command, Reply) and command.asker.call:
                self._append(_reply(command))

    def _question(self, command: AskRun) -> Entry:
        name = type(command.question).__name__
        taker = next(w for w in self.application.workflows.values() if name in w.questions)
        key = key_of(command.question, type(command.question).__key__)
        data = Raw(command.question.model_dump_json().encode())
        return QuestionEntry(taker.name, key, name, data, command.asker)

    def _run(self, entry: Entry, call: StartCall) -> Entry:
        step = self.application.steps[call.step]
        facts: dict[str, Any] = {"workflow": entry.workflow, "key": entry.key, "run": call.run, "call": call.id}
        runner = AskingRunner(self.kept[call.run, call.id])
        context = [StepContext(call.id, call.attempt, datetime.now(UTC), runner=runner)] if step.takes_context else []
        try:
            answer = _answer(step, step.read_input(bytes(call.input)), *context)
        except Asks as asks:
            for note in runner.notes:
                self._append(KeptEntry(**facts, attempt=call.attempt, index=0, name="", kind="progress", note=note))
            return AskedEntry(**facts, attempt=call.attempt, **asks.facts)
        except Exception as error:  # noqa: BLE001 - whatever a step raises is a failed attempt
            return FailureEntry(**facts, attempt=call.attempt, error=type(error).__name__, message=str(error))
        return ResultEntry(**facts, attempt=call.attempt, output=Raw(step.write_output(answer)))

    def _append(self, *entries: EventEntry | ResultEntry | FailureEntry | Any) -> None:
        for entry in entries:
            self.log.append(partition_of(entry.workflow, entry.key, self.partitions), write_entry(entry))


def _reply(command: Reply) -> Entry:
    asker = command.asker
    if command.error:
        return FailureEntry(
            asker.workflow, asker.key, asker.run, asker.call, 1, command.error, command.message, final=True
        )
    return ResultEntry(asker.workflow, asker.key, asker.run, asker.call, 1, command.output)


def _answer(step: Any, value: Any, *context: StepContext) -> Any:
    """The step's answer; a step of a test never waits, so it needs no loop."""
    running = step(value, *context)
    try:
        running.send(None)
    except StopIteration as end:
        return end.value
    message = f"step {step.name} waits; give the plain engine steps that do not"
    raise AssertionError(message)
