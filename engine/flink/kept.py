"""The results that calls have kept, beside the snapshot of their run.

They stand in a queue of keyed state, so that keeping one more costs one write however many there are, and a snapshot
stays small however long an agent thinks.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
from msgspec import Raw

from engine.core.ids import CallId
from engine.flink.internals import Queue

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode


class Store(Protocol):
    """What is asked of `engine.flink.internals.KeyedStore`."""

    def queue(self, name: str) -> Queue: ...


class KeptResults:
    """The kept results of the run whose key is selected. `queues` are to be named to the store."""

    queues = ("kept",)

    def __init__(self, store: Store) -> None:
        self._queue = store.queue("kept")

    def append(self, call: CallId, name: str, output: Raw) -> None:
        """Keep one more."""
        self._queue.append(_encode((call, name, bytes(output))))

    def of(self, call: CallId) -> dict[str, Raw]:
        """What a call has kept, by name."""
        found = (_decode(item) for item in self._queue)
        return {name: Raw(output) for owner, name, output in found if owner == call}

    def forget(self, call: CallId) -> None:
        """A call is over, or all are (empty). Mostly it alone has kept something, and the whole queue goes."""
        items = list(self._queue)
        others = [item for item in items if call and _decode(item)[0] != call]
        if len(others) == len(items):
            return
        self._queue.clear()
        for item in others:
            self._queue.append(item)
