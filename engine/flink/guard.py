"""A bound on the time of a handler, from outside its thread.

Handlers run in the thread that folds; one that never ends would stop a whole subtask. A watcher throws `HandlerTimeout`
into that thread when a fold takes longer than its bound, which ends any loop in Python; the fold makes a verdict of it.
A handler that takes no notice (it waits inside C, or swallows every exception) is thrown at once more, and then the
watcher gives the fold up: see `PartitionEngine`.

A handler that never lets go of Python's lock (a regular expression without end) stops the watcher too.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from engine.core.errors import HandlerFailed, HandlerTimeout
from engine.core.fold import Fold

logger = logging.getLogger(__name__)

_throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
LOOKS = 8
"""How often within the bound the watcher looks."""
THROWS = 2
"""How often it throws, a bound apart, before it gives up."""
_APPLICATION = Fold.apply.__code__
"""The frame whose locals say which application hangs."""


class Guard:
    """`with guard: fold()`. One thread at a time; entering costs a few hundred nanoseconds."""

    def __init__(self, seconds: float, give_up: Callable[[FrameType | None], None]) -> None:
        """Begin to watch.

        Args:
            seconds: the bound.
            give_up: called in the watcher's thread, with the frame where the other one stands.
        """
        self._seconds = seconds
        self._give_up = give_up
        self._error = _timeout(seconds)
        self._lock = threading.Lock()
        self._since = 0.0
        self._thrown = 0
        self._thread = 0
        self.folds = 1.0
        """How many times the bound the next fold may take."""
        threading.Thread(target=self._watch, name="longwatch-guard", daemon=True).start()

    def __enter__(self) -> None:
        """Begin to count."""
        self._thread = threading.get_ident()
        self._since = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting; an exception that was thrown too late ends here."""
        with self._lock:
            self._since = 0.0
        if self._thrown:
            self._absorb()

    def _absorb(self) -> None:
        """Let an exception arrive that is on its way, so that it does not hit what comes after."""
        try:
            self._thrown = 0
            _throw(ctypes.c_ulong(self._thread), None)
            for _ in range(1000):
                pass
        except HandlerTimeout:
            logger.info("a handler ended just at its bound")

    def _watch(self) -> None:
        while True:
            time.sleep(self._seconds / LOOKS)
            with self._lock:
                since, bound = self._since, self._seconds * self.folds
                late = time.monotonic() - since if since else 0.0
                throws = self._thrown < THROWS and late > bound * (self._thrown + 1)
                if throws:
                    self._thrown += 1
                    _throw(ctypes.c_ulong(self._thread), ctypes.py_object(self._error))
            if not throws and late > bound * (THROWS + 1):
                self._give_up(sys._current_frames().get(self._thread))  # noqa: SLF001 - the only way to look


def _timeout(seconds: float) -> type[HandlerTimeout]:
    """An exception that says its bound, since it is thrown as a class."""

    def words(_: HandlerTimeout) -> str:
        return f"it did not end within {seconds:g} s, the bound of every handler (setting handler_timeout)"

    return type("HandlerTimeout", (HandlerTimeout,), {"__str__": words})


def hanging_in(frame: FrameType | None) -> HandlerFailed:
    """What a fold that hangs comes to: the application that it stands in fails, at the line where it stands."""
    where, index, cause = "", 0, ""
    while frame is not None:
        if not where and "/engine/core/" not in frame.f_code.co_filename:
            file = frame.f_code.co_filename.rsplit("/", 1)[-1]
            where = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        if frame.f_code is _APPLICATION:
            known = frame.f_locals
            index, cause = known["index"], f"{known['cause']} {known['name']} in {known['from_'] or 'start'}"
            break
        frame = frame.f_back
    return HandlerFailed(index, "HandlerTimeout: it did not end, and could not be interrupted", where, cause)
