"""The data folder: everything that an embedded engine keeps, and the note of who runs it.

| file | what |
| --- | --- |
| `redis/` | the log: socket, append-only file |
| `checkpoints/`, `savepoints/` | Flink's |
| `archive/` | what was trimmed from the log |
| `view.sqlite` | the run view; can be thrown away |
| `logs/` | engine.log, flink.log, redis.log, exporter.log, metrics.log |
| `exporter.json` | how far traces are sent |
| `engine.json` | `EngineFile` |
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.log.lease import Owner


class Pids(Struct, frozen=True, omit_defaults=True):
    """Processes of an engine; 0: there is none."""

    supervisor: int = 0
    driver: int = 0
    jvm: int = 0
    redis: int = 0
    exporter: int = 0
    metrics: int = 0


class EngineFile(Struct, frozen=True):
    """What `engine.json` holds: the last start, and how it ended."""

    version: str
    """Of Longwatch."""
    app: str
    log_id: str
    """Of the log that the checkpoints stand on."""
    owner: Owner
    """The supervisor."""
    started: int
    """Wall ms."""
    pids: Pids = Pids()
    rest_port: int = 0
    """Flink's REST interface on localhost; 0 until it is up."""
    code: dict[str, str] = {}
    """Digest of each workflow's code that folds in this start."""
    stopped: int = 0
    """Wall ms of a clean stop, after which other code may go on; 0: it runs, or it ended otherwise."""

    @property
    def runs(self) -> bool:
        """Whether its supervisor lives, as far as can be judged from this machine."""
        return self.stopped == 0 and self.owner.is_local() and not self.owner.is_dead()


class DataFolder:
    """Where an embedded engine lives."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def make(self) -> None:
        """Make the folder, for its owner alone."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        ignore = self.path / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="ascii")

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def archive(self) -> Path:
        return self.path / "archive"

    @property
    def view(self) -> Path:
        return self.path / "view.sqlite"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    def newest_checkpoint(self) -> int:
        """When the newest checkpoint or savepoint was completed, wall ms; 0: there is none."""
        marks = [*self.path.glob("checkpoints/*/chk-*/_metadata"), *self.path.glob("savepoints/*/_metadata")]
        return max((mark.stat().st_mtime_ns // 1_000_000 for mark in marks), default=0)

    def has_checkpoints(self) -> bool:
        return self.newest_checkpoint() > 0

    def read_engine(self) -> EngineFile | None:
        """Read the last start; None if there was none, or its note cannot be read."""
        try:
            return msgspec.json.decode((self.path / "engine.json").read_bytes(), type=EngineFile)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def write_engine(self, engine: EngineFile) -> None:
        """Write the note whole or not at all."""
        aside = self.path / "engine.json.new"
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(engine)) + b"\n")
        aside.replace(self.path / "engine.json")


def now() -> int:
    """Wall time in ms."""
    return time.time_ns() // 1_000_000
