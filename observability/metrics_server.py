"""Serves the metrics: `python -m observability.metrics_server --data .longwatch --listen 127.0.0.1:9464`.

`longwatch run` starts one beside the engine where the setting `metrics` names a port. It follows the journal, counts
each record once, and keeps what it counted in `metrics.json` together with its place, so that it can be killed at any
time. A scrape is answered from memory.

    main thread        readings of the engine, every two seconds; the file for Prometheus that says whom to scrape
    thread "journal"   journal -> tally; then its file
    thread "http"      takes connections; each scrape has a thread of its own

`--list` prints all metrics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from engine.instruments import Instruments
from engine.journal import Journal, LogError, LogUnavailable
from engine.logs import open_file
from engine.session import Session
from engine.settings import load
from observability.metric import CATALOGUE
from observability.metrics import Exposition
from observability.scrapes import PortTaken, ScrapeServer
from observability.tally import Tally, read_letter, read_seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.core.record import Record
    from engine.instruments import Readings
    from engine.journal import Header, Item
    from engine.settings import Settings
    from observability.tally import Seen
from observability.worker import TAKEN, UNUSABLE, alone, refuse

_log = logging.getLogger(__name__)

FILE: Final = "metrics.json"
TARGETS: Final = "targets.json"
CHUNK: Final = 500
"""Records of a partition that one read brings."""
LOCKED: Final = 250
"""Records that are counted while a scrape waits: two milliseconds."""
WAIT_MS: Final = 1_000
LINGER_SECONDS: Final = 0.1
"""Between two reads of a flood: larger batches, and a fraction of the work."""
SAVE_SECONDS: Final = 2.0
CHECK_SECONDS: Final = 10.0
"""Between two looks whether the journal still has what was counted."""
READ_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 5.0
"""Between two attempts at a port that is taken."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Reads(Protocol):
    """What is asked of a journal: see `engine.journal.Journal`."""

    @property
    def header(self) -> Header: ...

    def follow(self, after: Mapping[int, str | None], wait_ms: int, count: int = 1000) -> dict[int, list[Item]]: ...

    def dead_letters(self, partition: int, after: str | None = None) -> Iterator[Item]: ...

    def record(self, partition: int, place: str) -> Record | None: ...


class Counting:
    """Follows a journal and counts. One thread's, but for `end`."""

    def __init__(self, journal: Reads, exposition: Exposition, path: Path, *, wait_ms: int = WAIT_MS) -> None:
        """Begin where the file at `path` ends."""
        self._journal, self._exposition, self._path = journal, exposition, path
        self._wait_ms = wait_ms
        self._ending = threading.Event()
        self._clocks: dict[str, float] = {}
        self._short = 0
        self._saved = -1
        exposition.tally = Tally.read(path, journal.header.log_id)

    @property
    def tally(self) -> Tally:
        return self._exposition.tally

    def end(self) -> None:
        self._ending.set()

    def run(self) -> None:
        """Count until told to end; an absent log is waited for."""
        pause = FIRST_PAUSE
        while not self._ending.is_set():
            try:
                self.step()
                pause = FIRST_PAUSE
            except LogUnavailable as error:
                if pause == FIRST_PAUSE:
                    _log.warning("the log is away, which is waited for: %s", error)
                self._clocks["check"] = 0.0
                self._ending.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        self.save()

    def step(self) -> int:
        """Count what came; how many records that were."""
        if self._is_time("check", CHECK_SECONDS):
            self._check_places()
        places: dict[int, str | None] = dict.fromkeys(range(self._journal.header.partitions))
        places.update(self.tally.places)
        found = self._journal.follow(places, self._wait_ms if self._exposition.is_whole else 0, CHUNK)
        for partition, items in found.items():
            self._count(partition, items)
        if self._is_time("letters", READ_SECONDS):
            self._count_letters()
        self._note_whole(found)
        if self._is_time("save", SAVE_SECONDS):
            self.save()
        if found and self._exposition.is_whole:
            self._ending.wait(LINGER_SECONDS)
        return sum(map(len, found.values()))

    def save(self) -> None:
        if self.tally.records != self._saved:
            try:
                self.tally.write(self._path)
                self._saved = self.tally.records
            except OSError as error:
                _log.warning("%s cannot be written; after a crash more is counted again: %s", self._path, error)

    def _count(self, partition: int, items: Sequence[Item]) -> None:
        tally = self.tally
        for start in range(0, len(items), LOCKED):
            part = items[start : start + LOCKED]
            records = [_readable(partition, item) for item in part]
            with self._exposition.lock:
                for record in records:
                    if record is not None:
                        tally.take(record)
                tally.places[partition] = part[-1].id

    def _count_letters(self) -> None:
        tally = self.tally
        for partition in range(self._journal.header.partitions):
            for item in self._journal.dead_letters(partition, tally.letters.get(partition)):
                letter = read_letter(item.payload)
                with self._exposition.lock:
                    tally.take_letter(letter)
                    tally.letters[partition] = item.id
                    self._saved = -1

    def _note_whole(self, found: Mapping[int, Sequence[Item]]) -> None:
        """Two short reads in a row: the first may only have come to the end of the archive."""
        if self._exposition.is_whole:
            return
        self._short = self._short + 1 if all(len(items) < CHUNK for items in found.values()) else 0
        if self._short > 1:
            self._count_letters()
            self._exposition.is_whole = True
            self.save()

    def _check_places(self) -> None:
        """Count anew when the journal has lost what was counted: the log has lost its end, and the engine went back."""
        lost = [each for each in self.tally.places.items() if not self._has(*each)]
        if lost:
            _log.warning(
                "record %s of partition %d is gone, for the log has lost its end: all is counted anew", *lost[0][::-1]
            )
            with self._exposition.lock:
                self._exposition.tally = Tally(self._journal.header.log_id)
                self._exposition.is_whole, self._short = False, 0

    def _has(self, partition: int, place: str) -> bool:
        try:
            return self._journal.record(partition, place) is not None
        except msgspec.DecodeError:
            return True

    def _is_time(self, name: str, seconds: float) -> bool:
        moment = time.monotonic()
        if moment - self._clocks.get(name, 0.0) < seconds:
            return False
        self._clocks[name] = moment
        return True


def _readable(partition: int, item: Item) -> Seen | None:
    try:
        return read_seen(item.payload)
    except msgspec.DecodeError as error:
        _log.warning("record %s of partition %d cannot be read and is not counted: %s", item.id, partition, error)
        return None


class Server:
    """The process at work."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self._settings, self._host, self._port = settings, host, port
        self._ending = threading.Event()
        self._http: ScrapeServer | None = None
        self._tried = -AGAIN_SECONDS
        self._told = False
        self._targets: list[dict[str, object]] = []
        self._can_write = True

    def end(self) -> None:
        self._ending.set()

    def run(self) -> None:
        """Serve until told to end.

        Raises:
            LogError: this is not a log that can be read.

        """
        with contextlib.closing(self._session()) as session, contextlib.closing(self._session()) as other:
            if self._ending.is_set():
                return
            exposition = Exposition(Tally())
            counting = Counting(Journal(session), exposition, self._settings.data / FILE)
            thread = threading.Thread(target=counting.run, name="journal", daemon=True)
            with Instruments(
                other.log, other.url, self._settings.data, exports=bool(self._settings.otlp)
            ) as instruments:
                thread.start()
                try:
                    self._watch(instruments, exposition, thread)
                finally:
                    counting.end()
                    thread.join(LONGEST_PAUSE)
                    if self._http is not None:
                        self._http.shutdown()
                        self._http.server_close()

    def _watch(self, instruments: Instruments, exposition: Exposition, thread: threading.Thread) -> None:
        while thread.is_alive():
            readings = instruments.read()
            exposition.show(readings)
            self._listen(exposition)
            self._tell_targets(readings)
            if self._ending.wait(READ_SECONDS):
                return
        raise LogError("counting has failed; see metrics.log")

    def _listen(self, exposition: Exposition) -> None:
        """Listen, if nobody else does; say once that somebody does."""
        if self._http is not None or time.monotonic() - self._tried < AGAIN_SECONDS:
            return
        self._tried = time.monotonic()
        try:
            self._http = ScrapeServer(self._host, self._port, exposition)
        except PortTaken as error:
            if not self._told:
                print(error, file=sys.stderr, flush=True)  # noqa: T201 - the supervisor says it, and adds it to the log
            self._told = True
            return
        threading.Thread(target=self._http.serve_forever, name="http", daemon=True).start()
        _log.info("metrics are at http://%s:%d/metrics", self._host, self._http.port)

    def _tell_targets(self, readings: Readings) -> None:
        """Write whom Prometheus is to scrape, in the form of its `file_sd_configs`."""
        ours = [] if self._http is None else [f"{_reachable(self._host)}:{self._http.port}"]
        flink = [] if readings.vitals is None or not readings.is_up else list(readings.vitals.flink)
        found = [("longwatch", ours), ("flink", flink)]
        targets: list[dict[str, object]] = [{"targets": t, "labels": {"job": job}} for job, t in found if t]
        if targets == self._targets:
            return
        path = self._settings.data / TARGETS
        aside = path.with_name(path.name + ".new")
        try:
            aside.write_text(json.dumps(targets, indent=1) + "\n", encoding="utf-8")
            aside.replace(path)
        except OSError as error:  # a full disk is no reason to tell nothing: that is when the metrics are wanted
            if self._can_write:
                _log.warning("%s cannot be written, which is tried again: %s", path, error)
            self._can_write = False
            return
        self._targets, self._can_write = targets, True

    def _session(self) -> Session:
        """A session; beside an engine one that starts no server by itself, which is the supervisor's."""
        session = Session(self._settings)
        pause = FIRST_PAUSE
        while not session.answers() and not self._ending.wait(pause):
            pause = min(2 * pause, LONGEST_PAUSE)
        return session


def _reachable(host: str) -> str:
    """Where a server that listens at `host` is found on this machine."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - it is compared
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def address(text: str) -> tuple[str, int]:
    """Host and port of `9464`, `host:port` or `[::1]:9464`; a port alone is one of this machine.

    Raises:
        ValueError: it is none of these.

    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) >= 1 << 16:
        message = f"{text!r} is no place to listen at: give a port, or host:port"
        raise ValueError(message)
    return host.strip("[]") or "127.0.0.1", int(port)


def listed() -> str:
    """All metrics as a table of Markdown."""
    rows = [f"| `{each.name}` | {each.kind} | {', '.join(each.labels) or '-'} | {each.help} |" for each in CATALOGUE]
    return "\n".join(["| metric | kind | labels | what it says |", "| --- | --- | --- | --- |", *rows])


# -- the process -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one; its exit code."""
    wanted = _parser().parse_args(arguments)
    if wanted.list:
        print(listed())  # noqa: T201
        return 0
    flags = {"data": wanted.data, "log": wanted.log, "metrics": wanted.listen}
    try:
        settings = load({name: value for name, value in flags.items() if value}).settings
        host, port = address(settings.metrics)
    except ValueError as error:  # SettingsError among them
        print(error, file=sys.stderr)  # noqa: T201 (no log is open yet)
        return UNUSABLE
    open_file(settings.data / "logs" / "metrics.log", settings.log_format, settings.log_level)
    with alone(settings.data / "metrics.lock") as is_alone:
        if not is_alone:
            refuse(_log, f"another process serves the metrics of {settings.data}: end it")
            return TAKEN
        return _serve(Server(settings, host, port))


def _serve(server: Server) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.end())
    try:
        server.run()
    except LogError as error:
        refuse(_log, f"the log cannot be read: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m observability.metrics_server", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, help="the engine's data folder")
    parser.add_argument("--log", help="the log, where it is not the embedded one")
    parser.add_argument("--listen", metavar="HOST:PORT", help="where; a port alone is one of this machine")
    parser.add_argument("--list", action="store_true", help="print all metrics, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
