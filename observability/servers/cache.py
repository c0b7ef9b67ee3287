"""The folder in which built servers lie: the user's cache, never a clone."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from observability.servers.errors import ServerMissing


class Told(Protocol):
    """Who hears what takes long."""

    def say(self, words: str) -> None:
        """Tell of something that happens once."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/longwatch/servers`, by default in `~/.cache` (XDG Base Directory Specification)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "longwatch" / "servers"


@contextlib.contextmanager
def only_one(name: str, told: Told) -> Iterator[None]:
    """Hold the lock of what is being built: a second one waits, and finds it there.

    Raises:
        ServerMissing: nothing can be written there.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / f"{name}.lock").open("w")
    except OSError as error:
        raise ServerMissing(
            f"{name} cannot be set up: {error.strerror} ({error.filename}); let XDG_CACHE_HOME name a folder that you"
            " may write to"
        ) from None
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told.say(f"{name} is being set up by another process; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
