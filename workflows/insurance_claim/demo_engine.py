"""The engine as a process that the demo starts, kills and stops, as anybody would: by `longwatch` and signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflows.insurance_claim.errors import DemoFailedError

LONGWATCH = (sys.executable, "-m", "engine.cli")
APPLICATION = "workflows.insurance_claim:application"
READY_WITHIN_S = 120
STOPPED_WITHIN_S = 60


class EngineProcess:
    """`longwatch run` on a data folder. What it says on its way is kept for an error, and not shown."""

    def __init__(self, data: Path, lapse: float, environment: Mapping[str, str]) -> None:
        self.data, self.lapse = data, lapse
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._running = asyncio.Event()
        self._pids: list[int] = []
        self._words: deque[str] = deque(maxlen=20)

    async def start(self) -> float:
        """Start it and wait until it runs; the seconds that took.

        Raises:
            DemoFailedError: it ended, or does not come up; with its last words.
        """
        began = time.monotonic()
        self._running.clear()
        command = (*LONGWATCH, "run", "--app", APPLICATION, "--data", str(self.data), "--lapse", str(self.lapse))
        self._process = await asyncio.create_subprocess_exec(
            *command,
            "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for the demo, which stops the engine in its own way
        )
        self._listening = asyncio.create_task(self._listen(self._process))
        await self._until_running(self._process)
        took = time.monotonic() - began
        # Asked now, so that a kill comes at once.
        self._pids = [pid for pid in (await self.ask("status"))["pids"].values() if pid]
        return took

    async def kill(self) -> None:
        """`kill -9` on everything of the engine at once: supervisor, driver, Java and Redis."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._ended()

    async def stop(self) -> None:
        """Ask it to end, and wait: it takes a savepoint. Harmless when it has ended.

        Raises:
            DemoFailedError: it ends with an error.
        """
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._ended(), STOPPED_WITHIN_S)
        except TimeoutError:
            self._process.kill()
            raise DemoFailedError(f"the engine did not stop within {STOPPED_WITHIN_S} s", self._words) from None
        if self._process.returncode:
            raise DemoFailedError(f"the engine stopped with exit code {self._process.returncode}", self._words)

    def check(self) -> None:
        """See that it runs.

        Raises:
            DemoFailedError: it has ended by itself.
        """
        if self._process is not None and self._process.returncode is not None:
            raise DemoFailedError(f"the engine ended with exit code {self._process.returncode}", self._words)

    async def ask(self, command: str, *arguments: str) -> dict[str, Any]:
        """What a command says of the data folder: its last line of JSON.

        Raises:
            DemoFailedError: it says nothing.
        """
        lines, _, words = await self._say(command, *arguments)
        if not lines:
            raise DemoFailedError(f"longwatch {command} said nothing", words)
        return lines[-1]

    async def command(self, *words: str) -> list[dict[str, Any]]:
        """What a person does on the data folder: each line of JSON that comes of it.

        Raises:
            DemoFailedError: it was refused.
        """
        lines, code, said = await self._say(*words)
        if code:
            raise DemoFailedError(f"longwatch {' '.join(words)} ended with exit code {code}", said)
        return lines

    async def _say(self, *words: str) -> tuple[list[dict[str, Any]], int | None, list[str]]:
        """The lines of JSON of a command, its exit code, and its last words."""
        process = await asyncio.create_subprocess_exec(
            *LONGWATCH,
            *words,
            "--data",
            str(self.data),
            "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        out, err = await process.communicate()
        lines = [json.loads(line) for line in out.decode().splitlines()]
        return lines, process.returncode, err.decode().splitlines()[-5:]

    async def _until_running(self, process: asyncio.subprocess.Process) -> None:
        running = asyncio.create_task(self._running.wait())
        ended = asyncio.create_task(process.wait())
        done, waiting = await asyncio.wait(
            (running, ended), timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED
        )
        for task in waiting:
            task.cancel()
        if ended in done:
            await self._ended()
            self.check()
        if running not in done:
            raise DemoFailedError(f"the engine did not run within {READY_WITHIN_S} s", self._words)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Read what it says until it ends."""
        assert process.stdout is not None  # noqa: S101 - it was asked for
        async for raw in process.stdout:
            text = raw.decode(errors="replace").strip()
            happening = json.loads(text) if text.startswith("{") else {"event": "words"}
            if happening["event"] == "running":
                self._running.set()
            if happening["event"] != "figures":
                self._words.append(str(happening.get("message", text)))

    async def _ended(self) -> None:
        if self._process is not None:
            await self._process.wait()
        if self._listening is not None:
            await self._listening
