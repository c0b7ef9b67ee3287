"""The oracle: folds archive and log from the beginning, without Flink, and says what must stand in every topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from engine import Application
from engine.core.entry import Entry, EventEntry, OrderEntry, read_entry
from engine.core.partition import partition_of
from engine.core.record import DeadLetter, Record, read_record, write_record
from engine.core.snapshot import Stored, read_stored
from engine.core.transition import Held, Place, PublishEvent, Rules, StartCall, Verdict, transition
from engine.log.protocol import Item, Position, Topic, order_of, output_id, place_of
from engine.log.redis_log import RedisLog

LARGEST = 1 << 20
OUTPUTS: tuple[Topic, ...] = ("journal", "outbox", "dead")


@dataclass
class Refold:
    """What the pure fold of a log comes to."""

    outputs: dict[Topic, dict[tuple[int, str], bytes]] = field(default_factory=lambda: {t: {} for t in OUTPUTS})
    runs: dict[tuple[str, str], Stored] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    """Idempotency keys of every call that was made."""
    entries: int = 0

    @property
    def records(self) -> list[Record]:
        return [read_record(raw) for raw in self.outputs["journal"].values()]


def refold(log: RedisLog, application: Application, rules: Rules) -> Refold:
    """Fold everything that log and archive hold."""
    found = Refold()
    for partition in range(log.header.partitions):
        _Partition(log, application, rules, partition, found).fold()
    return found


def stored_outputs(log: RedisLog) -> dict[Topic, dict[tuple[int, str], bytes]]:
    """What stands in the topics; refuses an id that stands twice or out of order."""
    return {topic: dict(_scan(log, topic)) for topic in OUTPUTS}


def _scan(log: RedisLog, topic: Topic) -> Iterator[tuple[tuple[int, str], bytes]]:
    for partition in range(log.header.partitions):
        last = (0, 0)
        for item in log.scan(topic, partition):
            assert order_of(item.id) > last, f"{topic} {partition}: {item.id} does not rise"
            last = order_of(item.id)
            yield (partition, item.id), item.payload


def _verdicts(log: RedisLog, partition: int) -> dict[Position, Verdict]:
    """Those that stand beside the log, and those that were trimmed, of which the journal tells."""
    found = {}
    for item in log.scan("journal", partition):
        record = read_record(item.payload)
        if record.halted is not None and not record.ignored:
            halted, (position, index) = record.halted, place_of(item.id)
            found[position] = Verdict(index, halted.error, halted.where, halted.cause)
    for position, raw in log.verdicts(partition, None).items():
        assert found.get(position) == msgspec.json.decode(raw, type=Verdict), position
    return found


class _Partition:
    def __init__(self, log: RedisLog, application: Application, rules: Rules, partition: int, found: Refold) -> None:
        self.log, self.application, self.rules = log, application, rules
        self.partition, self.found = partition, found
        self.verdicts = _verdicts(log, partition)
        self.stored: dict[tuple[str, str], bytes] = {}
        self.held: dict[tuple[str, str], list[Held]] = {}
        self.at = 0

    def fold(self) -> None:
        for item in self.log.scan("log", self.partition):
            self.found.entries += 1
            self.at = max(self.at, self.log.header.log_time(item.stamp))
            self._entry(item)
        for key, raw in self.stored.items():
            self.found.runs[key] = read_stored(raw)

    def _entry(self, item: Item) -> None:
        place = Place(self.partition, Position(item.id), self.at, self.log.header.lapse)
        entry = self._readable(item.payload)
        if entry is None:
            return  # what the engine says of it is looked at by its own test
        workflow = self.application.workflows[entry.workflow]
        key = entry.workflow, entry.key
        held = self.held.setdefault(key, [])
        reaction = transition(
            workflow,
            self.stored.get(key),
            entry,
            place,
            verdict=self.verdicts.get(place.position),
            held=list(held) if isinstance(entry, OrderEntry) else (),
            rules=self.rules,
        )
        if reaction.stored is None:
            self.stored.pop(key, None)
        else:
            self.stored[key] = reaction.stored
        del held[: reaction.release]
        if reaction.hold:
            held.append(Held(place.position, self.at, entry))
        for record in reaction.records:
            self._put("journal", place, record.index, write_record(record))
        published = dead = 0
        for command in reaction.commands:
            if isinstance(command, PublishEvent):
                self._put("outbox", place, published, write_record(command.envelope))
                published += 1
            elif isinstance(command, DeadLetter):
                self._put("dead", place, dead, write_record(command))
                dead += 1
            elif isinstance(command, StartCall):
                self.found.calls.add(f"{command.run}.{command.id}")

    def _readable(self, payload: bytes) -> Entry | None:
        """The entry, if it is one that a run of this partition can have."""
        try:
            entry = read_entry(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if entry.workflow not in self.application.workflows:
            return None
        if isinstance(entry, EventEntry) and len(bytes(entry.data)) > LARGEST:
            return None
        here = partition_of(entry.workflow, entry.key, self.log.header.partitions) == self.partition
        return entry if here else None

    def _put(self, topic: Topic, place: Place, index: int, payload: bytes) -> None:
        self.found.outputs[topic][self.partition, output_id(place.position, index)] = payload
