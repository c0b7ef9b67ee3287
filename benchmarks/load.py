"""What is put on the log of an engine under measurement, and how one sees that it is done."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import msgspec
from msgspec import Raw

from benchmarks.engine_process import EngineProcess
from engine.core.entry import EventEntry, write_entry
from engine.core.partition import partition_of
from engine.log.protocol import Topic, order_of, place_of
from engine.log.redis_keys import stream
from engine.log.redis_wire import Address, Reply, Wire, encode
from engine.view.view import View

Appended = tuple[int, bytes]

AT_ONCE = 2_000
PARTITIONS = 16
TURN_SECONDS = 0.05
TEXT = "y" * 100


class TooSlow(RuntimeError):
    """The engine was not done in time."""


def filed(number: int, batch: str) -> Appended:
    """Start a run of three steps."""
    key = f"c-{batch}-{number}"
    return _event("claim-3step", key, "Filed", {"claim": {"id": key, "text": TEXT, "amount": 5}})


def slept(number: int, batch: str) -> Appended:
    """Start a run that waits a year."""
    key = f"s-{batch}-{number}"
    return _event("sleeper", key, "Slept", {"id": key})


def woken(number: int, batch: str) -> Appended:
    """End its wait."""
    key = f"s-{batch}-{number}"
    return _event("sleeper", key, "Woken", {"id": key})


def slow(number: int, batch: str) -> Appended:
    """Start a run whose one step takes a second."""
    key = f"t-{batch}-{number}"
    return _event("slow", key, "Slow", {"id": key})


def asked(number: int, batch: str) -> Appended:
    """Start a run that asks a model once."""
    key = f"a-{batch}-{number}"
    return _event("judge", key, "Asked", {"id": key})


def sought(number: int, batch: str) -> Appended:
    """Start an agent."""
    key = f"g-{batch}-{number}"
    return _event("seek", key, "Sought", {"id": key})


def _event(workflow: str, key: str, kind: str, data: object) -> Appended:
    entry = EventEntry(workflow, key, f"e-{key}-{kind}", "benchmark", kind, Raw(msgspec.json.encode(data)))
    return partition_of(workflow, key, PARTITIONS), write_entry(entry)


def append(engine: EngineProcess, entries: Iterable[Appended]) -> None:
    """Append as fast as the log takes it, by one sender."""
    rest = iter(entries)
    while chunk := list(islice(rest, AT_ONCE)):
        engine.log.append_many(chunk)


@dataclass(frozen=True)
class Done:
    """When something was done, wall seconds: in the journal, and in the run view."""

    journal: float
    view: float


class Watch:
    """Looks at an engine's log and view from outside, so seldom and so cheaply that it costs the engine nothing."""

    def __init__(self, engine: EngineProcess, workflow: str, status: str) -> None:
        self._engine, self._workflow, self._status = engine, workflow, status
        self._wire = Wire(Address.parse(engine.url))
        self._view = View(engine.data / "view.sqlite")
        self.began = self.count()

    def count(self) -> int:
        """Runs of the workflow with the status, as the view has them."""
        return sum(
            each.runs for each in self._view.counts() if (each.workflow, each.status) == (self._workflow, self._status)
        )

    def is_level(self) -> bool:
        """Whether every partition's journal has come to the end of its log."""
        tails, journals = ends(self._wire, "log"), ends(self._wire, "journal")
        return all(order_of(tail) <= order_of(place_of(end)[0]) for tail, end in zip(tails, journals, strict=True))

    def until(self, count: int, seconds: float) -> Done:
        """Wait until so many more runs have the status.

        Raises:
            TooSlow: after so many seconds.
        """
        end, level = time.monotonic() + seconds, 0.0
        while True:
            if not self.is_level():
                level = 0.0
            elif not level:
                level = time.time()
            if level and self.count() - self.began >= count:
                return Done(level, time.time())
            self._engine.check()
            if time.monotonic() > end:
                raise TooSlow(f"{self.count() - self.began:,} of {count:,} runs after {seconds:.0f} s")
            time.sleep(TURN_SECONDS)

    def close(self) -> None:
        self._wire.close()
        self._view.close()


def ends(wire: Wire, topic: Topic) -> list[str]:
    """The last id ever given in each partition of a topic, trimmed or not."""
    wire.send(b"".join(encode("XINFO", "STREAM", stream(topic, partition)) for partition in range(PARTITIONS)))
    return [_end(wire.raw_reply()) for _ in range(PARTITIONS)]


def _end(reply: Reply) -> str:
    """The last id ever given in a stream, from XINFO, whose answer is an error when nothing was ever written."""
    return "0-0" if isinstance(reply, Exception) else reply[reply.index(b"last-generated-id") + 1].decode()
