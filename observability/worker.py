"""What the processes beside an engine have in common: the exporter of traces, and the one that serves metrics."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UNUSABLE: Final = 2
"""Exit code: settings that cannot be used."""
TAKEN: Final = 3
"""Exit code: another one works on this data folder."""


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Whether nobody else holds this lock; nobody else gets it until the block ends."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def refuse(log: logging.Logger, words: str) -> None:
    """Tell why it ends, in its log and to the supervisor."""
    log.error(words)
    print(words, file=sys.stderr)  # noqa: T201 (the supervisor hands it on)
