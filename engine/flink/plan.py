"""What the supervisor tells the driver to run: one frozen value, written as JSON beside the data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Backend = Literal["rocksdb", "heap"]
"""Where keyed state lives: on disk with incremental checkpoints (larger than memory), or on Java's heap (faster)."""

Cluster = Literal["mini", "standalone"]
"""All of Flink in one JVM, or a JobManager and one TaskManager a slot, each a process."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One start of the engine."""

    app: str
    """The application, as `module:name`."""
    app_path: str
    """The folder that `module` is imported from."""
    data: str
    """The data folder: `checkpoints/`, `savepoints/`, `logs/` and `flink/` under it."""
    log_url: str = ""
    log_id: str = ""
    """The log that the data folder belongs to; empty: whichever answers."""
    job: str = "engine.flink.job:build"
    """The function that draws the job's graph, as `module:name`: called with environment and plan."""
    restore: str = ""
    """A checkpoint or savepoint to go on from; empty: the newest whole one."""
    look_back: bool = False
    """The log has lost its end: go on from the newest checkpoint that it still covers, and refuse if there is none."""
    epoch: int = 0
    """The number of this start; the log refuses what an older one writes."""
    intakes: tuple[str, ...] = ()
    """Functions that make sources of events, as `module:function`; see `engine.flink.intake`."""
    partitions: int = 16
    lapse: float = 1.0
    """Log milliseconds a wall millisecond."""

    cluster: Cluster = "mini"
    parallelism: int = 1
    """Subtasks of the partition engine; divides `partitions`. One TaskManager each when `cluster` is standalone."""
    backend: Backend = "rocksdb"
    checkpoint_interval_ms: int = 2000
    retained_checkpoints: int = 3
    managed_memory: str = "512mb"
    """RocksDB's caches and write buffers, for each TaskManager."""
    heap: str = ""
    """Java's largest heap (`-Xmx`), such as `2g`; empty: Java's own default, a quarter of the memory."""
    stop_seconds: float = 10.0
    """How long a stop waits for its savepoint before it ends on the last checkpoint."""
    java: tuple[str, ...] = ()
    """Further options of Java."""
    restarts: int = 0
    """How often Flink starts a failed job again by itself. With 0 the driver ends with the job's words, and its
    supervisor begins a fresh one: no thread of the old job lives on."""
    flink: dict[str, str] = msgspec.field(default_factory=dict)
    """Further Flink options, which win over those of this file."""

    slice_ms: int = 20
    handler_timeout_ms: int = 5000
    """A handler that takes longer halts its run."""
    early_hold_ms: int = 3_600_000
    """How long an event waits for its run to begin, log ms."""
    retention_ms: int = 7 * 86_400_000
    """How long finished runs and event ids are remembered, log ms."""

    log_format: Literal["human", "json"] = "human"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics: bool = False
    """Whether Flink serves its own metrics to Prometheus, on free ports of this machine that the driver tells."""

    def folder(self, name: str) -> Path:
        """A folder inside the data folder, made if it is not there."""
        path = Path(self.data).absolute() / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def read_plan(path: Path) -> Plan:
    """Read a plan that `write_plan` wrote.

    Raises:
        msgspec.ValidationError: if it is not one.

    """
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan for `python -m engine.flink.driver --plan`."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(plan)))
