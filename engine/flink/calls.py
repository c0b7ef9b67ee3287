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
import contextvars
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any

from msgspec import Raw

from engine.core.application import Application
from engine.core.entry import AskedEntry, FailureEntry, KeptEntry, ResultEntry, write_entry
from engine.core.ids import CallId, RunId
from engine.core.partition import partition_of
from engine.core.steps import NeverAgain, Step, StepHalts, TryAgain
from engine.flink.attempt import Attempt, AttemptId, Flight, Request, Said, wall_ms, written
from engine.flink.entrance import BLOCKING_THREADS, Entrance, Passes
from engine.flink.inside import NOTHING, Inside, around, load_inside, spans_of
from engine.flink.resources import Resources
from engine.limits import OK, Outage, Pass
from engine.log.protocol import Header
from engine.log.redis_appender import RedisAppender
from engine.logs import About, bind, of

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 0.1
BLOCKED_SECONDS = 1.0
GRACE_SECONDS = 1.0
"""How long a cancelled attempt may clean up after itself; one that goes on is given up and left to itself."""
ABANDONED_SECONDS = 60.0
MAX_MESSAGE = 4_000


class Calls:
    """The calls in flight of one subtask. Make it, `start()` it, and `submit` from the thread that folds."""

    def __init__(
        self, application: Application, url: str, header: Header, *, worker: str = "worker", epoch: int = 0
    ) -> None:
        """Set it up.

        Args:
            application: whose steps.
            url: where the log is.
            header: of the log.
            worker: names this one among all workers of the log, the same after every start.
            epoch: the number of this start.
        """
        self._application, self._url, self._header = application, url, header
        self._worker_name, self._epoch = worker, epoch
        self._steps = application.steps
        self._queue: deque[Request] = deque()
        self._passed: dict[AttemptId, Passes] = {}
        self._flights: dict[tuple[RunId, CallId], Flight] = {}
        self._known: set[AttemptId] = set()
        self._buckets: dict[int, list[Flight]] = {}
        self._pumping = False
        self._workers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._appender: RedisAppender | None = None
        self._entrance: Entrance | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._resources = Resources(application.worker_resources())
        self._inside: Inside = NOTHING
        self._telling = {name for name, workflow in application.workflows.items() if workflow.content}
        """Workflows whose content may be told."""
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
        known, fresh = self._known, []
        for request in requests:
            name = request.attempt
            if name not in known:
                known.add(name)
                fresh.append(request)
        if fresh:
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
            self._inside = load_inside()
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
        self._entrance = Entrance(self._application, self._url, self._worker_name, self._epoch, self._enter)

    def _close(self) -> None:
        """End the steps, then what they share, then everything else."""
        try:
            self._end_tasks(self._workers)
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
            self._loop.run_until_complete(self._resources.close())
            if self._entrance is not None:
                self._loop.run_until_complete(self._entrance.close())
            if self._appender is not None:
                self._loop.run_until_complete(self._appender.close())
            self._end_tasks(asyncio.all_tasks(self._loop))
        except Exception:
            logger.exception("a resource did not close")
        finally:
            self._loop.close()

    def _end_tasks(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        ending = list(tasks)
        for task in ending:
            task.cancel()
        if ending:
            self._loop.run_until_complete(asyncio.wait(ending, timeout=GRACE_SECONDS))

    def _begin(self, requests: list[Request]) -> None:
        assert self._entrance is not None  # noqa: S101 - opened before the first call
        if guards := self._entrance.guards:
            for request in requests:
                if request.call.step not in guards:
                    self._queue.append(request)
                elif (gone := self._entrance.admit(request)) is not None:
                    self._known.discard(gone.attempt)
        else:
            self._queue.extend(requests)
        self._wake()

    def _enter(self, request: Request, passes: Passes) -> None:
        """It has passed all gates."""
        self._passed[request.attempt] = passes
        self._queue.append(request)
        self._wake()

    def _wake(self) -> None:
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
        if step is None:
            message = f"this code has no step {call.step!r}"
            self._fail(request, "UnknownStep", message, final=True, started=wall_ms())
            return
        deadline = self._loop.time() + step.timeout.total_seconds()
        flight = Flight(request, step, task, deadline)
        if self._passed:
            flight.passes = self._passed.pop(request.attempt, None)
        if not self._board(flight):
            return
        bind(request.workflow, request.key, call.run, "", step.name, call.id, call.attempt, call.trace)
        flight.around = around(self._inside, call, step, content=request.workflow in self._telling)
        try:
            with flight.around:
                try:
                    output = written(step, await self._answer(step, flight))
                except asyncio.CancelledError as error:
                    self._cancelled(flight, error)
                except BaseException as error:  # noqa: BLE001 - whatever a step raises is a failed attempt
                    self._raised(flight, error)
                else:
                    self._answered(flight, output)
        finally:
            if not flight.gone:
                self._land(flight)
            flight.gone = True  # a task that it made and did not wait for keeps nothing any more
            if flight.passes is not None:
                self._leave(flight)

    def _board(self, flight: Flight) -> bool:
        """Put it in flight, in the place of an earlier attempt of its call; False: a later one is in flight."""
        call = flight.request.call
        name = call.run, call.id
        if (earlier := self._flights.get(name)) is not None:
            if earlier.request.call.attempt > call.attempt:
                self._known.discard(flight.request.attempt)
                if flight.passes is not None:
                    self._leave(flight)
                return False
            earlier.reason = "cancel"
            earlier.task.cancel()
        self._flights[name] = flight
        self._buckets.setdefault(int(flight.deadline / SWEEP_SECONDS), []).append(flight)
        return True

    def _answered(self, flight: Flight, output: bytes) -> None:
        if flight.gone:
            return
        if flight.runner is not None:
            flight.runner.end()
        if flight.passes:
            _report(flight.passes, None)
        request, call = flight.request, flight.request.call
        started, took = flight.started, flight.took
        spans = spans_of(flight.around)
        entry = ResultEntry(
            request.workflow, request.key, call.run, call.id, call.attempt, Raw(output), started, took, spans
        )
        self.say(request, entry)

    def _land(self, flight: Flight) -> None:
        """It is over; the call may be in flight again with another attempt."""
        call = flight.request.call
        name = call.run, call.id
        if self._flights.get(name) is flight:
            del self._flights[name]
        self._known.discard((call.run, call.id, call.attempt))

    def _leave(self, flight: Flight) -> None:
        """Give back what it was let in by; a thread that goes on keeps it until it ends."""
        thread = flight.thread
        if thread is None or thread.done():
            self._give_back(flight)
            return
        request = flight.request
        logger.warning(
            "step %s of %s/%s was given up, and its thread goes on: %d of %d threads are left meanwhile at most",
            flight.step.name, request.workflow, request.key, BLOCKING_THREADS - 1, BLOCKING_THREADS,
            extra=_of(request),
        )  # fmt: skip
        thread.add_done_callback(lambda _: self._later(self._give_back, flight))

    def _later(self, action: Callable[[Flight], None], flight: Flight) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(action, flight)

    def _give_back(self, flight: Flight) -> None:
        self._pass_back(flight.step, flight.passes or {})

    def _pass_back(self, step: Step[Any, Any], passes: Passes) -> None:
        for passed in passes.values():
            passed.end()
        if step.blocking and self._entrance is not None:
            self._entrance.thread_over()

    def _answer(self, step: Step[Any, Any], flight: Flight) -> Awaitable[Any]:
        value = step.read_input(bytes(flight.request.call.input))
        if step.reconcile is None and not step.takes_context and not step.blocking:
            return step.function(value)
        return self._answer_in_context(step, flight, value)

    async def _answer_in_context(self, step: Step[Any, Any], flight: Flight, value: object) -> object:
        request = flight.request
        begun = request.call.attempt > 1 or request.again
        if step.reconcile is not None and begun and (found := await step.reconcile(value)) is not None:
            return found
        context = []
        if step.takes_context:
            resources = await self._resources.get()
            flight.runner = Attempt(self, flight, resources)
            context.append(flight.runner.context)
        if step.blocking:
            return await self._in_thread(flight, step.function, value, *context)
        return await step.function(value, *context)

    async def _in_thread(self, flight: Flight, function: Callable[..., Any], *arguments: object) -> object:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="longwatch-step")
        flight.thread = self._pool.submit(contextvars.copy_context().run, _called, function, *arguments)
        return await asyncio.wrap_future(flight.thread)

    def _raised(self, flight: Flight, error: BaseException) -> None:
        """A step that did not answer."""
        if flight.gone:
            flight.task.uncancel()
            return
        more: dict[str, Any] = {}
        if isinstance(error, TryAgain):
            more = {"outage": error.outage, "wait": _milliseconds(error.after)}
        elif isinstance(error, StepHalts):
            more["halts"] = True
        if isinstance(error, (NeverAgain, *flight.step.retry.never)):
            more["final"] = True
        if flight.runner is not None:
            flight.runner.end()
            more["inner"] = flight.runner.blame(error)
        if flight.passes:
            _report(flight.passes, error)
        self._fail(flight.request, _name(error), _words(error), _where(error), **_measured(flight), **more)

    def _cancelled(self, flight: Flight, error: BaseException) -> None:
        if self._ended.is_set() or not self._loop.is_running():
            raise asyncio.CancelledError
        flight.task.uncancel()
        if flight.reason == "cancel" or flight.gone:
            return
        inner = ""
        if flight.runner is not None:
            flight.runner.end()
            inner = flight.runner.blame(error)
        if flight.reason == "timeout":
            self._fail(flight.request, "Timeout", _late(flight.step), **_measured(flight), inner=inner)
        else:
            self._fail(flight.request, "Cancelled", "the step cancelled itself", **_measured(flight), inner=inner)

    def _fail(
        self,
        request: Request,
        error: str,
        message: str,
        where: str = "",
        **more: Any,  # noqa: ANN401 - as FailureEntry takes them
    ) -> None:
        call = request.call
        naming = request.workflow, request.key, call.run, call.id, call.attempt
        self.say(request, FailureEntry(*naming, error, message, where, **more))
        self._known.discard(request.attempt)

    # -- for attempts --------------------------------------------------------------------------------------------

    def say(self, request: Request, entry: Said) -> None:
        """See `engine.flink.attempt.Loop.say`."""
        assert self._appender is not None  # noqa: S101 - opened before the first call
        partition = partition_of(request.workflow, request.key, self._header.partitions)
        try:
            self._appender.append(partition, write_entry(entry))
        except Exception as error:  # noqa: BLE001 - the log is another one: told by check(), and the job ends
            self._failure = error

    def keep(self, request: Request, entry: KeptEntry) -> Awaitable[None]:
        """See `engine.flink.attempt.Loop.keep`."""
        assert self._appender is not None  # noqa: S101 - opened before the first call
        partition = partition_of(request.workflow, request.key, self._header.partitions)
        return self._appender.keep(partition, write_entry(entry))

    def suspend(self, flight: Flight, entry: AskedEntry) -> None:
        """See `engine.flink.attempt.Loop.suspend`: from here on the next attempt may begin."""
        if flight.runner is not None:
            flight.runner.end()
        flight.gone, flight.reason = True, "asks"
        self._land(flight)
        self.say(flight.request, entry)
        if asyncio.current_task() is not flight.task:
            flight.task.cancel()

    def passing(self, flight: Flight, gate: str, tokens: int) -> AbstractAsyncContextManager[Pass]:
        """See `engine.flink.attempt.Loop.passing`."""
        assert self._entrance is not None  # noqa: S101 - opened before the first call
        return self._entrance.passing(flight, gate, tokens)

    # -- giving up -----------------------------------------------------------------------------------------------

    def _cancel(self, calls: list[tuple[RunId, CallId]]) -> None:
        gone = set(calls)
        if self._entrance is not None:
            for found in map(self._entrance.leave, gone):
                if found is not None:
                    self._known.discard(found.attempt)
        for flight in [self._flights[c] for c in gone if c in self._flights]:
            flight.reason = "cancel"
            flight.task.cancel()
        if any((r.call.run, r.call.id) in gone for r in self._queue):
            queued = list(self._queue)
            self._queue.clear()
            self._queue.extend(r for r in queued if r.name not in gone)
            for request in (r for r in queued if r.name in gone):
                self._known.discard(request.attempt)
                if (passes := self._passed.pop(request.attempt, None)) is not None:
                    self._pass_back(self._steps[request.call.step], passes)

    def _sweep(self) -> None:
        """Give up what is over its time."""
        now = self._loop.time()
        self._swept = time.monotonic()
        for bucket in [b for b in self._buckets if (b + 1) * SWEEP_SECONDS <= now]:
            for flight in self._buckets.pop(bucket):
                if self._flights.get(flight.request.name) is not flight:
                    continue
                if flight.deadline > now:  # it has kept something meanwhile, or waits at a gate
                    later = min(flight.deadline, now + 1)
                    self._buckets.setdefault(int(later / SWEEP_SECONDS), []).append(flight)
                else:
                    flight.reason = "timeout"
                    flight.task.cancel()
                    self._loop.call_later(GRACE_SECONDS, self._forsake, flight)
        self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _forsake(self, flight: Flight) -> None:
        """An attempt took no notice of its cancellation."""
        request = flight.request
        if self._flights.get(request.name) is not flight:
            return
        logger.warning(
            "step %s of %s/%s goes on after it was cancelled; let it pass asyncio.CancelledError on",
            flight.step.name, request.workflow, request.key,
            extra=_of(request),
        )  # fmt: skip
        inner = ""
        if flight.runner is not None:
            flight.runner.end()
            inner = flight.runner.blame(None)
        flight.gone = True
        self._land(flight)
        self._fail(request, "Timeout", _late(flight.step), **_measured(flight), inner=inner)

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


def _of(request: Request) -> dict[str, About]:
    call = request.call
    return of(
        request.workflow, request.key, call.run,
        step=call.step, call=call.id, attempt=call.attempt, traceparent=call.trace,
    )  # fmt: skip


def _called(function: Callable[..., Any], *arguments: object) -> object:
    """A function's answer; what would end a generator cannot be handed from thread to loop."""
    try:
        return function(*arguments)
    except StopIteration as error:
        message = "the step raised StopIteration"
        raise RuntimeError(message) from error


def _measured(flight: Flight) -> dict[str, Any]:
    """What was seen of an attempt, as `FailureEntry` takes it."""
    return {"started": flight.started, "took": flight.took, "spans": spans_of(flight.around)}


def _report(passes: Mapping[str, Pass], error: BaseException | None) -> None:
    """Say what became of a call at the gate of its step; whoever asks a model tells that model's gate."""
    for name, passed in passes.items():
        if not name.startswith("step:"):
            continue
        if error is None:
            passed.report(OK)
        elif isinstance(error, TryAgain) and error.outage:
            passed.report(Outage(_milliseconds(error.after) / 1000, _name(error)))


def _milliseconds(after: timedelta | None) -> int:
    return 0 if after is None else max(0, int(after / timedelta(milliseconds=1)))


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
