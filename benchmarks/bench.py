"""What every measurement needs: options, a folder, engines in it, and what the host did meanwhile."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import load, processes
from benchmarks.engine_process import APPLICATION, EngineProcess
from engine.settings import Settings

DEFAULT_BACKEND: str = Settings.model_fields["backend"].default
"""The engine's."""


@dataclass(frozen=True)
class Options:
    """What is measured, and how much of it."""

    runs: int = 60_000
    warm_up: int = 20_000
    backend: str = "both"
    taskmanagers: int = 0
    """0: one, and for the heap two as well."""
    latency_seconds: int = 60
    rate: int = 20
    slow: int = 2_000
    sleepers: int = 1_000_000
    patience: float = 1_800.0
    """Seconds after which a measurement is given up."""
    settings: Mapping[str, str] = field(default_factory=dict)
    data: Path | None = None
    keep: bool = False

    @property
    def one_backend(self) -> str:
        """Of the measurements that are made once."""
        return DEFAULT_BACKEND if self.backend == "both" else self.backend


@dataclass
class Phase:
    """What the host did while something was measured."""

    name: str
    seconds: float = 0.0
    steal_percent: float = 0.0
    idle_percent: float = 0.0


class Bench:
    """A folder for all engines of one benchmark. A context manager: leaving it removes the folder."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.phases: list[Phase] = []
        if options.data is not None:
            options.data.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="longwatch-bench-", dir=options.data))

    def engine(
        self,
        name: str,
        *,
        backend: str = "",
        taskmanagers: int = 1,
        module: str = "engine.cli",
        environment: Mapping[str, str] | None = None,
        application: str = APPLICATION,
    ) -> EngineProcess:
        """An engine that is not started yet."""
        settings = {"backend": backend or self.options.one_backend}
        if taskmanagers > 1:
            settings |= {"cluster": "standalone", "parallelism": str(taskmanagers)}
        settings |= self.options.settings
        folder = self.folder / name
        return EngineProcess(folder, settings, module=module, environment=environment, application=application)

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        """Measure the host meanwhile, and say on standard error what is being done."""
        phase = Phase(name)
        say(name)
        host, began = processes.Host.now(), time.monotonic()
        try:
            yield phase
        finally:
            phase.seconds = time.monotonic() - began
            phase.steal_percent, phase.idle_percent = processes.Host.now().percent_since(host)
            self.phases.append(phase)

    def warm_up(self, engine: EngineProcess, runs: int = 0) -> None:
        """Run some three-step runs that are not counted, so that Java has compiled what is hot."""
        count = runs or self.options.warm_up
        with self.phase(f"warm-up, {count:,} runs"):
            watch = load.Watch(engine, "claim-3step", "finished")
            load.append(engine, (load.filed(number, "warm") for number in range(count)))
            watch.until(count, self.options.patience)
            watch.close()

    @property
    def steal_percent(self) -> float:
        """Of all phases, by their length."""
        seconds = sum(phase.seconds for phase in self.phases)
        return sum(phase.seconds * phase.steal_percent for phase in self.phases) / seconds if seconds else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.options.keep:
            say(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def say(words: str) -> None:
    """Progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def machine(folder: Path) -> dict[str, object]:
    """The machine, as far as it matters."""
    lines = (processes.PROC / "cpuinfo").read_text().splitlines()
    memory = (processes.PROC / "meminfo").read_text().split("MemTotal:", 1)[1].split()[0]
    return {
        "cpu": next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory) / (1 << 20), 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "disk": _kind_of_disk(folder),
    }


def _kind_of_disk(folder: Path) -> str:
    """The file system under a folder: a log on `tmpfs` is written through to nothing."""
    mounts = [line.split()[1:3] for line in (processes.PROC / "mounts").read_text().splitlines()]
    path = folder.resolve()
    over = [(mount, kind) for mount, kind in mounts if path.is_relative_to(mount)]
    return max(over, key=lambda each: len(each[0]), default=("", "unknown"))[1]


def facts(value: object) -> dict[str, object]:
    """A dataclass as JSON takes it."""
    return asdict(value)  # type: ignore[call-overload, no-any-return]
