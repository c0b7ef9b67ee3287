"""Who writes to a log: one engine at a time, named by host, boot and process.

The *epoch* is the fence: a number that each start takes and that the log checks at every write. The lease only decides
who may take the next one, and when; a wrong guess here costs a restart, never a double write.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from msgspec import Struct

LEASE_SECONDS = 15


class Owner(Struct, frozen=True):
    """A process, told apart from a later one with the same number by when it started."""

    host: str
    boot: str
    pid: int
    started: int
    """Clock ticks between the boot and the process's start."""

    @classmethod
    def this_process(cls) -> Owner:
        """The caller."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), pid, _started(pid) or 0)

    def is_local(self) -> bool:
        """Whether it ran on this machine since its last boot, so that its life can be judged from here."""
        return self.host == socket.gethostname() and self.boot == _boot()

    def is_dead(self) -> bool:
        """Whether a local owner has ended; its number may belong to another process by now."""
        return _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease(Struct, frozen=True):
    """An epoch and its owner."""

    epoch: int
    owner: Owner
    expires: int
    """On the log's clock, ms."""

    def is_free(self, now: int, taker: Owner) -> bool:
        """Whether another may take over: a local owner must be dead, one elsewhere must have let it expire.

        Local is the same host *and* boot: containers share the boot and not the processes, and hosts may share a name.
        """
        if self.owner == taker:
            return True
        return self.owner.is_dead() if self.owner.is_local() else now > self.expires


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when the process is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *fields = stat[stat.rindex(")") + 1 :].split()
    return None if state in "ZX" else int(fields[18])
