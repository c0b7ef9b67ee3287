"""`longwatch run` with the profiled job: `python -m benchmarks.profiled_engine run ...`.

The supervisor's own threads are named for the system too, and with `LONGWATCH_PROFILE=calls` that of the run view runs
under cProfile.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import msgspec

import engine.supervisor
from benchmarks.profiled_job import cpu_profile, name_threads
from engine.cli import main
from engine.flink.plan import Plan
from engine.supervisor import Supervisor

JOB = "benchmarks.profiled_job:build"


class ProfiledSupervisor(Supervisor):
    """The supervisor, with the profiled job in its plan."""

    def _plan(self) -> Plan:
        return msgspec.structs.replace(super()._plan(), job=JOB)

    def _view(self, stop: threading.Event) -> Iterator[None]:
        if os.environ.get("LONGWATCH_PROFILE") != "calls":
            yield from super()._view(stop)
            return
        folder = self.settings.data / "profile"
        folder.mkdir(exist_ok=True)
        profile = cpu_profile()
        profile.enable()
        try:
            yield from super()._view(stop)
        finally:
            profile.dump_stats(folder / f"view-{os.getpid()}.pstats")


def _keep_naming() -> None:
    while True:
        time.sleep(1)
        name_threads()


if __name__ == "__main__":
    setattr(engine.supervisor, "Supervisor", ProfiledSupervisor)  # noqa: B010 - mypy takes no assignment to a class
    threading.Thread(target=_keep_naming, name="namer", daemon=True).start()
    main()
