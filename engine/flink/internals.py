"""The only file that touches what PyFlink keeps to itself.

PyFlink's public state classes convert every value on its way (pickle, or a converter for each type) and let a function
touch the key of its element only. The partition engine reads and writes bytes as they are, under the key of whichever
run an entry belongs to. In thread mode Flink's Java objects are at hand in the same process (through pemja), so both
are
possible:

- `Row.of(key)` is what PyFlink makes of a key that is a string; `setCurrentKey(row)` is what Flink itself calls before
  every element and timer.
- A descriptor of type `PICKLED_BYTE_ARRAY` is a plain `byte[]` for Java; its inner `_state` takes and gives `bytes`
  without pickle.
- `getKeys(state, namespace)` walks all keys of a state in this subtask.

All of it holds for one version of PyFlink, so the version is pinned here and tested in `tests/flink/test_internals.py`.
Everything here belongs to the task's own thread ("mailbox"): call it from `open`, `process_element` and `on_timer`
only, never from the thread of the steps.

A call costs 1 to 3 µs, most of it the way into Java and back, and an attribute looked up on a Java object is as dear as
a call. So `KeyedStore` and its cells hand out *bound* functions: take them once, before the loop.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import pyflink.version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyflink.datastream import RuntimeContext

PYFLINK: Final = "2.3.0"
"""The version of PyFlink whose internals this file knows."""


class UnknownFlink(RuntimeError):
    """PyFlink is not the version that this file was written for, or runs in another mode.

    Attributes:
        found: what was found.

    """

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(
            f"engine.flink.internals knows PyFlink {PYFLINK} in thread mode, and found {found}: install"
            f" apache-flink=={PYFLINK} (`make setup` does)."
        )

    def __reduce__(self) -> tuple[type[UnknownFlink], tuple[str]]:
        """Survive pickling, which calls the class with its facts."""
        return UnknownFlink, (self.found,)


def check_version() -> None:
    """Refuse another PyFlink than the one this file was written for.

    Raises:
        UnknownFlink: if it is another.

    """
    if pyflink.version.__version__ != PYFLINK:
        raise UnknownFlink(f"PyFlink {pyflink.version.__version__}")


class Cell:
    """One value of bytes a key: `read()`, `write(value)` and `clear()`, each for the key that is selected.

    `read()` gives None where nothing was written.
    """

    __slots__ = ("clear", "name", "read", "write")

    def __init__(self, name: str, state: Any) -> None:  # noqa: ANN401 (a Java object)
        self.name = name
        self.read: Callable[[], bytes | None] = state.value
        self.write: Callable[[bytes], None] = state.update
        self.clear: Callable[[], None] = state.clear


class Queue:
    """Entries of bytes kept in order for the key that is selected; adding one costs the same however many there are.

    Flink's list state reads and writes a whole list where a backend keeps it in one piece, and a map state does not
    iterate in the order of its keys on the heap. So a map from a rising number to bytes is used, and beside it a cell
    with the first number, the next number and the sum of the sizes.
    """

    __slots__ = ("_bounds", "_drop", "_get", "_put", "name")

    _LAYOUT: Final = struct.Struct(">QQQ")

    def __init__(self, name: str, entries: Any, bounds: Cell) -> None:  # noqa: ANN401 (a Java object)
        self.name = name
        self._bounds = bounds
        self._get: Callable[[int], bytes | None] = entries.get
        self._put: Callable[[int, bytes], None] = entries.put
        self._drop: Callable[[int], None] = entries.remove

    def append(self, entry: bytes) -> None:
        """Add an entry at the end."""
        first, end, size = self._read()
        self._put(end, entry)
        self._bounds.write(self._LAYOUT.pack(first, end + 1, size + len(entry)))

    def size(self) -> tuple[int, int]:
        """How many entries there are, and how many bytes they have together."""
        first, end, size = self._read()
        return end - first, size

    def peek(self) -> bytes | None:
        """The first entry, which stays; None if there is none."""
        first, end, _ = self._read()
        return self._at(first) if first < end else None

    def popleft(self) -> bytes | None:
        """Take the first entry out; None if there is none."""
        first, end, size = self._read()
        if first == end:
            return None
        entry = self._at(first)
        self._drop(first)
        if first + 1 == end:
            self._bounds.clear()
        else:
            self._bounds.write(self._LAYOUT.pack(first + 1, end, size - len(entry)))
        return entry

    def __iter__(self) -> Iterator[bytes]:
        """All entries in order; they stay. Ends wrongly if another key is selected meanwhile."""
        first, end, _ = self._read()
        return (self._at(number) for number in range(first, end))

    def clear(self) -> None:
        """Take all entries out."""
        first, end, _ = self._read()
        for number in range(first, end):
            self._drop(number)
        self._bounds.clear()

    def _read(self) -> tuple[int, int, int]:
        raw = self._bounds.read()
        return (0, 0, 0) if raw is None else self._LAYOUT.unpack(raw)

    def _at(self, number: int) -> bytes:
        entry = self._get(number)
        if entry is None:
            raise RuntimeError(
                f"Queue {self.name!r} has lost entry {number} of the selected key. Bounds and entries are always"
                f" written together, so the checkpoint is damaged: go on from an older one."
            )
        return entry


class KeyedStore:
    r"""The keyed state of one subtask, under any key of its key groups.

    Make it in `open(runtime_context)`; cells and queues are named for good: their names are part of every checkpoint.

    Example:
        store = KeyedStore(context, cells=("snapshot", "position"), queues=("held",))
        select, read, write = store.select, store.cell("snapshot").read, store.cell("snapshot").write
        select("claim\x1f4711")
        write((read() or b"") + b"!")

    """

    def __init__(self, context: RuntimeContext, *, cells: Iterable[str], queues: Iterable[str] = ()) -> None:
        check_version()
        try:
            from pemja import findClass  # noqa: PLC0415 (can be imported inside Flink's JVM only)

            self._backend = context._keyed_state_backend._keyed_state_backend  # noqa: SLF001
        except (ImportError, AttributeError) as error:
            raise UnknownFlink(f"no keyed state of thread mode ({error})") from error
        self._row_of: Callable[[tuple[str]], Any] = findClass("org.apache.flink.types.Row").of
        self._namespace = findClass("org.apache.flink.runtime.state.VoidNamespace").INSTANCE
        self._set: Callable[[Any], None] = self._backend.setCurrentKey
        self._get: Callable[[], Any] = self._backend.getCurrentKey
        self._cells = {name: Cell(name, _value_state(context, name)) for name in cells}
        self._queues = {name: self._queue(context, name) for name in queues}
        self.select = self._make_select()

    def cell(self, name: str) -> Cell:
        """The cell of that name."""
        return self._cells[name]

    def queue(self, name: str) -> Queue:
        """The queue of that name."""
        return self._queues[name]

    def selected(self) -> str:
        """The key that is selected."""
        key: str = self._get().getField(0)
        return key

    def keys(self, name: str) -> Iterator[str]:
        """Every key of this subtask whose cell of that name holds something, in no order.

        Lazy: on RocksDB an iterator over the state as it is now, on the heap one key group at a time. Keys may be
        selected and cells written between two steps; a key that comes to a cell meanwhile may be missing. Selects
        nothing itself. End it (or close the generator) soon: an open one keeps RocksDB from freeing what it sees.
        """
        stream = self._backend.getKeys(name, self._namespace)
        try:
            steps = stream.iterator()
            more, step = steps.hasNext, steps.next
            while more():
                yield step().getField(0)
        finally:
            stream.close()

    def _queue(self, context: RuntimeContext, name: str) -> Queue:
        bounds = f"{name}-bounds"
        return Queue(name, _map_state(context, name), Cell(bounds, _value_state(context, bounds)))

    def _make_select(self) -> Callable[[str], None]:
        put, row_of = self._set, self._row_of

        def select(key: str) -> None:
            """Make `key` the key of every cell, queue and timer.

            Put the old one back before an `on_timer` or `process_element` ends.
            """
            put(row_of((key,)))

        return select


class Timers:
    """Flink's processing-time timers for the key that is selected; times are wall time in milliseconds since the epoch.

    Setting a timer twice for one key and time is setting it once. A timer that is re-armed while it fires must be later
    than `now()`, or Flink fires it again in the same loop.
    """

    __slots__ = ("delete", "now", "set")

    def __init__(self, context: Any) -> None:  # noqa: ANN401 (the context of `process_element` or `on_timer`)
        service = context.timer_service()._j_timer_service  # noqa: SLF001 (see the head of this file)
        self.set: Callable[[int], None] = service.registerProcessingTimeTimer
        self.delete: Callable[[int], None] = service.deleteProcessingTimeTimer
        self.now: Callable[[], int] = service.currentProcessingTime


def subtask_of(context: RuntimeContext) -> int:
    """Which of the parallel subtasks this is, from 0. PyFlink's own method asks Flink for what Flink 2 has moved."""
    index: int = context._runtime_context.getTaskInfo().getIndexOfThisSubtask()  # noqa: SLF001
    return index


def _value_state(context: RuntimeContext, name: str) -> Any:  # noqa: ANN401
    from pyflink.common import Types  # noqa: PLC0415 (half of PyFlink: only inside the JVM)
    from pyflink.datastream.state import ValueStateDescriptor  # noqa: PLC0415

    return context.get_state(ValueStateDescriptor(name, Types.PICKLED_BYTE_ARRAY()))._state  # noqa: SLF001


def _map_state(context: RuntimeContext, name: str) -> Any:  # noqa: ANN401
    from pyflink.common import Types  # noqa: PLC0415
    from pyflink.datastream.state import MapStateDescriptor  # noqa: PLC0415

    descriptor = MapStateDescriptor(name, Types.LONG(), Types.PICKLED_BYTE_ARRAY())
    return context.get_map_state(descriptor)._state  # noqa: SLF001
