"""Which position of each partition a checkpoint holds, asked of the checkpoint itself.

A small job is restored from it in which nothing but the readers' position is read: no entry is folded and no call is
made. Flink gives it the state as the real job would get it, whatever backend wrote it; the checkpoint stays Flink's (no
claim), and whatever else it holds is left alone. Read when the log has lost its end, and not at any other start.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from pyflink.common import Duration, Types, WatermarkStrategy
from pyflink.datastream import KeyedProcessFunction
from pyflink.datastream.connectors.file_system import FileSource, StreamFormat
from pyflink.java_gateway import get_gateway

from engine.core.partition import reader_key
from engine.flink.cluster import Cluster
from engine.flink.internals import KeyedStore
from engine.flink.plan import Plan
from engine.flink.rest import ENDED
from engine.log.protocol import START, Position

_TURN_SECONDS: Final = 0.1
_SECONDS: Final = 180.0

_IGNORE: Final = "execution.state-recovery.ignore-unclaimed-state"
"""What the sources and intakes of the real job have in the checkpoint is left alone."""

_INTERVAL: Final = "execution.checkpointing.interval"
"""Left out: a checkpoint of this job must never stand among those of the real one."""


class PositionsUnread(RuntimeError):
    """A checkpoint did not say which positions it holds.

    Attributes:
        path: its folder.
        why: the words of what failed.

    """

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"The positions in checkpoint {path} cannot be read: {why}")

    def __reduce__(self) -> tuple[type[PositionsUnread], tuple[str, str]]:
        """Survive pickling, which calls the class with its facts."""
        return PositionsUnread, (self.path, self.why)


class Told(msgspec.Struct, frozen=True):
    """What a reader says."""

    reader: str
    position: Position


class PositionReader(KeyedProcessFunction):
    """Writes down the position that is stored under each reader's key.

    It stands in the place of `PartitionEngine`, under the same `uid`; cell and form of the position are that one's.
    """

    def __init__(self, target: str) -> None:
        self._target = Path(target)

    def open(self, runtime_context: Any) -> None:  # noqa: ANN401 (PyFlink has no types)
        self._position = KeyedStore(runtime_context, cells=("position",)).cell("position")

    def process_element(self, value: str, ctx: Any) -> Iterable[bytes]:  # noqa: ANN401, ARG002 (PyFlink's own form)
        raw = self._position.read()
        position, _ = msgspec.json.decode(raw, type=tuple[str, int]) if raw else (START, 0)
        with self._target.open("ab", buffering=0) as target:
            target.write(msgspec.json.encode(Told(value, Position(position))) + b"\n")
        return ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterable[bytes]:  # noqa: ANN401, ARG002 (PyFlink's own form)
        """Leave the runs' timers alone: they are in the checkpoint still."""
        return ()


def read_positions(cluster: Cluster, plan: Plan, checkpoint: Path) -> dict[int, Position]:
    """The positions that a checkpoint holds, by partition.

    Raises:
        PositionsUnread: with Flink's words.
        JavaFailed: a process of the cluster has ended.

    """
    folder = plan.folder("flink") / "positions"
    folder.mkdir(exist_ok=True)
    target = folder / "told.jsonl"
    target.write_bytes(b"")
    environment = _environment(cluster, checkpoint, folder)
    _build(environment, plan, target)
    job = str(environment.execute_async("positions").get_job_id())
    try:
        return _await(cluster, plan, job, checkpoint, target)
    finally:
        _end(cluster, job)


def identity(value: str) -> str:
    """The key of a seed is the seed (a function of a module: Flink pickles it)."""
    return value


def _environment(cluster: Cluster, checkpoint: Path, folder: Path) -> Any:  # noqa: ANN401
    usual = cluster.options
    options = {name: value for name, value in usual.items() if name != _INTERVAL}
    cluster.options = options | {
        "execution.checkpointing.dir": (folder / "checkpoints").absolute().as_uri(),
        "execution.checkpointing.savepoint-dir": (folder / "savepoints").absolute().as_uri(),
        "execution.state-recovery.path": checkpoint.absolute().as_uri(),
        "execution.state-recovery.claim-mode": "NO_CLAIM",
    }
    try:
        environment = cluster.environment()
    finally:
        cluster.options = usual
    # Flink forgets this one when an environment is made (FLINK-34015), so it is told afterwards.
    environment._j_stream_execution_environment.getConfiguration().setString(_IGNORE, "true")  # noqa: SLF001
    return environment


def _build(env: Any, plan: Plan, target: Path) -> None:  # noqa: ANN401
    env.set_parallelism(plan.parallelism)
    env.set_max_parallelism(plan.partitions)
    env.set_buffer_timeout(0)
    seeds = target.parent / "seed"
    seeds.mkdir(exist_ok=True)
    (seeds / "readers").write_text("".join(f"{reader}\n" for reader in _readers(plan)))
    source = FileSource.for_record_stream_format(StreamFormat.text_line_format(), seeds.as_uri())
    # One that never ends, so that the job is ended in one way only.
    files = source.monitor_continuously(Duration.of_seconds(3600)).build()
    readers = env.from_source(files, WatermarkStrategy.no_watermarks(), "seeds").uid("positions-seeds")
    told = readers.key_by(identity, key_type=Types.STRING()).process(
        PositionReader(str(target)), output_type=Types.PICKLED_BYTE_ARRAY()
    )
    sink: Any = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()
    told.name("positions").uid("partition-engine")._j_data_stream.sinkTo(sink)  # noqa: SLF001 (PyFlink has no such sink)


def _await(cluster: Cluster, plan: Plan, job: str, checkpoint: Path, target: Path) -> dict[int, Position]:
    readers, until = _readers(plan), time.monotonic() + _SECONDS
    while time.monotonic() < until:
        cluster.check()
        lines = target.read_bytes().split(b"\n")[:-1]  # behind the last line break one may be half written
        told = {found.reader: found.position for found in (msgspec.json.decode(line, type=Told) for line in lines)}
        if told.keys() >= set(readers):
            return {partition: told[reader] for partition, reader in enumerate(readers)}
        if (status := cluster.rest.status(job)) in ENDED:
            raise PositionsUnread(str(checkpoint), cluster.rest.failure(job) or f"the job that asks ended: {status}")
        time.sleep(_TURN_SECONDS)
    raise PositionsUnread(str(checkpoint), f"nothing came within {_SECONDS:.0f} s")


def _end(cluster: Cluster, job: str) -> None:
    """End the job: the real one needs its slots."""
    until = time.monotonic() + _SECONDS
    if cluster.rest.status(job) not in ENDED:
        cluster.rest.cancel(job)
    while cluster.rest.status(job) not in ENDED and time.monotonic() < until:
        time.sleep(_TURN_SECONDS)


def _readers(plan: Plan) -> list[str]:
    return [reader_key(partition, plan.partitions) for partition in range(plan.partitions)]
