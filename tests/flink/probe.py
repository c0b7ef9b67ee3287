"""A job that tries everything of engine.flink.internals once and writes down what it saw."""

from __future__ import annotations

import pickle
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyflink.common import Duration, Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction
from pyflink.datastream.connectors.file_system import FileSource, StreamFormat

from engine.core.partition import flink_key
from engine.flink.internals import KeyedStore, Timers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyflink.datastream import StreamExecutionEnvironment


class Probe(KeyedProcessFunction):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def open(self, runtime_context: Any) -> None:
        self._store = KeyedStore(runtime_context, cells=("value", "walk"), queues=("held",))
        self._said: dict[str, Any] = {"timers": []}

    def process_element(self, value: str, ctx: Any) -> Iterable[bytes]:
        home = self._store.selected()
        self._try_cells()
        self._try_walks()
        self._try_queues()
        self._try_timers(Timers(ctx))
        self._store.select(home)
        self._said["home"] = self._store.selected()
        return ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterable[bytes]:
        self._said["timers"].append(ctx.get_current_key())
        if ctx.get_current_key() == "late":
            aside = Path(self._folder, "said.new")
            aside.write_bytes(pickle.dumps(self._said))
            aside.rename(Path(self._folder, "said"))
        return ()

    def _try_cells(self) -> None:
        select, cell = self._store.select, self._store.cell("value")
        select("a")
        self._said["first"] = cell.read()
        for key, value in (("a", b"\x00\xff"), ("\U0001f600", b""), ("b", b"x" * 300_000), ("c", b"gone")):
            select(key)
            cell.write(value)
        cell.clear()
        self._said["cleared"] = cell.read()
        self._said["values"] = {}
        for key in ("a", "\U0001f600", "b"):
            select(key)
            self._said["values"][key] = cell.read()

    def _try_walks(self) -> None:
        select, cell = self._store.select, self._store.cell("walk")
        for number in range(1000):
            select(flink_key("w", str(number)))
            cell.write(b"%d" % number)
        self._said["walked"] = sorted(self._store.keys("walk"))
        changed = 0
        for key in self._store.keys("walk"):
            select(key)
            cell.write((cell.read() or b"") * 20)
            changed += 1
        self._said["walked while changing"] = changed
        part = self._store.keys("walk")
        self._said["walked in part"] = len(list(islice(part, 3)))
        part.close()  # type: ignore[attr-defined]

    def _try_queues(self) -> None:
        held = self._store.queue("held")
        self._store.select("q")
        sizes = [held.size()]
        for number in range(300):
            held.append(b"%d" % number)
        sizes.append(held.size())
        self._said["queue"] = list(held)
        self._said["popped"] = [held.popleft(), held.popleft()]
        sizes.append(held.size())
        self._store.select("r")
        self._said["other key's queue"] = list(held)
        self._store.select("q")
        held.clear()
        self._said["sizes"] = [*sizes, held.size()]

    def _try_timers(self, timers: Timers) -> None:
        now = timers.now()
        for key, due in (("late", now + 600), ("early", now + 300), ("never", now + 400)):
            self._store.select(key)
            timers.set(due)
            timers.set(due)
        timers.delete(now + 400)


def itself(value: str) -> str:
    return value


def build(env: StreamExecutionEnvironment, folder: Path) -> None:
    from pyflink.java_gateway import get_gateway  # noqa: PLC0415 (needs a JVM)

    # A stream that never ends: at the end of one, Flink forgets the timers that are not yet due.
    (folder / "seeds").mkdir()
    (folder / "seeds" / "seed").write_text("probe\n")
    files = FileSource.for_record_stream_format(StreamFormat.text_line_format(), str(folder / "seeds"))
    files = files.monitor_continuously(Duration.of_seconds(3600)).build()
    source = env.from_source(files, WatermarkStrategy.no_watermarks(), "seeds")
    probed = source.key_by(itself, key_type=Types.STRING()).process(Probe(str(folder)), Types.PICKLED_BYTE_ARRAY())
    sink = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()
    probed._j_data_stream.sinkTo(sink)


def said(folder: Path) -> dict[str, Any]:
    answer: dict[str, Any] = pickle.loads((folder / "said").read_bytes())
    return answer
