"""Events from anything that Flink can read: a source of CloudEvents in front of the log.

A project names functions in its settings (`intakes = ["my_shop.sources:orders"]`). Each gets the environment and
answers with a stream of texts, a CloudEvent (JSON) each: a Kafka topic with any partitioning, files, a Table program
that joins and enriches. Behind each stands the operator of this file, which checks an event, finds the runs that it
concerns, and appends one entry for each.

At least once: what is not acknowledged by the log yet is kept in Flink's state; repeats are dropped by the fold. What
is refused goes on the log as it is, and becomes a dead letter there, with the reason and its bytes.
"""

from __future__ import annotations

import importlib
import logging
import time
import zlib
from collections.abc import Iterable
from typing import Any

from pyflink.common import Types
from pyflink.datastream import DataStream, KeyedProcessFunction, StreamExecutionEnvironment
from pyflink.datastream.state import ListStateDescriptor

from engine import intake
from engine.core.entry import write_entry
from engine.core.errors import EventRefused
from engine.core.partition import partition_of
from engine.flink.plan import Plan
from engine.log.errors import LogUnavailable

logger = logging.getLogger(__name__)

BUCKETS = 64
"""Keys of the operator: enough to spread over any parallelism, few enough to fill a batch each."""
BATCH_MS = 20
LONGEST_PAUSE = 1.0


def bucket(event: str) -> str:
    """The key under which an event waits to be appended (a function of a module: Flink pickles it)."""
    return str(zlib.crc32(event.encode()) % BUCKETS)


def add_intake(env: StreamExecutionEnvironment, plan: Plan, name: str) -> DataStream:
    """Put the source that `module:function` makes, and the operator behind it, into an environment."""
    module, _, function = name.partition(":")
    source: DataStream = getattr(importlib.import_module(module), function)(env)
    keyed = source.key_by(bucket, key_type=Types.STRING())
    return keyed.process(Intake(plan), output_type=Types.STRING()).name(f"intake {name}").uid(f"intake-{name}")


class Intake(KeyedProcessFunction):
    """Appends checked events to the log, a batch every `BATCH_MS`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def open(self, runtime_context: Any) -> None:  # noqa: ANN401 - PyFlink has no types
        """Open the log; see `KeyedProcessFunction.open`."""
        from engine.flink.opening import load_application, open_log, open_logging  # noqa: PLC0415 - inside the JVM only

        open_logging(self.plan)
        self._application = load_application(self.plan)
        cursor, self._log = open_log(self.plan)
        cursor.close()
        self._waiting = runtime_context.get_list_state(ListStateDescriptor("waiting", Types.STRING()))

    def process_element(self, value: str, ctx: Any) -> Iterable[str]:  # noqa: ANN401 - PyFlink has no types
        """Keep an event until the batch goes out."""
        self._waiting.add(value)
        service = ctx.timer_service()
        due = service.current_processing_time() // BATCH_MS * BATCH_MS + BATCH_MS
        service.register_processing_time_timer(due)
        return ()

    def on_timer(self, timestamp: int, ctx: Any) -> Iterable[str]:  # noqa: ANN401, ARG002 - PyFlink's signature
        """Append what waits; while the log is away, so does the source."""
        entries = [item for event in self._waiting for item in self._entries(event)]
        pause = 0.05
        while entries:
            try:
                self._log.append_many(entries)
                break
            except LogUnavailable as error:
                logger.warning("%s; %d events wait", error, len(entries))
                time.sleep(pause)  # the log is away: the source must wait
                pause = min(2 * pause, LONGEST_PAUSE)
        self._waiting.clear()
        return ()

    def _entries(self, event: str) -> list[tuple[int, bytes]]:
        partitions = self._log.header.partitions
        try:
            found = intake.read(event.encode(), self._application)
        except EventRefused as refused:
            logger.warning("an event was refused: %s", refused)
            return [(zlib.crc32(event.encode()) % partitions, event.encode())]
        return [(partition_of(e.workflow, e.key, partitions), write_entry(e)) for e in found]
