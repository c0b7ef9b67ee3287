"""What calls wait for before their attempt begins: the gates of limits, and a free thread for a step that blocks.

A call that waits here is an entry in a queue, no task, and its time limit does not run. Calls of steps without limit,
model and thread never come here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from engine.core.application import Application
from engine.core.ids import CallId, RunId
from engine.flink.attempt import Flight, Request
from engine.limits import Gates, Limit, Pass

BLOCKING_THREADS = 16
"""So many steps that block run at once in a worker."""

Passes = dict[str, Pass]


class Entrance:
    """The calls of a worker that may not begin yet. Made and used on the steps' loop."""

    def __init__(
        self, application: Application, url: str, worker: str, epoch: int, enter: Callable[[Request, Passes], None]
    ) -> None:
        """Set it up; `enter` is called with each request that may begin, and what it passed by."""
        self._application, self._enter = application, enter
        steps = application.steps.values()
        self._blocking = frozenset(s.name for s in steps if s.blocking and s.question is None)
        limits = {
            name: Limit(limit.calls, limit.requests, limit.tokens)
            for name, limit in application.limits().items()
            if (limit.calls, limit.requests, limit.tokens) != (None, None, None)
        }
        self._guards: dict[str, tuple[str, ...]] = {}
        for step in steps:
            found = [f"step:{step.name}"] if f"step:{step.name}" in limits else []
            found += [f"model:{step.model}"] if step.model else []
            if found or step.name in self._blocking:
                self._guards[step.name] = tuple(found)
        self._waiting: dict[tuple[RunId, CallId], tuple[Request, Passes]] = {}
        self._for_thread: deque[Request] = deque()
        self._threads = BLOCKING_THREADS
        gated = limits or any(self._guards.values())
        self.gates: Gates | None = Gates(url, worker, limits, epoch=epoch) if gated else None
        if self.gates is not None:
            self.gates.start()

    async def close(self) -> None:
        """Give back what is held."""
        if self.gates is not None:
            await self.gates.close()

    @property
    def guards(self) -> Mapping[str, tuple[str, ...]]:
        """The gates of each step that has to pass here, by the step's name."""
        return self._guards

    def admit(self, request: Request) -> Request | None:
        """Let it begin as soon as it may, which may be at once. An earlier attempt of its call gives way.

        Returns:
            The attempt that gave way, which may be this one.
        """
        earlier = self._waiting.get(request.name)
        if earlier is not None:
            if earlier[0].call.attempt > request.call.attempt:
                return request
            self.leave(request.name)
        self._waiting[request.name] = request, {}
        self._advance(request)
        return earlier[0] if earlier else None

    def leave(self, name: tuple[RunId, CallId]) -> Request | None:
        """Nobody waits for this call any longer; its request, if it was here."""
        found = self._waiting.pop(name, None)
        if found is None:
            return None
        if self.gates is not None:
            self.gates.cancel(name)
        for passed in found[1].values():
            passed.end()
        return found[0]

    def thread_over(self) -> None:
        """A thread is free."""
        self._threads += 1
        while self._for_thread and self._threads:
            request = self._for_thread.popleft()
            if self._is_here(request):
                self._take_thread(request)

    def passing(self, flight: Flight, gate: str, tokens: int) -> AbstractAsyncContextManager[Pass]:
        """A further pass for a call that has begun: it goes before those that have not."""
        assert self.gates is not None  # noqa: S101 - whoever names a gate has one
        request = flight.request
        priority = self._application.workflows[request.workflow].priority
        return self.gates.passing(gate, owner=request.name, priority=priority, tokens=tokens, begun=True)

    def _is_here(self, request: Request) -> bool:
        found = self._waiting.get(request.name)
        return found is not None and found[0] is request

    def _advance(self, request: Request) -> None:
        step, passes = request.call.step, self._waiting[request.name][1]
        gate = next((g for g in self._guards[step] if g not in passes), None)
        if gate is not None and self.gates is not None:
            workflow = self._application.workflows.get(request.workflow)
            priority = workflow.priority if workflow else 0
            begun = request.call.kept > 0
            self.gates.admit(gate, request, self._passed, owner=request.name, priority=priority, begun=begun)
        elif step not in self._blocking:
            self._begin(request)
        elif self._threads:
            self._take_thread(request)
        else:
            self._for_thread.append(request)

    def _passed(self, request: Request, passed: Pass) -> None:
        if not self._is_here(request):
            passed.end()
            return
        self._waiting[request.name][1][passed.name] = passed
        self._advance(request)

    def _take_thread(self, request: Request) -> None:
        self._threads -= 1
        self._begin(request)

    def _begin(self, request: Request) -> None:
        _, passes = self._waiting.pop(request.name)
        self._enter(request, passes)
