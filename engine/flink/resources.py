"""What the steps of a worker share: async context managers, entered in order and left in reverse.

One task enters and leaves all of them. Many clients (whatever stands on anyio, such as MCP's) must be left by the task
that entered them, and must not be bound to a step that is given up after its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0


class Resources:
    """By name, made when the first step asks. What could be made stays when another could not."""

    def __init__(self, makers: Mapping[str, Callable[[], AbstractAsyncContextManager[Any]]]) -> None:
        self._makers = makers
        self._made: dict[str, Any] = {}
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def get(self) -> Mapping[str, Any]:
        """All of them; raises what the making of one raised, and the next call tries that one again."""
        if len(self._made) < len(self._makers):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            self._asked.set()
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._own(), name="resources")
            await future
        return self._made

    async def close(self) -> None:
        """Leave them, the last first. Raises what leaving raises."""
        if self._task is not None:
            self._closing = True
            self._asked.set()
            await asyncio.wait((self._task,), timeout=CLOSE_SECONDS)
            if not self._task.done():
                logger.warning("what steps share does not close within %g s", CLOSE_SECONDS)
                self._task.cancel()
            elif not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error

    async def _own(self) -> None:
        async with AsyncExitStack() as stack:
            while True:
                await self._asked.wait()
                if self._closing:
                    return
                self._asked.clear()
                error = await self._make(stack)
                waiting, self._waiting = self._waiting, []
                for future in waiting:
                    if future.done():
                        continue
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error)

    async def _make(self, stack: AsyncExitStack) -> Exception | None:
        for name, make in self._makers.items():
            if name not in self._made:
                try:
                    self._made[name] = await stack.enter_async_context(make())
                except Exception as error:  # noqa: BLE001 - told to the steps that wait for it
                    return error
        return None
