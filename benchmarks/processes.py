"""What processes cost: CPU by process and thread, memory, and what the host took away meanwhile. Linux, from /proc."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM, _USER_BELOW, _SYSTEM_BELOW = 1, 11, 12, 13, 14
"""Places in /proc/PID/stat behind the command, which may itself hold spaces (proc(5))."""
_TAIL = re.compile(r"[\s#/(_-]+\d[\d/#)]*$")
_ROLES = {
    "redis-server": "redis",
    "observability.exporter": "exporter",
    "observability.metrics_server": "metrics",
    "engine.flink.driver": "driver",
    "PythonGatewayServer": "java",
    "StandaloneSession": "java jobmanager",
    "TaskManagerRunner": "java taskmanager",
}


@dataclass(frozen=True)
class Usage:
    """CPU ms that processes have used since each began, all and by (process, thread)."""

    processes: dict[tuple[int, str], float] = field(default_factory=dict)
    threads: dict[tuple[int, int, str, str], float] = field(default_factory=dict)

    def since(self, before: Usage) -> Spent:
        """What was used between two looks; of a process that ended in between only what was seen."""
        by_process: defaultdict[str, float] = defaultdict(float)
        for key, value in self.processes.items():
            by_process[key[1]] += value - before.processes.get(key, 0.0)
        by_thread: defaultdict[tuple[str, str], float] = defaultdict(float)
        for thread, value in self.threads.items():
            by_thread[thread[2:]] += value - before.threads.get(thread, 0.0)
        return Spent(dict(by_process), dict(by_thread))


@dataclass(frozen=True)
class Spent:
    """CPU ms by role, and by role and kind of thread."""

    by_process: dict[str, float]
    by_thread: dict[tuple[str, str], float]

    @property
    def total(self) -> float:
        return sum(self.by_process.values())


@dataclass(frozen=True)
class Host:
    """Jiffies of all cores since the machine began, from the first line of /proc/stat."""

    idle: int
    steal: int
    all: int

    @classmethod
    def now(cls) -> Host:
        user, nice, system, idle, iowait, irq, softirq, steal, *_ = map(
            int, (PROC / "stat").read_text().splitlines()[0].split()[1:]
        )
        return cls(idle + iowait, steal, user + nice + system + idle + iowait + irq + softirq + steal)

    def percent_since(self, before: Host) -> tuple[float, float]:
        """Steal and idle."""
        span = max(1, self.all - before.all)
        return 100 * (self.steal - before.steal) / span, 100 * (self.idle - before.idle) / span


def tree(root: int, needle: str = "") -> list[int]:
    """A process with all below it, and those whose command line holds `needle` (a server that outlived its engine)."""
    parents = {pid: int(stat[_PARENT]) for pid, stat in _all()}
    found = {root} & parents.keys()
    if needle:
        found |= {pid for pid in parents if pid != os.getpid() and needle in command(pid)}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def usage(pids: list[int]) -> Usage:
    """CPU of these processes (with that of children that have ended) and of all their threads."""
    processes: dict[tuple[int, str], float] = {}
    threads: dict[tuple[int, int, str, str], float] = {}
    for pid in pids:
        name = role(pid)
        with suppress(OSError):
            processes[pid, name] = _cpu(_stat(PROC / str(pid) / "stat")[1], _USER, _SYSTEM, _USER_BELOW, _SYSTEM_BELOW)
            for task in (PROC / str(pid) / "task").iterdir():
                with suppress(OSError):
                    thread, stat = _stat(task / "stat")
                    threads[pid, int(task.name), name, _TAIL.sub("", thread)] = _cpu(stat, _USER, _SYSTEM)
    return Usage(processes, threads)


def memory(pids: list[int]) -> dict[str, int]:
    """Bytes of memory by role: proportional set sizes, so that shared pages count once."""
    found: Counter[str] = Counter()
    for pid in pids:
        with suppress(OSError):
            text = (PROC / str(pid) / "smaps_rollup").read_text()
            found[role(pid)] += int(text.split("\nPss:", 1)[1].split()[0]) * 1024
    return dict(found)


def role(pid: int) -> str:
    """What a process of an engine is."""
    words = command(pid)
    return next((name for mark, name in _ROLES.items() if mark in words), "supervisor")


def command(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def disk(folder: Path) -> dict[str, int]:
    """Bytes on disk under each part of a folder, as du counts them; a file with several links once."""
    seen: set[int] = set()
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        with suppress(OSError):
            stat = path.lstat()
            if stat.st_ino not in seen:
                seen.add(stat.st_ino)
                found[path.relative_to(folder).parts[0]] += stat.st_blocks * 512
    return dict(found)


def _all() -> Iterator[tuple[int, list[str]]]:
    for path in PROC.iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                yield int(path.name), _stat(path / "stat")[1]


def _stat(path: Path) -> tuple[str, list[str]]:
    head, _, rest = path.read_text().rpartition(")")
    return head.partition("(")[2], rest.split()


def _cpu(stat: list[str], *places: int) -> float:
    return sum(int(stat[place]) for place in places) * TICK_MS
