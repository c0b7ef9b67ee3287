"""Sends the journal's spans to a collector: `python -m observability.exporter --data .longwatch`.

`longwatch run` starts one beside the engine where the setting `otlp` names a collector. It follows the journal from its
place, makes spans of each record and sends them in batches, one after the other; the place moves over what was
acknowledged and is written after each batch. So a span that was sent before a crash and not acknowledged is sent once
more, with the same bytes, and every other one once.

    main thread      journal -> records -> spans -> batches, two of which may wait
    thread "send"    batches -> collector, one at a time; then the place

It holds a few megabytes of spans and no more, however far behind it is: what is not sent yet stays in the journal. It
runs at low priority, and nobody waits for it. With `--once` it ends when all is sent that the journal holds; with
`--from-start` it sends everything again and leaves the place alone.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from engine.journal import Journal, LogError, LogUnavailable
from engine.logs import open_file, open_stream
from engine.session import Session
from engine.settings import SettingsError, load
from observability.batch import Batch, Batcher
from observability.delivery import Delivery, Tally
from observability.otlp import Encoder, resource_of
from observability.place import ExporterFile, Place, behind
from observability.projection import Projection
from observability.sampling import Rule, Sampler, WrongRule
from observability.sender import Collector, open_sender
from observability.worker import TAKEN, UNUSABLE, alone, refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.core.record import Record
    from engine.journal import Header, Item
    from engine.settings import Settings

_log = logging.getLogger("observability.exporter")  # also where it is the program that runs

NICE: Final = 10
CHUNK: Final = 1_024
"""Records of all partitions that one read brings, about."""
LINGER_SECONDS: Final = 0.2
"""While little comes, so long is more waited for."""
WAIT_MS: Final = 1_000
HEARTBEAT_SECONDS: Final = 2.0
LONGEST_PAUSE: Final = 5.0
"""Seconds between two looks for a log that is away."""


class Reads(Protocol):
    """What is asked of a journal: see `engine.journal.Journal`."""

    @property
    def header(self) -> Header: ...

    def follow(self, after: Mapping[int, str | None], wait_ms: int, count: int = 1000) -> dict[int, list[Item]]: ...

    def record(self, partition: int, place: str) -> Record | None: ...


class Exporter:
    """One run of an exporter over one journal. Call `run` in the main thread."""

    def __init__(
        self,
        journal: Reads,
        project: Callable[[bytes], Sequence[bytes]],
        make_delivery: Callable[[Tally, threading.Event], Delivery],
        place: Place | None,
        *,
        endpoint: str = "",
        batcher: Batcher | None = None,
    ) -> None:
        """Prepare.

        Args:
            journal: what is exported.
            project: makes encoded spans of a record's bytes.
            make_delivery: gets batches to the collector, counting into a tally, until an event is set.
            place: where the exporter's place is kept; None: nowhere, it begins at the journal's beginning.
            endpoint: the collector's address as it may be shown.
            batcher: makes batches.

        """
        self._journal, self._project, self._place = journal, project, place
        header = journal.header
        self._file = place.read(header.log_id) if place else ExporterFile(header.log_id)
        self._file.endpoint = endpoint
        self._tally = Tally(self._file.sent, Counter(self._file.refusals), Counter(self._file.failures))
        self._reading = behind(self._file.places, header.partitions)
        self._numbers = {partition: self._file.records.get(partition, 0) for partition in self._reading}
        self._count = max(1, CHUNK // header.partitions)
        self._batcher = batcher or Batcher()
        self._batches: queue.Queue[Batch | None] = queue.Queue(1)
        self._unsent: deque[Batch] = deque()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._gave_up = threading.Event()
        self._delivery = make_delivery(self._tally, self._ending)
        self._saved = 0.0
        self._can_write = True

    @property
    def tally(self) -> Tally:
        return self._tally

    @property
    def records(self) -> int:
        """How many are done, from the log's beginning."""
        return sum(self._file.records.values())

    def end(self) -> None:
        """Come to an end: send what the journal holds, waiting for nothing. May be called by a signal."""
        self._ending.set()

    def run(self, *, once: bool = False) -> bool:
        """Export until told to end; with `once` until all is sent. Whether all that was read was sent.

        Raises:
            LogLost: the log that is there now is another one.

        """
        thread = threading.Thread(target=self._send, name="send", daemon=True)
        thread.start()
        try:
            self._follow(once=once)
            self._hand_over(self._batcher.take())
        finally:
            self._put(None)
            while thread.is_alive():
                thread.join(HEARTBEAT_SECONDS)
                self._beat()
            self._save()
        return not self._gave_up.is_set()

    # -- the journal's side

    def _follow(self, *, once: bool) -> None:
        """Read until there is an end, which two empty reads in a row tell: one may just have come to the archive's."""
        empty = 0
        pause = 0.1
        is_checked = False
        while not self._gave_up.is_set():
            ends = once or self._ending.is_set()
            try:
                if not is_checked:  # a log that was away may have lost its end meanwhile
                    self._check_places()
                    is_checked = True
                read = self._take(self._journal.follow(self._reading, 0 if ends else WAIT_MS, self._count))
                pause = 0.1
            except LogUnavailable as error:
                if self._ending.is_set():
                    return
                _log.warning("the log is away, which is waited for: %s", error)
                is_checked = False
                pause = self._await_log(pause)
                continue
            empty = 0 if read else empty + 1
            if ends and empty > 1:
                return
            if read < self._count:
                self._hand_over(self._batcher.take())
                if not ends:
                    self._ending.wait(LINGER_SECONDS)
            self._beat()

    def _take(self, found: Mapping[int, Sequence[Item]]) -> int:
        """Make spans of all that was read; how many records that were."""
        for partition, items in found.items():
            for item in items:
                spans = self._spans(item)
                number = self._numbers[partition] = self._numbers[partition] + 1
                for full in self._batcher.add(partition, item.id, number, item.stamp, spans):
                    self._hand_over(full)
                self._reading[partition] = item.id
        return sum(map(len, found.values()))

    def _spans(self, item: Item) -> Sequence[bytes]:
        """A record's spans; one that cannot be read is told and passed over, or all behind it would wait for good."""
        try:
            return self._project(item.payload)
        except LogError:
            raise
        except Exception as error:  # noqa: BLE001 (told and counted)
            _log.exception("no spans could be made of record %s", item.id)
            self._tally.refusals[f"record: {type(error).__name__}"] += 1
            return ()

    def _await_log(self, pause: float) -> float:
        self._hand_over(self._batcher.take())
        self._ending.wait(pause)
        self._beat()
        return min(2 * pause, LONGEST_PAUSE)

    def _check_places(self) -> None:
        """Begin a partition anew whose last record is gone: the log has lost its end, and what came after is not known.

        The view does the same. What was sent of the lost end is not taken back; all else is sent as it was.
        """
        for partition, place in self._reading.items():
            if place is not None and not self._is_there(partition, place):
                _log.warning(
                    "record %s of partition %d is gone, for the log has lost its end: the partition is sent again",
                    place,
                    partition,
                )
                self._reading[partition], self._numbers[partition] = None, 0

    def _is_there(self, partition: int, place: str) -> bool:
        try:
            return self._journal.record(partition, place) is not None
        except msgspec.DecodeError:
            return True

    # -- between the threads

    def _hand_over(self, batch: Batch) -> None:
        """Give a batch to be sent, when the one before it is under way."""
        if batch.spans or batch.places:
            self._unsent.append(batch)
            self._put(batch)

    def _put(self, batch: Batch | None) -> None:
        while not self._gave_up.is_set():
            with contextlib.suppress(queue.Full):
                self._batches.put(batch, timeout=HEARTBEAT_SECONDS / 2)
                return
            self._beat()

    # -- the collector's side

    def _send(self) -> None:
        try:
            while (batch := self._batches.get()) is not None:
                if batch.spans and not self._delivery.deliver(batch.spans):
                    break
                self._advance(batch)
            else:
                return
        except Exception:  # noqa: BLE001 (told; the exporter ends by it, and is started again)
            _log.exception("sending failed")
        self._gave_up.set()
        with contextlib.suppress(queue.Empty):
            self._batches.get_nowait()  # the other thread may wait for room

    def _advance(self, batch: Batch) -> None:
        with self._lock:
            self._file.places.update(batch.places)
            self._file.records.update(batch.records)
            self._unsent.popleft()
        self._save()

    # -- the file

    def _beat(self) -> None:
        if time.monotonic() - self._saved >= HEARTBEAT_SECONDS:
            self._save()

    def _save(self) -> None:
        if self._place is None:
            return
        with self._lock:
            self._saved = time.monotonic()
            file, tally, unsent = self._file, self._tally, list(self._unsent)
            file.sent, file.refused = tally.sent, tally.refused
            file.refusals, file.failures = dict(tally.refusals), dict(tally.failures)
            stamps = [batch.oldest for batch in unsent if batch.ended]
            file.lag_ms = max(0, time.time_ns() // 1_000_000 - min(stamps)) if stamps else 0
            file.lag_records = sum(batch.ended for batch in unsent)
            file.last_error = tally.trouble
            try:
                self._place.write(file)
                self._can_write = True
            except OSError as error:
                if self._can_write:
                    _log.warning("the place cannot be written, so that more is sent again after a crash: %s", error)
                self._can_write = False


# -- the process -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one; its exit code."""
    wanted = _parser().parse_args(arguments)
    flags = {"data": wanted.data, "log": wanted.log, "otlp": wanted.endpoint}
    flags |= {"otlp_protocol": wanted.protocol, "trace_rule": wanted.rule}
    try:
        settings = load({name: value for name, value in flags.items() if value}).settings
        Rule.read(settings.trace_rule)
    except (SettingsError, WrongRule) as error:
        print(error, file=sys.stderr)  # noqa: T201 (no log is open yet)
        return UNUSABLE
    if not settings.otlp:
        print("there is no collector: set otlp, or give --endpoint URL", file=sys.stderr)  # noqa: T201
        return UNUSABLE
    _open_log(settings, by_hand=wanted.once)
    lock = settings.data / "exporter.lock"
    with contextlib.nullcontext(enter_result=True) if wanted.from_start else alone(lock) as is_alone:
        if not is_alone:
            refuse(_log, f"another exporter works on {settings.data}: end it, or take --from-start")
            return TAKEN
        return _export(settings, once=wanted.once, from_start=wanted.from_start)


def _export(settings: Settings, *, once: bool, from_start: bool) -> int:
    _yield_to_others()
    collector = Collector.of(settings, os.environ)
    sender = open_sender(collector)
    with contextlib.closing(_session(settings, wait=not once)) as session:
        try:
            journal = Journal(session)
        except LogError as error:
            refuse(_log, f"the log cannot be read: {error}")
            return 1
        header = journal.header
        encoder = Encoder(Projection(header), resource_of(header.log_id))
        sampler = Sampler(Rule.read(settings.trace_rule), journal, encoder.spans)
        exporter = Exporter(
            journal,
            sampler,
            lambda tally, ending: Delivery(sender, encoder.request, tally, ending, where=collector.shown),
            None if from_start else Place(settings.data / "exporter.json"),
            endpoint=collector.shown,
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: exporter.end())
        _log.info("traces go to %s", collector.shown)
        gc.freeze()
        gc.set_threshold(100_000)  # records and spans hold no circles: looking for some took a tenth of the time
        try:
            done = exporter.run(once=once)
        except LogError as error:
            refuse(_log, f"the log cannot be read on: {error}")
            return 1
        finally:
            sender.close()
    if once:
        _tell(exporter)
    return 0 if done else 1


def _yield_to_others() -> None:
    """Run at low priority.

    Where Linux groups processes by session, as it does by default, a priority counts within the session alone, and the
    session has one of its own (sched(7), "The autogroup feature"). Who runs this by hand keeps his.
    """
    os.nice(NICE)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")


def _tell(exporter: Exporter) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "sent": exporter.tally.sent,
        "refused": exporter.tally.refused,
        "failures": exporter.tally.failures.total(),
        "records": exporter.records,
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "rss_mb": round(used.ru_maxrss / 1024, 1),
    }
    print(json.dumps(told))  # noqa: T201 (`--once` is for programs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m observability.exporter", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, help="the engine's data folder")
    parser.add_argument("--log", help="the log, where it is not the embedded one")
    parser.add_argument("--endpoint", help="the collector, where it is not that of the settings")
    parser.add_argument("--protocol", help="http/protobuf or grpc")
    parser.add_argument("--rule", help="which traces, where it is not the rule of the settings")
    parser.add_argument("--once", action="store_true", help="end when all is sent that the journal holds")
    parser.add_argument("--from-start", action="store_true", help="send all again, and leave the place alone")
    return parser


def _open_log(settings: Settings, *, by_hand: bool) -> None:
    if by_hand:
        open_stream(settings.log_format, settings.log_level)
    else:
        open_file(settings.data / "logs" / "exporter.log", settings.log_format, settings.log_level)
    logging.getLogger("urllib3").setLevel(logging.WARNING)  # it logs whole addresses


def _session(settings: Settings, *, wait: bool) -> Session:
    """A session; beside an engine one that starts no server by itself, which is the supervisor's."""
    session = Session(settings)
    pause = 0.1
    while wait and not session.answers():
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return session


if __name__ == "__main__":
    sys.exit(main())
