"""The exporter over a journal in memory: its place, its bounds, and what it does when log or collector go away."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.record import Record
from engine.journal import LogUnavailable
from engine.log.protocol import Header, Item
from observability import exporter as exporter_module
from observability.batch import Batcher
from observability.delivery import Delivery, Pace, Tally
from observability.exporter import Exporter
from observability.place import ExporterFile, Place
from observability.sender import Answer, Verdict
from tests.observability.counted import MemoryJournal, record

HEADER = Header("log-1", 3, 0)
TAKEN = Answer(Verdict.TAKEN)
AWAY = Answer(Verdict.LATER, "connection refused")


class Spans(MemoryJournal):
    """A journal whose records have as many spans as they took milliseconds."""

    def __init__(self, log_id: str = "log-1") -> None:
        super().__init__(Header(log_id, HEADER.partitions, 0))
        self.away = 0
        self.looks_away = 0
        """So many looks for a single record fail."""
        self.lose_after: int = -1

    def fill(self, *counts: tuple[int, int]) -> None:
        for partition, spans in counts:
            self.add(partition, record(f"key-{self._count}", took=spans))

    def follow(self, after: object, wait_ms: int, count: int = 1000) -> dict[int, list[Item]]:
        if self.lose_after == 0:
            self.lose(0, 1)
            self.fill((0, 1))
            self.away = 1
        self.lose_after -= 1
        if self.away:
            self.away -= 1
            raise LogUnavailable("the server is away")
        return super().follow(after, wait_ms, count)  # type: ignore[arg-type]

    def record(self, partition: int, place: str) -> Record | None:
        if self.looks_away:
            self.looks_away -= 1
            raise LogUnavailable("the server is away")
        return super().record(partition, place)

    @property
    def expected(self) -> list[bytes]:
        return [span for items in self.items.values() for item in items for span in project(item.payload)]


def project(payload: bytes) -> list[bytes]:
    found = msgspec.json.decode(payload, type=Record)
    return [f"{found.key}/{number}".encode() for number in range(found.took)]


@dataclass
class Collector:
    """Takes requests of lines. After `lives` requests the process that sends dies: by then, or just before it knows."""

    got: list[bytes] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    lives: int = 1 << 30
    answered: bool = True
    answers: list[Answer] = field(default_factory=list)
    dead: bool = False
    act: Callable[[], None] = lambda: None

    def send(self, body: bytes) -> Answer:
        self.act()
        if self.answers and (answer := self.answers.pop(0)).verdict is not Verdict.TAKEN:
            return answer
        if not self.lives:
            self.dead = True
            if self.answered:
                return AWAY
        self.lives -= 1
        spans = body.split(b"\n") if body else []
        self.requests.append(len(spans))
        self.got += spans
        return AWAY if self.dead else TAKEN

    def close(self) -> None:
        pass


class MemoryPlace(Place):
    """A file in memory; what a dead process writes is not there."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(Path())
        self.raw = b""
        self.collector = collector

    def read(self, log_id: str) -> ExporterFile:
        return msgspec.json.decode(self.raw, type=ExporterFile) if self.raw else ExporterFile(log_id)

    def write(self, file: ExporterFile) -> None:
        if not self.collector.dead:
            self.raw = msgspec.json.encode(file)


def an_exporter(
    journal: MemoryJournal,
    collector: Collector,
    place: Place | None,
    batcher: Batcher | None = None,
    projection: Callable[[bytes], Sequence[bytes]] = project,
) -> Exporter:
    def delivery(tally: Tally, ending: threading.Event) -> Delivery:
        return Delivery(collector, b"\n".join, tally, _Mortal(ending, collector), Pace(0.001, 0.002))  # type: ignore[arg-type]

    return Exporter(journal, projection, delivery, place, batcher=batcher)


@dataclass
class _Mortal:
    """An event that is set when the process is told to end, or is dead."""

    ending: threading.Event
    collector: Collector

    def wait(self, seconds: float) -> bool:
        return self.collector.dead or self.ending.wait(seconds)

    def is_set(self) -> bool:
        return self.collector.dead or self.ending.is_set()


LARGEST = 9
"""Spans of a record."""
RECORDS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, LARGEST)), max_size=30)
LIVES = st.lists(st.tuples(st.integers(0, 4), st.booleans(), RECORDS), max_size=6)


@given(RECORDS, LIVES, st.integers(1, 12), st.integers(8, 200))
def test_whenever_it_dies_all_is_sent_and_at_most_one_request_of_each_life_twice(
    records: list[tuple[int, int]],
    lives: list[tuple[int, bool, list[tuple[int, int]]]],
    most_spans: int,
    most_bytes: int,
) -> None:
    journal = Spans()
    journal.fill(*records)
    collector = Collector()
    place = MemoryPlace(collector)
    for requests, answered, more in lives:
        collector.lives, collector.answered, collector.dead = requests, answered, False
        an_exporter(journal, collector, place, Batcher(most_spans, most_bytes)).run(once=True)
        journal.fill(*more)
    collector.lives, collector.dead = 1 << 30, False

    last = an_exporter(journal, collector, place, Batcher(most_spans, most_bytes))
    assert last.run(once=True)

    assert set(collector.got) == set(journal.expected)
    # The request that was under way and, where the record at its end began in one before it, that part of the record.
    assert len(collector.got) - len(journal.expected) <= (most_spans + LARGEST) * len(lives)
    assert max(Counter(collector.got).values(), default=0) <= 1 + len(lives)
    assert all(size <= most_spans for size in collector.requests)
    file = place.read("log-1")
    assert file.places == {p: items[-1].id for p, items in journal.items.items() if items}
    assert file.records == {p: len(items) for p, items in journal.items.items() if items}
    assert file.lag_records == 0
    for partition in journal.items:  # in the order of the journal, but for what was sent twice
        ours = [span for items in [journal.items[partition]] for item in items for span in project(item.payload)]
        seen = [span for span in collector.got if span in set(ours)]
        assert list(dict.fromkeys(seen)) == ours


def test_the_place_moves_only_over_what_was_acknowledged() -> None:
    journal = Spans()
    journal.fill((0, 3), (0, 3), (0, 3))
    collector = Collector(lives=1)
    place = MemoryPlace(collector)

    assert not an_exporter(journal, collector, place, Batcher(4)).run(once=True)

    file = place.read("log-1")
    assert collector.requests == [4]
    assert file.places == {0: journal.items[0][0].id}
    assert file.sent == 4


def test_counters_go_on_after_a_start() -> None:
    journal = Spans()
    journal.fill((0, 3))
    collector = Collector(answers=[AWAY, TAKEN])
    place = MemoryPlace(collector)
    an_exporter(journal, collector, place).run(once=True)
    journal.fill((1, 2))
    an_exporter(journal, collector, place).run(once=True)

    file = place.read("log-1")
    assert (file.sent, file.failures) == (5, {"connection refused": 1})


def test_a_record_of_which_no_spans_can_be_made_is_counted_and_all_others_go() -> None:
    journal = Spans()
    journal.fill((0, 1), (0, 7), (0, 1))

    def broken(payload: bytes) -> list[bytes]:
        if len(spans := project(payload)) == 7:
            raise KeyError("what is this")
        return spans

    collector = Collector()
    place = MemoryPlace(collector)
    assert an_exporter(journal, collector, place, projection=broken).run(once=True)
    assert len(collector.got) == 2
    assert place.read("log-1").refusals == {"record: KeyError": 1}


def test_a_log_that_is_away_is_waited_for_also_in_the_middle_of_a_record() -> None:
    journal = Spans()
    journal.fill((0, 2), (0, 2), (1, 2))
    journal.away = 2
    failing = [1]

    def reading_back(payload: bytes) -> list[bytes]:
        if b"key-1" in payload and failing.pop() if failing and b'"key-1"' in payload else False:
            raise LogUnavailable("gone again")
        return project(payload)

    collector = Collector()
    assert an_exporter(journal, collector, MemoryPlace(collector), projection=reading_back).run(once=True)
    assert sorted(collector.got) == sorted(journal.expected)


def test_a_partition_that_lost_its_end_is_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    journal = Spans()
    journal.fill((0, 1), (0, 1), (0, 1), (1, 1))
    collector = Collector()
    place = MemoryPlace(collector)
    an_exporter(journal, collector, place).run(once=True)
    before = list(collector.got)

    journal.lose(0, 2)
    journal.fill((0, 1))
    an_exporter(journal, collector, place).run(once=True)

    assert collector.got[len(before) :] == [b"key-0/0", b"key-4/0"]
    assert "of partition 0 is gone, for the log has lost its end: the partition is sent again" in caplog.text
    assert place.read("log-1").records == {0: 2, 1: 1}


def test_a_log_that_loses_its_end_while_it_is_followed_is_noticed_when_it_is_back() -> None:
    journal = Spans()
    journal.fill((0, 1), (0, 1))
    collector = Collector()
    journal.lose_after = 1
    assert an_exporter(journal, collector, MemoryPlace(collector)).run(once=True)

    assert set(journal.expected) <= set(collector.got)
    assert collector.got.count(b"key-0/0") <= 2


def test_a_log_that_comes_back_without_its_end_between_two_looks_is_noticed_too() -> None:
    journal = Spans()
    journal.fill((0, 1), (0, 1), (0, 1))
    collector = Collector()
    place = MemoryPlace(collector)
    an_exporter(journal, collector, place).run(once=True)

    journal.lose(0, 2)
    journal.fill((0, 1))
    journal.items[0][1] = journal.items[0][1]._replace(id="2-0")  # a replay gives the place of one that was lost
    journal.looks_away = 1  # the first look finds nobody; by the next read the log is back
    assert an_exporter(journal, collector, place).run(once=True)

    assert set(journal.expected) <= set(collector.got)


def test_it_follows_until_it_is_told_to_end_and_sends_what_there_is_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "LINGER_SECONDS", 0.001)
    journal = Spans()
    journal.fill((0, 2))
    collector = Collector()
    exporter = an_exporter(journal, collector, MemoryPlace(collector))

    def more() -> None:
        journal.fill((1, 3))
        collector.act = exporter.end

    collector.act = more
    assert exporter.run()
    assert sorted(collector.got) == sorted(journal.expected)


def test_told_to_end_it_does_not_wait_for_a_collector_that_is_away() -> None:
    journal = Spans()
    journal.fill((0, 2))
    collector = Collector(answers=[AWAY] * 1000)
    exporter = an_exporter(journal, collector, place := MemoryPlace(collector))
    collector.act = lambda: exporter.end() if len(collector.answers) < 990 else None

    assert not exporter.run()
    assert place.read("log-1").places == {}
    assert place.read("log-1").last_error == "connection refused"
    assert place.read("log-1").lag_records == 1


def test_however_much_there_is_two_batches_wait_and_no_more() -> None:
    journal = Spans()
    journal.fill(*((0, 10) for _ in range(500)))
    collector = Collector(answers=[AWAY] * 50)
    made: list[int] = []

    def counting(payload: bytes) -> list[bytes]:
        spans = project(payload)
        made.append(len(spans))
        return spans

    held: list[int] = []
    collector.act = lambda: held.append(sum(made) - len(collector.got))
    an_exporter(journal, collector, None, Batcher(100), counting).run(once=True)

    assert len(collector.got) == 5000
    assert max(held) <= 4 * 100


def test_a_place_that_cannot_be_written_is_told_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Spans()
    journal.fill(*((0, 3) for _ in range(5)))
    collector = Collector()

    assert an_exporter(journal, collector, Place(tmp_path / "gone" / "exporter.json"), Batcher(3)).run(once=True)
    assert len(collector.got) == 15
    assert caplog.text.count("the place cannot be written") == 1


def test_a_damaged_or_foreign_place_is_a_beginning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "exporter.json"
    place = Place(path)

    assert place.read("a").places == {}
    place.write(ExporterFile("a", places={3: "7-0"}, sent=4))
    assert place.read("a").places == {3: "7-0"}
    assert (place.read("b").places, place.read("b").sent) == ({}, 4)
    path.write_bytes(b'{"log_id": "a", "pl')
    assert place.read("a").places == {}
    assert "cannot be read" in caplog.text
    assert list(tmp_path.iterdir()) == [path]
