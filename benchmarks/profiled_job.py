"""The engine's job with a profile of the thread that folds; only a plan that names this job pays for it.

`LONGWATCH_PROFILE` says which: `sections` measures the CPU time of what the partition engine calls (the cost of the
clock is taken off, and still what is small is shown less exactly); `calls` runs it and the thread of the steps under
cProfile, which shows every function, in CPU time, and makes all of them several times as slow; `names` only names
Python's threads for the system, as the other two do too.
The results are written into `profile/` of the data folder every few seconds and at the end.
"""

from __future__ import annotations

import cProfile
import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from engine.flink import job, partition_engine
from engine.flink.calls import Calls
from engine.flink.partition_engine import PartitionEngine
from engine.flink.plan import Plan

WRITE_SECONDS = 2.0
FUNCTIONS = ("read_entry", "transition", "write_record", "write_entry", "partition_of", "flink_key")
METHODS = ("_poll", "_batch", "_fold", "_guarded", "_emit", "_keep", "_append")
"""Those of the partition engine that are there are measured; what has another name by now is missed, no more."""


def build(env: Any, plan: Plan) -> None:  # noqa: ANN401 - PyFlink has no types
    """Put the job into an environment, with the profiled engine in the place of the plain one."""
    setattr(job, "PartitionEngine", ProfiledEngine)  # noqa: B010 - mypy takes no assignment to another module's class
    job.build(env, plan)


class Sections:
    """CPU time of a thread spent in named pieces; a piece within another one is taken off the outer one.

    Reading the clock is no small thing beside what is measured, so its cost is found out first and taken off too.
    """

    def __init__(self) -> None:
        self.nanoseconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = [0.0]
        self._inside = self._outside = 0.0
        self._calibrate()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        inner, spent, calls, clock = self._inner, self.nanoseconds, self.calls, time.thread_time_ns
        inside, outside = self._inside, self._outside

        def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the piece takes and gives
            inner.append(0.0)
            began = clock()
            try:
                return function(*arguments, **named)
            finally:
                took = clock() - began
                spent[name] += took - inner.pop() - inside
                inner[-1] += took + outside
                calls[name] += 1

        return timed

    def _calibrate(self) -> None:
        rounds = 20_000
        empty = _nothing
        timed = self.wrap("", empty)
        began = time.thread_time_ns()
        for _ in range(rounds):
            empty()
        bare = time.thread_time_ns() - began
        began = time.thread_time_ns()
        for _ in range(rounds):
            timed()
        whole = time.thread_time_ns() - began
        self._inside = max(0.0, self.nanoseconds.pop("") - bare) / rounds
        self._outside = max(0.0, whole - bare) / rounds - self._inside
        self.calls.clear()
        self._inner[:] = [0.0]


class ProfiledEngine(PartitionEngine):
    """The partition engine, watched."""

    def open(self, runtime_context: Any) -> None:  # noqa: ANN401 - as its parent
        """Open, and put the clocks in."""
        super().open(runtime_context)
        self._kind = os.environ.get("LONGWATCH_PROFILE", "sections")
        folder = self.plan.folder("profile")
        self._file = folder / f"engine-{os.getpid()}-{threading.get_native_id()}"
        self._written = time.monotonic()
        self._began_cpu, self._turns, self._nanoseconds = time.thread_time_ns(), 0, 0
        self._profile = cpu_profile()
        self._sections = Sections()
        if self._kind == "calls":
            setattr(partition_engine, "Calls", ProfiledCalls)  # noqa: B010 - as in build
            ProfiledCalls.file = folder / f"steps-{os.getpid()}-{threading.get_native_id()}.pstats"
        if self._kind == "sections":
            self._put_clocks_in(self._sections)

    def on_timer(self, timestamp: int, ctx: Any) -> Iterable[bytes]:  # noqa: ANN401 - as its parent
        """A turn, under the profile."""
        if self._kind == "calls":
            self._profile.enable()
        began = time.perf_counter_ns()
        try:
            return self._turn(timestamp, ctx)
        finally:
            self._nanoseconds += time.perf_counter_ns() - began
            self._turns += 1
            self._profile.disable()
            if time.monotonic() - self._written > WRITE_SECONDS:
                self._write()

    def close(self) -> None:
        """Write what was found."""
        self._write()
        super().close()

    def _turn(self, timestamp: int, ctx: Any) -> Iterable[bytes]:  # noqa: ANN401
        timers: Any = self.timers
        if timers is None:
            found = super().on_timer(timestamp, ctx)
            if self._kind == "sections" and self.timers is not None:
                wrapped = {name: self._sections.wrap("timers", getattr(self.timers, name)) for name in ("now", "set")}
                self.timers = _Bound(delete=self.timers.delete, **wrapped)
            return found
        return super().on_timer(timestamp, ctx)

    def _put_clocks_in(self, sections: Sections) -> None:
        for name in FUNCTIONS:
            if hasattr(partition_engine, name):
                setattr(partition_engine, name, sections.wrap(name, getattr(partition_engine, name)))
        for name in METHODS:
            if hasattr(self, name):
                setattr(self, name, sections.wrap(f"engine.{name}", getattr(self, name)))
        cursor: Any = self.cursor
        self.cursor = _Forward(  # type: ignore[assignment]  # it has all that the engine asks for
            cursor, {name: sections.wrap(f"cursor.{name}", getattr(cursor, name)) for name in ("read", "put", "flush")}
        )
        self.store.select = sections.wrap("state.select", self.store.select)
        for cell in self.store._cells.values():  # noqa: SLF001 - there is no other way in
            for name in ("read", "write", "clear"):
                setattr(cell, name, sections.wrap(f"state.{name}", getattr(cell, name)))

    def _write(self) -> None:
        self._written = time.monotonic()
        name_threads()
        cpu = time.thread_time_ns() - self._began_cpu
        facts = {"turns": self._turns, "ns": self._nanoseconds, "cpu_ns": cpu, "calls": dict(self._sections.calls)}
        self._file.with_suffix(".json").write_text(
            json.dumps({**facts, "sections": dict(self._sections.nanoseconds)}), encoding="utf-8"
        )
        if self._kind == "calls":
            self._profile.dump_stats(self._file.with_suffix(".pstats"))


class ProfiledCalls(Calls):
    """The steps' thread under cProfile."""

    file: ClassVar[Path]

    async def _open(self) -> None:
        await super()._open()
        profile = cpu_profile()
        profile.enable()
        self._loop.call_later(WRITE_SECONDS, self._write, profile)

    def _write(self, profile: cProfile.Profile) -> None:
        profile.dump_stats(self.file)  # which ends it
        profile.enable()
        self._loop.call_later(WRITE_SECONDS, self._write, profile)


def cpu_profile() -> cProfile.Profile:
    """A profile of CPU time: what a thread waits for, or is kept waiting by others, does not count."""
    return cProfile.Profile(time.thread_time_ns, 1e-9)


def _nothing() -> None:
    pass


class _Bound:
    """Functions by name."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.__dict__.update(functions)


class _Forward:
    """An object with some of its methods replaced."""

    def __init__(self, inner: object, functions: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(functions)
        self.__dict__["_inner"] = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of the inner one
        return getattr(self._inner, name)


def name_threads() -> None:
    """Tell the system the names of Python's threads, so that /proc has them; Python does so from 3.14 on."""
    for thread in threading.enumerate():
        if thread.native_id and thread is not threading.main_thread() and not thread.name.startswith("Dummy"):
            with suppress(OSError):
                Path(f"/proc/self/task/{thread.native_id}/comm").write_text(thread.name[:15], encoding="utf-8")
