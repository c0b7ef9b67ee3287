"""A bound on the time of a handler, from outside its thread.

Handlers run in the thread that folds; one that never ends would stop a whole subtask. A watcher throws `HandlerTimeout`
into that thread when a fold takes longer than its bound, which ends any loop in Python; the fold makes a verdict of it.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from types import TracebackType

from engine.core.errors import HandlerTimeout

logger = logging.getLogger(__name__)

_throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
LOOKS = 8
"""How often within the bound the watcher looks."""


class Guard:
    """`with guard: fold()`. One thread at a time; entering costs a few hundred nanoseconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._since = 0.0
        self._thrown = False
        self._thread = 0
        threading.Thread(target=self._watch, name="longwatch-guard", daemon=True).start()

    def __enter__(self) -> None:
        """Begin to count."""
        self._thread = threading.get_ident()
        self._since = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting; an exception that was thrown too late ends here."""
        self._since = 0.0
        if self._thrown:
            self._absorb()

    def _absorb(self) -> None:
        """Let an exception arrive that is on its way, so that it does not hit what comes after."""
        try:
            with self._lock:
                self._thrown = False
                _throw(ctypes.c_ulong(self._thread), None)
            for _ in range(1000):
                pass
        except HandlerTimeout:
            logger.info("a handler ended just at its bound")

    def _watch(self) -> None:
        while True:
            time.sleep(self._seconds / LOOKS)
            since = self._since
            if since and time.monotonic() - since > self._seconds:
                with self._lock:
                    if self._since == since and not self._thrown:
                        self._thrown = True
                        _throw(ctypes.c_ulong(self._thread), ctypes.py_object(HandlerTimeout))
