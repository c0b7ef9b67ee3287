"""The job: seeds for the readers, the partition engine behind them, and the project's intakes beside it."""

from __future__ import annotations

from typing import Any

from pyflink.common import Duration, Types, WatermarkStrategy
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.file_system import FileSource, StreamFormat
from pyflink.java_gateway import get_gateway

from engine.core.partition import reader_key
from engine.flink.intake import add_intake
from engine.flink.partition_engine import PartitionEngine
from engine.flink.plan import Plan

SEED_SECONDS = 3600
"""How often the source looks for new seeds; there are none, but a source that ends would end the job."""


def identity(value: str) -> str:
    """The key of a seed is the seed (a function of a module: Flink pickles it)."""
    return value


def build(env: StreamExecutionEnvironment, plan: Plan) -> None:
    """Put the job into an environment."""
    env.set_parallelism(plan.parallelism)
    env.set_max_parallelism(plan.partitions)
    env.set_buffer_timeout(0)
    folder = plan.folder("flink") / "seed"
    folder.mkdir(exist_ok=True)
    seeds = "".join(reader_key(p, plan.partitions) + "\n" for p in range(plan.partitions))
    (folder / "readers").write_text(seeds)
    source = (
        FileSource.for_record_stream_format(StreamFormat.text_line_format(), folder.as_uri())
        .monitor_continuously(Duration.of_seconds(SEED_SECONDS))
        .build()
    )
    readers = env.from_source(source, WatermarkStrategy.no_watermarks(), "readers").uid("readers")
    engine = readers.key_by(identity, key_type=Types.STRING()).process(
        PartitionEngine(plan), output_type=Types.PICKLED_BYTE_ARRAY()
    )
    _discard(engine.name("partition engine").uid("partition-engine"))
    for name in plan.intakes:
        _discard(add_intake(env, plan, name))


def _discard(stream: DataStream) -> None:
    sink: Any = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()
    stream._j_data_stream.sinkTo(sink)  # noqa: SLF001 - PyFlink has no such sink of its own
