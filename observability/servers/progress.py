"""How long work is shown: a line that moves on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Final, TextIO

_PLAIN_SECONDS: Final = 10.0
_MOVING_SECONDS: Final = 0.5
_CLEAR: Final = "\r\x1b[K"
"""Back to the line's beginning, and clear to its end (ECMA-48 EL)."""


class Progress:
    """Goes to standard error: standard output may be for a program."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._moves = self._out.isatty()
        self._began = self._shown = time.monotonic()

    def say(self, words: str) -> None:
        """Tell of something that happens once."""
        self._write(f"{words}\n")

    def begin(self, words: str) -> None:
        """Tell of something that takes long; what is shown next counts from now."""
        self._began = self._shown = time.monotonic()
        self.say(words)

    def show(self, words: str) -> None:
        """Show how far it is; call it as often as you like."""
        now = time.monotonic()
        if now - self._shown < (_MOVING_SECONDS if self._moves else _PLAIN_SECONDS):
            return
        self._shown = now
        text = f"{now - self._began:5.0f} s  {words}"
        self._write(text if self._moves else text + "\n")

    def done(self) -> None:
        """Leave no half line."""
        if self._moves:
            self._write("")

    def _write(self, text: str) -> None:
        self._out.write((_CLEAR if self._moves else "") + text)
        self._out.flush()
