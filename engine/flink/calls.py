"""Where steps run: an asyncio loop in a background thread of the process that folds.

The partition engine hands over the calls of a slice with one wakeup; a finished attempt is one append to the log, many
in one write. One task carries many calls as long as none of them waits; while one waits, a further task takes the rest.

Attempts are given up by a sweep over buckets of deadlines, not by a timer each (thousands start in a second, and most
answer at once). A step that blocks the loop is named in the log, with the line where it stands.

The thread must not outlive its job: when the partition engine shows no sign of life for `ABANDONED_SECONDS`, it ends
by itself. What it appends late is dropped by the fold.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any, NamedTuple

from msgspec import Raw
from pydantic import BaseModel, ValidationError

from engine.core.application import Application
from engine.core.entry import FailureEntry, ResultEntry, write_entry
from engine.core.ids import CallId, RunId
from engine.core.partition import partition_of
from engine.core.steps import Step, StepContext
from engine.core.transition import StartCall
from engine.log.protocol import Header
from engine.log.redis_appender import RedisAppender

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.1
BLOCKED_SECONDS = 1.0
GRACE_SECONDS = 1.0
"""How long a cancelled attempt may clean up after itself; one that goes on is given up and left to itself."""
ABANDONED_SECONDS = 60.0
MAX_RESULT = 1 << 20
MAX_MESSAGE = 4_000


class InvalidResult(ValueError):
    """A step answered with what its annotation does not allow, or with too much."""


class Request(NamedTuple):
    """A call of a run."""

    workflow: str
    key: str
    call: StartCall

    @property
    def attempt(self) -> Attempt:
        """What names this attempt among all."""
        call = self.call
        return call.run, call.id, call.attempt


Attempt = tuple[RunId, CallId, int]


@dataclass(slots=True, eq=False)
class _Flight:
    """An attempt that runs."""

    request: Request
    step: Step[Any, Any]
    task: asyncio.Task[None]
    deadline: float
    reason: str = ""
    """Why its task is being cancelled: `timeout` or `cancel`."""
    gone: bool = False
    """It did not end when it was cancelled: the fold has been told, and what it may still answer counts no more."""


class Calls:
    """The calls in flight of one subtask. Make it, `start()` it, and `submit` from the thread that folds."""

    def __init__(self, application: Application, url: str, header: Header) -> None:
        self._application, self._url, self._header = application, url, header
        self._steps = application.steps
        self._queue: deque[Request] = deque()
        self._flights: dict[tuple[RunId, CallId], _Flight] = {}
        self._known: set[Attempt] = set()
        self._buckets: dict[int, list[_Flight]] = {}
        self._pumping = False
        self._workers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._appender: RedisAppender | None = None
        self._stack = AsyncExitStack()
        self._resources: Mapping[str, Any] = {}
        self._made = not application.resources
        self._making = asyncio.Lock()
        self._swept = time.monotonic()
        self._failure: BaseException | None = None
        self.sign_of_life = time.monotonic()
        """Set by the partition engine whenever it looks at the log."""

    # -- from the thread that folds ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; returns when its loop runs.

        Raises:
            LogError: the log cannot be opened from there.
        """
        ready = threading.Event()
        self._thread = thread = threading.Thread(target=self._run, args=(ready,), name="longwatch-steps", daemon=True)
        thread.start()
        threading.Thread(target=self._watch, args=(thread,), name="longwatch-steps-watch", daemon=True).start()
        ready.wait()

    def submit(self, requests: Iterable[Request]) -> None:
        """Run these attempts, except those in flight already. One takes the place of an earlier one of its call."""
        fresh = [r for r in requests if r.attempt not in self._known]
        if fresh:
            self._known.update(r.attempt for r in fresh)
            self._loop.call_soon_threadsafe(self._begin, fresh)

    def cancel(self, calls: Iterable[tuple[RunId, CallId]]) -> None:
        """Nobody waits for these any longer."""
        self._loop.call_soon_threadsafe(self._cancel, list(calls))

    @property
    def in_flight(self) -> int:
        return len(self._known)

    def stop(self, seconds: float = 0.0) -> None:
        """End the thread, and wait so long for it; attempts that run are cancelled and not recorded."""
        if not self._ended.is_set():
            self._loop.call_soon_threadsafe(self._loop.stop)
        if seconds and self._thread is not None:
            self._thread.join(seconds)

    def check(self) -> None:
        """Raise what ended the loop, if something did."""
        if self._failure is not None:
            raise self._failure

    # -- the loop's thread ---------------------------------------------------------------------------------------

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open())
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
            ready.set()
            self._run_on()
        except BaseException as error:  # noqa: BLE001 - told by check() in the other thread
            self._failure = error
        finally:
            self._ended.set()
            ready.set()
            self._close()

    def _run_on(self) -> None:
        """Run until `stop`. A task that a step made hands SystemExit to the loop too; its step fails of it."""
        while True:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                logger.warning("a task of a step raised %s", type(error).__name__)
            else:
                return

    async def _open(self) -> None:
        self._appender = RedisAppender(self._url, self._header.log_id, self._header.partitions)

    def _close(self) -> None:
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        try:
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE_SECONDS))
            self._loop.run_until_complete(self._stack.aclose())
            if self._appender is not None:
                self._loop.run_until_complete(self._appender.close())
        except Exception:
            logger.exception("a resource did not close")
        finally:
            self._loop.close()

    def _begin(self, requests: list[Request]) -> None:
        self._queue.extend(requests)
        if not self._pumping:
            self._pumping = True
            self._pump()

    def _pump(self) -> None:
        """A further worker for as long as calls wait behind one that waits."""
        if self._queue:
            worker = self._loop.create_task(self._worker())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
            self._loop.call_soon(self._pump)
        else:
            self._pumping = False

    async def _worker(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is one
        queue = self._queue
        while queue:
            await self._attempt(queue.popleft(), task)

    async def _attempt(self, request: Request, task: asyncio.Task[None]) -> None:
        call = request.call
        step = self._steps.get(call.step)
        began, wall = time.perf_counter(), time.time()
        if step is None:
            self._fail(request, wall, began, "UnknownStep", f"this code has no step {call.step!r}", final=True)
            return
        name = call.run, call.id
        if (earlier := self._flights.get(name)) is not None:
            if earlier.request.call.attempt > call.attempt:
                self._known.discard(request.attempt)
                return
            earlier.reason = "cancel"
            earlier.task.cancel()
        seconds = step.timeout.total_seconds()
        flight = _Flight(request, step, task, self._loop.time() + seconds)
        self._flights[name] = flight
        self._buckets.setdefault(int(flight.deadline / SWEEP_SECONDS), []).append(flight)
        try:
            output = _written(step, await self._answer(step, call, seconds))
        except asyncio.CancelledError:
            self._cancelled(flight, wall, began)
        except BaseException as error:  # noqa: BLE001 - whatever a step raises is a failed attempt, SystemExit too
            final = isinstance(error, step.retry.never)
            if flight.gone:
                return
            self._fail(request, wall, began, _name(error), _words(error), _where(error), final=final)
        else:
            took = int((time.perf_counter() - began) * 1_000_000)
            self._append(
                request,
                ResultEntry(
                    request.workflow, request.key, call.run, call.id, call.attempt, Raw(output), int(wall * 1000), took
                ),
            )
        finally:
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        """It is over; the call may be in flight again with another attempt."""
        request = flight.request
        name = request.call.run, request.call.id
        if self._flights.get(name) is flight:
            del self._flights[name]
        self._known.discard(request.attempt)

    def _answer(self, step: Step[Any, Any], call: StartCall, seconds: float) -> Awaitable[Any]:
        value = step.read_input(bytes(call.input))
        if step.reconcile is None and not step.takes_context:
            return step.function(value)
        return self._answer_in_context(step, call, seconds, value)

    async def _answer_in_context(self, step: Step[Any, Any], call: StartCall, seconds: float, value: object) -> object:
        if step.reconcile is not None and call.attempt > 1 and (found := await step.reconcile(value)) is not None:
            return found
        if not step.takes_context:
            return await step.function(value)
        deadline = datetime.now(UTC) + timedelta(seconds=seconds)
        key = f"{call.run}.{call.id}"
        return await step.function(value, StepContext(key, call.attempt, deadline, await self._shared()))

    async def _shared(self) -> Mapping[str, Any]:
        """The application's resources, made when the first step asks for them."""
        if not self._made:
            async with self._making:
                if not self._made:
                    made = {}
                    for name, make in self._application.resources.items():
                        made[name] = await self._stack.enter_async_context(make())
                    self._resources, self._made = made, True
        return self._resources

    def _cancelled(self, flight: _Flight, wall: float, began: float) -> None:
        if self._ended.is_set() or not self._loop.is_running():
            raise asyncio.CancelledError
        flight.task.uncancel()
        if flight.reason == "cancel" or flight.gone:
            return
        if flight.reason == "timeout":
            self._fail(flight.request, wall, began, "Timeout", _late(flight.step))
        else:
            self._fail(flight.request, wall, began, "Cancelled", "the step cancelled itself")

    def _fail(
        self,
        request: Request,
        wall: float,
        began: float,
        error: str,
        message: str,
        where: str = "",
        *,
        final: bool = False,
    ) -> None:
        call = request.call
        took = int((time.perf_counter() - began) * 1_000_000)
        self._append(
            request,
            FailureEntry(
                request.workflow,
                request.key,
                call.run,
                call.id,
                call.attempt,
                error,
                message,
                where,
                final=final,
                started=int(wall * 1000),
                took=took,
            ),
        )
        self._known.discard(request.attempt)

    def _append(self, request: Request, entry: ResultEntry | FailureEntry) -> None:
        assert self._appender is not None  # noqa: S101 - opened before the first call
        partition = partition_of(request.workflow, request.key, self._header.partitions)
        try:
            self._appender.append(partition, write_entry(entry))
        except Exception as error:  # noqa: BLE001 - the log is another one: told by check(), and the job ends
            self._failure = error

    def _cancel(self, calls: list[tuple[RunId, CallId]]) -> None:
        gone = set(calls)
        for flight in [self._flights[c] for c in gone if c in self._flights]:
            flight.reason = "cancel"
            flight.task.cancel()
        if any((r.call.run, r.call.id) in gone for r in self._queue):
            queued = list(self._queue)
            self._queue.clear()
            self._queue.extend(r for r in queued if (r.call.run, r.call.id) not in gone)
            self._known.difference_update(r.attempt for r in queued if (r.call.run, r.call.id) in gone)

    def _sweep(self) -> None:
        """Give up what is over its time."""
        now = self._loop.time()
        self._swept = time.monotonic()
        for bucket in [b for b in self._buckets if (b + 1) * SWEEP_SECONDS <= now]:
            for flight in self._buckets.pop(bucket):
                if self._flights.get((flight.request.call.run, flight.request.call.id)) is flight:
                    flight.reason = "timeout"
                    flight.task.cancel()
                    self._loop.call_later(GRACE_SECONDS, self._forsake, flight)
        self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _forsake(self, flight: _Flight) -> None:
        """An attempt took no notice of its cancellation."""
        request = flight.request
        if self._flights.get((request.call.run, request.call.id)) is not flight:
            return
        logger.warning(
            "step %s of %s/%s goes on after it was cancelled; let it pass asyncio.CancelledError on",
            flight.step.name, request.workflow, request.key,
        )  # fmt: skip
        flight.gone = True
        self._land(flight)
        seconds = flight.step.timeout.total_seconds() + GRACE_SECONDS
        self._fail(request, time.time() - seconds, time.perf_counter() - seconds, "Timeout", _late(flight.step))

    # -- the watcher's thread ------------------------------------------------------------------------------------

    def _watch(self, thread: threading.Thread) -> None:
        """Name a step that blocks the loop; end a loop whose job is gone."""
        told: asyncio.Task[Any] | None = None
        while not self._ended.wait(BLOCKED_SECONDS / 2):
            now = time.monotonic()
            if now - self.sign_of_life > ABANDONED_SECONDS:
                logger.warning("the job of %d calls is gone; its steps end", len(self._known))
                self.stop()
                return
            if now - self._swept < BLOCKED_SECONDS + SWEEP_SECONDS:
                told = None
            elif (task := asyncio.current_task(self._loop)) is not None and task is not told:
                told = task
                self._tell_blocked(task, sys._current_frames().get(thread.ident or 0))  # noqa: SLF001 - the only way

    def _tell_blocked(self, task: asyncio.Task[Any], frame: FrameType | None) -> None:
        flight = next((f for f in list(self._flights.values()) if f.task is task), None)
        name = (
            f"step {flight.step.name} of {flight.request.workflow}/{flight.request.key}" if flight else "a step's task"
        )
        place = "".join(traceback.format_stack(frame, limit=3)) if frame else ""
        logger.warning(
            "%s blocks the loop of all steps for more than %g s; let it await, or run it in a thread "
            "(asyncio.to_thread):\n%s",
            name, BLOCKED_SECONDS, place,
        )  # fmt: skip


def _written(step: Step[Any, Any], value: object) -> bytes:
    """A result as it goes to the log; read back where nobody has checked it when it was made."""
    output = step.write_output(value)
    if len(output) > MAX_RESULT:
        raise InvalidResult(
            f"the result has {len(output)} bytes, the limit is {MAX_RESULT}; store it elsewhere and hand on where it is"
        )
    if not isinstance(value, BaseModel):
        try:
            step.read_output(output)
        except ValidationError as error:
            raise InvalidResult(f"{step.name} answered what its annotation does not allow: {error}") from None
    return output


def _late(step: Step[Any, Any]) -> str:
    return f"no answer within {step.timeout.total_seconds():g} s"


def _name(error: BaseException) -> str:
    kind = type(error).__name__
    return "InvalidResult" if kind in ("PydanticSerializationError", "PydanticSerializationUnexpectedValue") else kind


def _words(error: BaseException) -> str:
    try:
        return str(error).encode(errors="backslashreplace").decode()[:MAX_MESSAGE]
    except BaseException as worse:  # noqa: BLE001 - it is the user's __str__
        return f"(its words cannot be had: {type(worse).__name__})"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((f for f in reversed(frames) if "/engine/flink/" not in f.filename), None)
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno} in {last.name}" if last else ""
