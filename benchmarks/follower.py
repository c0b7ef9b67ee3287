"""Sees runs end: a thread that follows the journal as any reader of it does.

The ids of records are made of the *entries'* positions, so they say when an entry was appended and not when its record
came. So times are taken here, by this process's clock, when a read hands the record over: a few tenths of a
millisecond late, never early.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import msgspec

from benchmarks import load
from benchmarks.engine_process import EngineProcess
from engine.log.errors import LogError
from engine.log.redis_log import RedisLog
from engine.log.redis_wire import Address, Wire

WAIT_MS = 200


class _Seen(msgspec.Struct, gc=False):
    key: str
    status: str = "waiting"


_read = msgspec.json.Decoder(_Seen).decode


class Endings:
    """Keys of the runs that finished since it was made, with `time.perf_counter()` of that moment."""

    def __init__(self, engine: EngineProcess) -> None:
        self.at: dict[str, float] = {}
        self._log: RedisLog = engine.open_log()
        self._stop = threading.Event()
        wire = Wire(Address.parse(engine.url))
        self._after: dict[int, str | None] = dict(enumerate(load.ends(wire, "journal")))
        wire.close()
        self._thread = threading.Thread(target=self._follow, name="endings", daemon=True)
        self._thread.start()

    def wait(self, count: int, seconds: float) -> bool:
        """Wait until so many runs have finished; whether they have in that time."""
        until = time.monotonic() + seconds
        while len(self.at) < count:
            if time.monotonic() > until or not self._thread.is_alive():
                return False
            time.sleep(0.002)
        return True

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                found = self._log.follow("journal", self._after, WAIT_MS, 1000)
            except LogError:
                return
            now = time.perf_counter()
            for partition, items in found.items():
                self._after[partition] = items[-1].id
                for item in items:
                    seen = _read(item.payload)
                    if seen.status == "finished":
                        self.at.setdefault(seen.key, now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(2 + WAIT_MS / 1000)
        self._log.close()
