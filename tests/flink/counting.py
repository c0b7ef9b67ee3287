"""A job for tests: each partition has a reader that counts its own entries and spreads them over the keys of the
partition.

Entry n of a partition belongs to the key n modulo `KEYS`, so two figures that are written to different keys must always
agree: the reader's position, and the sum of the keys' counts.
"""

from __future__ import annotations

import json
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyflink.common import Duration, Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction
from pyflink.datastream.connectors.file_system import FileSource, StreamFormat

from engine.core.partition import flink_key, is_reader_key, partition_of, reader_key
from engine.flink.internals import KeyedStore, Timers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyflink.datastream import StreamExecutionEnvironment

    from engine.flink.plan import Plan

KEYS = 10


class Fenced(RuntimeError):
    """A failure on purpose."""


def keys_of(partition: int, partitions: int) -> list[str]:
    """Keys of runs that belong to the partition."""
    keys = (str(number) for number in count())
    return list(islice((key for key in keys if partition_of("count", key, partitions) == partition), KEYS))


class Counting(KeyedProcessFunction):
    def __init__(self, data: str, partitions: int) -> None:
        self._data, self._partitions = Path(data), partitions

    def open(self, runtime_context: Any) -> None:
        if (self._data / "fail-open").exists():
            message = "the log at redis://nowhere is lost"
            raise ConnectionRefusedError(message)
        self._store = KeyedStore(runtime_context, cells=("count", "position"), queues=("held",))
        self._partition = {reader_key(number, self._partitions): number for number in range(self._partitions)}
        self._armed: set[str] = set()

    def process_element(self, value: str, ctx: Any) -> Iterable[bytes]:
        if value not in self._armed:
            self._armed.add(value)
            timers = Timers(ctx)
            timers.set(timers.now())
        return ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterable[bytes]:
        if (self._data / "fence").exists():
            message = "epoch 1 is over: epoch 2 writes now"
            raise Fenced(message)
        reader = self._store.selected()
        # After a restore both the timer of the checkpoint and the seed's come: one of them goes on.
        if reader not in self._armed:
            self._armed.add(reader)
        self._count(reader, self._partition[reader])
        timers = Timers(ctx)
        timers.set(timers.now() - timers.now() % 20 + 20)
        return ()

    def _count(self, reader: str, partition: int) -> None:
        select, counted, position = self._store.select, self._store.cell("count"), self._store.cell("position")
        keys = [flink_key("count", key) for key in keys_of(partition, self._partitions)]
        place = int(position.read() or b"0")
        select(keys[place % KEYS])
        counted.write(b"%d" % (int(counted.read() or b"0") + 1))
        self._store.queue("held").append(b"%d" % place)
        total = held = 0
        for key in keys:
            select(key)
            total += int(counted.read() or b"0")
            held += self._store.queue("held").size()[0]
        select(reader)
        position.write(b"%d" % (place + 1))
        mine = [key for key in self._store.keys("count") if not is_reader_key(key)]
        line = {"place": place + 1, "total": total, "held": held, "walked": len(mine), "reader": id(self)}
        with (self._data / f"out-{partition}.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")


def seed_of(value: str) -> str:
    return value


def build(env: StreamExecutionEnvironment, plan: Plan) -> None:
    """Draw the graph: one seed for each partition's reader, the counting, no output."""
    from pyflink.java_gateway import get_gateway  # noqa: PLC0415 (needs a JVM)

    seeds = plan.folder("flink") / "seeds"
    seeds.mkdir(exist_ok=True)
    readers = [reader_key(partition, plan.partitions) for partition in range(plan.partitions)]
    (seeds / "readers").write_text("".join(f"{reader}\n" for reader in readers))
    source = FileSource.for_record_stream_format(StreamFormat.text_line_format(), str(seeds))
    source = source.monitor_continuously(Duration.of_seconds(3600)).build()
    stream = env.from_source(source, WatermarkStrategy.no_watermarks(), "seeds").set_parallelism(1).uid("seeds")
    counted = stream.key_by(seed_of, key_type=Types.STRING()).process(
        Counting(plan.data, plan.partitions),
        output_type=Types.PICKLED_BYTE_ARRAY(),
    )
    counted.uid("counting")
    sink = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()
    counted._j_data_stream.sinkTo(sink).uid("nowhere")
