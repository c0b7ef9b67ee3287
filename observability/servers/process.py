"""A server as a process: started, awaited by what it says of its health, ended by its id, gone when we are gone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import urllib3

from observability.servers import bound
from observability.servers.errors import ServerFailed

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.05
_STARTS: Final = 3
"""A port that was free when it was looked for may be taken when the server asks for it."""
_TAKEN: Final = "address already in use"


class Server:
    """Base of the servers: a folder for files, a log beside them, one process.

    Start it from the main thread: the kernel ends it with the *thread* that started it.
    """

    name: str
    """Of the server, in its folder and in messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute() / self.name
        self.log = self.folder / f"{self.name}.log"
        self.url = ""
        """Where its page and its API are, when it has been started."""
        self._process: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(timeout=5.0, retries=False)

    # -- what a server is made of

    def prepare(self) -> Sequence[str]:
        """Choose ports, write configuration; the command that starts it."""
        raise NotImplementedError

    def health(self) -> str:
        """Where it answers 200 when it is ready."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str] | None:
        """Its environment; None: ours."""
        return None

    # -- its life

    @property
    def pid(self) -> int:
        """Its process; 0: none."""
        return self._process.pid if self._process else 0

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, and wait until it is ready.

        Raises:
            ServerFailed: with the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._take()
        try:
            self._start(lock)
        finally:
            os.close(lock)
        return self

    def check(self) -> None:
        """See that it runs.

        Raises:
            ServerFailed: it has ended by itself.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ServerFailed(self._ended(code))

    def stop(self) -> None:
        """End it: asked first, then killed. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> Self:
        """End it and start it again, where it was if nobody took its ports meanwhile."""
        self.stop()
        return self.start()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, lock: int) -> None:
        for left in reversed(range(_STARTS)):
            self._spawn(self.prepare(), lock)
            try:
                self._await()
            except ServerFailed:
                self.stop()
                if not left or _TAKEN not in self._said():
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break

    def _take(self) -> int:
        """Take the folder's lock, which the process holds from then on until it is gone, however it ends.

        One of an earlier time holds its data and its ports until then: after a `kill -9` of who started it, the kernel
        has asked it to end, and it may take its time.

        Raises:
            ServerFailed: it stays.
        """
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + STOP_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(_LOOK_SECONDS)
                    continue
                os.close(lock)
                raise ServerFailed(
                    f"a {self.name} of an earlier time is still at work in {self.folder}; end it, and start again"
                ) from None
            return lock

    def _ended(self, code: int) -> str:
        last = self._last_lines()
        said = f"the end of {self.log} says:\n{last}" if last else f"nothing is in {self.log}"
        return f"{self.name} ended with code {code}; {said}"

    def _spawn(self, command: Sequence[str], lock: int) -> None:
        with self.log.open("wb") as sink:
            self._process = subprocess.Popen(
                bound.command([*command]),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C in the terminal is for us, who end it last
            )

    def _await(self) -> None:
        until = time.monotonic() + READY_SECONDS
        while not self._is_healthy():
            self.check()
            if time.monotonic() > until:
                raise ServerFailed(
                    f"{self.name} is not ready after {READY_SECONDS:.0f} s; the end of {self.log} says:\n"
                    f"{self._last_lines()}"
                )
            time.sleep(_LOOK_SECONDS)

    def _is_healthy(self) -> bool:
        try:
            return self._http.request("GET", self.health(), retries=False).status == 200  # noqa: PLR2004 (HTTP: OK)
        except urllib3.exceptions.HTTPError:
            return False

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _last_lines(self, count: int = 8) -> str:
        return "\n".join(self._said().splitlines()[-count:])
