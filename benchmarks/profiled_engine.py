"""`longwatch run` with the profiled job and named threads: `python -m benchmarks.profiled_engine run ...`."""

from __future__ import annotations

import threading
import time

import msgspec

from benchmarks.profiled_job import name_threads
from engine.cli import main
from engine.flink.plan import Plan
from engine.supervisor import Supervisor

JOB = "benchmarks.profiled_job:build"


class _NamedThreads(Supervisor):
    def _plan(self) -> Plan:
        return msgspec.structs.replace(super()._plan(), job=JOB)


def _keep_naming() -> None:
    while True:
        time.sleep(1)
        name_threads()


if __name__ == "__main__":
    import engine.supervisor

    engine.supervisor.Supervisor = _NamedThreads  # type: ignore[misc]
    threading.Thread(target=_keep_naming, name="namer", daemon=True).start()
    main()
