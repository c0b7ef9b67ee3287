"""What runs beside the supervisor: work that is done again and again until it is told to stop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from engine.log.errors import Fenced, LogLost, LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LONGEST_PAUSE: Final = 10.0


class Background:
    """A thread that follows `work`, a generator function, from one `yield` to the next.

    A generator that fails is begun again after a pause: the log may be away for a while, and neither the view nor the
    archive may take the engine down. Only a log that was taken over or lost ends it.
    """

    def __init__(
        self, name: str, work: Callable[[threading.Event], Iterator[None]], tell: Callable[[Exception], None]
    ) -> None:
        """Start it.

        Args:
            name: said in messages.
            work: called with an event that is set when it should come to its end.
            tell: called with every failure that is not just an absent log, and with the one that ended it.

        """
        self.name = name
        self._work, self._tell = work, tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Ask it to come to its end and wait; whether it has."""
        self._stop.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.1
        while True:
            try:
                for _ in self._work(self._stop):
                    pause = 0.1
            except LogUnavailable:
                pass
            except (Fenced, LogLost) as error:
                self._tell(error)
                return
            except Exception as error:  # noqa: BLE001 (told, and tried again)
                self._tell(error)
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, _LONGEST_PAUSE)
