"""The gates of a worker, and its conversation with the server.

One task talks to the server, one question a gate at a time, all gates that are due in one round trip. So what is held
is known to both sides at each answer, and a hundred thousand waiters cost as much as one: only the first of a gate are
ever asked about. What wakes the task: a pass that ends here, a word from the server that something is free for us (a
channel a worker), the time that the last answer told, and a poll in case a word is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from hiredis import ReplyError

from engine.limits.gate import Gate
from engine.limits.limit import Limit, Pace
from engine.limits.link import Link, Replaced, checked
from engine.limits.outcome import Outcome
from engine.limits.passes import Pass
from engine.limits.scripts import (
    ASK,
    BEATS,
    NAMES,
    NEWS,
    OPEN,
    SHUT,
    WORKERS,
    Opening,
    answer_of,
    gate_keys,
    to_json,
    wake_channel,
)
from engine.limits.waiters import Waiter
from engine.log.errors import LogError
from engine.log.redis_wire import Address, Reply, encode

logger = logging.getLogger(__name__)

R = TypeVar("R")

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts to reach the server."""
BREATH_SECONDS = 0.001
"""Between two questions, so that what happens in one turn of the loop goes out together."""
CLOSE_SECONDS = 1.0


class Gates:
    """All limits of one worker; made and used on one running loop, `async with` or `start` and `close`.

    A name without a limit passes at once, without a word to the server, unless its provider was reported to be down.
    """

    def __init__(
        self, url: str, worker: str, limits: Mapping[str, Limit], *, epoch: int = 0, pace: Pace | None = None
    ) -> None:
        """Set it up; nothing is sent yet.

        Args:
            url: the log's server.
            worker: a name that no other living worker of this log has, and that this one keeps over restarts.
            limits: by name of gate, such as `model:claims-assessor` or `step:fetch_policy`.
            epoch: a later start of the worker has none that is lower; it frees what the earlier one held.
            pace: the times, other than usual; the same for all workers.
        """
        self._address = Address.parse(url)
        self.worker, self._epoch, self._nonce = worker, epoch, secrets.token_hex(4)
        self._pace = pace or Pace()
        self._limits = dict(limits)
        self._gates = {name: self._make(name) for name in limits}
        self._owners: dict[Hashable, list[Waiter[Any]]] = {}
        self._numbers = itertools.count()
        self._alarm = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._link: Link | None = None
        self._begun = False
        self._connections = 0
        self.trouble = ""
        """Why the server cannot be asked now; empty: it can."""
        self.replaced = False
        """A newer incarnation of this worker took over."""

    def start(self) -> None:
        """Begin to talk to the server; returns at once."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._converse(), name="gates"),
            loop.create_task(self._listen(), name="gates-news"),
        ]

    async def close(self) -> None:
        """End, and give back what is held; what waits waits for ever."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(LogError, TimeoutError, Replaced):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._begun:
                    self._link = await Link.connect(self._address)
                    await self._introduce(self._link, "end")
        self._hang_up()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- passing -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def passing(
        self, name: str, *, owner: Hashable = None, priority: int = 0, tokens: int = 0, begun: bool = False
    ) -> AsyncIterator[Pass]:
        """Wait until a call may start, and hold its slot while the block runs; arguments as for `admit`."""
        passed: asyncio.Future[Pass] = asyncio.get_running_loop().create_future()
        waiter = self._admit(name, passed, _settle, owner, priority, tokens, begun=begun)
        try:
            leave = await passed
        except asyncio.CancelledError:
            if waiter is not None:
                self._drop(waiter)
            if passed.done() and not passed.cancelled():
                passed.result().end()
            raise
        try:
            yield leave
        finally:
            leave.end()

    def admit(
        self,
        name: str,
        request: R,
        callback: Callable[[R, Pass], object],
        *,
        owner: Hashable,
        priority: int = 0,
        tokens: int = 0,
        begun: bool = False,
    ) -> None:
        """Call `callback(request, pass)` when a call may start, which may be before this returns. `pass.end()` it.

        Costs no task and no future, so a hundred thousand may wait.

        Args:
            name: the gate.
            request: handed to the callback.
            callback: must not raise.
            owner: for `cancel`.
            priority: the lowest goes first.
            tokens: an estimate of what the call will use.
            begun: what has begun goes before what is new, at the same priority.

        Raises:
            NeverFits: it is above the limit by itself.
        """
        self._admit(name, request, callback, owner, priority, tokens, begun=begun)

    def _admit(
        self,
        name: str,
        request: R,
        callback: Callable[[R, Pass], object],
        owner: Hashable,
        priority: int,
        tokens: int,
        *,
        begun: bool,
    ) -> Waiter[R] | None:
        gate = self._gate(name)
        if gate.limit is not None:
            gate.limit.check(name, tokens)
        if gate.is_open:
            callback(request, Pass(gate, name, tokens))
            return None
        waiter = Waiter(name, owner, (priority, not begun, next(self._numbers)), tokens, request, callback)
        self._owners.setdefault(owner, []).append(waiter)
        gate.put(waiter)
        return waiter

    def cancel(self, owner: Hashable) -> int:
        """Forget what waits for this owner; how many that were. What has passed is not touched."""
        waiters = self._owners.pop(owner, [])
        for waiter in waiters:
            self._gates[waiter.gate].drop(waiter)
            if isinstance(waiter.request, asyncio.Future):
                waiter.request.cancel()
        return len(waiters)

    def report(self, name: str, outcome: Outcome) -> None:
        """Say what became of a call, where its pass is not at hand (`Pass.report` knows which is the probe)."""
        self._gate(name).reported(outcome, None)

    def waiting(self, name: str) -> int:
        """How many wait at a gate of this worker."""
        return self._gate(name).waiting

    def _gate(self, name: str) -> Gate:
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = self._make(name)
        return gate

    def _make(self, name: str) -> Gate:
        return Gate(name, self._limits.get(name), self._pace, self._ring)

    def _ring(self) -> None:
        self._alarm.set()

    def _drop(self, waiter: Waiter[Any]) -> None:
        if self._forget(waiter):
            self._gates[waiter.gate].drop(waiter)

    def _forget(self, waiter: Waiter[Any]) -> bool:
        """Take it off its owner's list; whether it was on it."""
        waiters = self._owners.get(waiter.owner, [])
        if waiter not in waiters:
            return False
        waiters.remove(waiter)
        if not waiters:
            del self._owners[waiter.owner]
        return True

    # -- the conversation ----------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    link = self._link = self._link or await self._connect()
                    await self._until_due()
                    await self._exchange(link)
                except LogError as error:
                    self._hang_up()
                    self._complain(error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE, self._pace.lease / 10)
                else:
                    pause, self.trouble = FIRST_PAUSE, ""
                    await asyncio.sleep(BREATH_SECONDS)
        except Replaced as error:
            logger.error("%s", error)  # noqa: TRY400 - who waits here waits for ever, as it must
            self.trouble, self.replaced = str(error), True
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _connect(self) -> Link:
        """A connection to a server that has the script and knows us."""
        link = await Link.connect(self._address)
        try:
            checked(await link.call_all(encode("SCRIPT", "LOAD", ASK.source), 1))
            await self._introduce(link, "go on" if self._begun else "begin")
            self._begun = True
        except BaseException:
            link.close()
            raise
        return link

    async def _introduce(self, link: Link, word: Literal["begin", "go on", "end"]) -> None:
        """Say who we are; to begin and to end free what the worker held."""
        self._connections += 1
        limits = {} if word == "end" else self._limits_as_numbers()
        opening = to_json(Opening(self.worker, self._epoch, self._nonce, self._connections, word, limits))
        checked(await link.call_all(encode("EVAL", OPEN.source, 3, WORKERS, BEATS, NAMES, opening), 1))

    def _limits_as_numbers(self) -> dict[str, tuple[int, int, int]]:
        return {
            name: (_number(limit.calls), _number(limit.requests), _number(limit.tokens))
            for name, limit in self._limits.items()
        }

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._alarm.clear()
            due = min((gate.due for gate in self._gates.values()), default=math.inf)
            seconds = due - time.monotonic()
            if seconds <= 0:
                return
            clock = loop.call_later(seconds, self._alarm.set) if due < math.inf else None
            try:
                await self._alarm.wait()
            finally:
                if clock is not None:
                    clock.cancel()

    async def _exchange(self, link: Link) -> None:
        """Ask about all gates that are due, and let pass who may."""
        now = time.monotonic()
        gates = [gate for gate in self._gates.values() if gate.due <= now]
        incarnation = f"{self._epoch}:{self._nonce}:{self._connections}"
        try:
            asks = [
                encode("EVALSHA", ASK.sha, 6, *gate_keys(gate.name), to_json(gate.ask(self.worker, incarnation, now)))
                for gate in gates
            ]
            answers = await link.call_all(b"".join(asks), len(asks))
        except BaseException:
            for gate in gates:
                gate.failed()
            raise
        self._take(gates, answers)
        checked(answers)

    def _take(self, gates: Iterable[Gate], answers: Iterable[Reply]) -> None:
        for gate, answer in zip(gates, answers, strict=True):
            if isinstance(answer, ReplyError):
                gate.failed()
            else:
                for waiter, passed in gate.answered(answer_of(answer), time.monotonic()):
                    self._forget(waiter)
                    self._call(waiter, passed)

    def _call(self, waiter: Waiter[Any], passed: Pass) -> None:
        try:
            waiter.callback(waiter.request, passed)
        except Exception:
            logger.exception("gate %s: the callback of %r raised; its pass is given back", waiter.gate, waiter.owner)
            passed.end()

    def _complain(self, error: Exception) -> None:
        if not self.trouble:
            waiting = sum(gate.waiting for gate in self._gates.values())
            logger.warning("limits: %s; %d calls wait, and go on by themselves", error, waiting)
        self.trouble = str(error) or type(error).__name__

    # -- news ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                link = await Link.connect(self._address)
                try:
                    await self._hear(link)
                finally:
                    link.close()
            except LogError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _hear(self, link: Link) -> None:
        """First what was said while nobody listened, then what is said."""
        wake = wake_channel(self.worker)
        checked(await link.call_all(encode("SUBSCRIBE", NEWS, wake), 2))
        self._look_around(await self._shut())
        while True:
            kind, channel, message = await link.reply()
            if kind != b"message":
                continue
            words = message.decode()
            if channel == wake.encode():
                self._gate(words).wake()
            else:
                word, _, name = words.partition(" ")
                self._gate(name).guard(word == "shut")

    async def _shut(self) -> set[str]:
        """The names of all gates that are shut; asked by another connection, since this one only listens."""
        link = await Link.connect(self._address)
        try:
            (names,) = checked(await link.call_all(encode("SMEMBERS", SHUT), 1))
            return {name.decode() for name in names}
        finally:
            link.close()

    def _look_around(self, shut: set[str]) -> None:
        for name in shut | set(self._gates):
            self._gate(name).guard(name in shut)


def _settle(future: asyncio.Future[Pass], passed: Pass) -> None:
    if future.done():
        passed.end()
    else:
        future.set_result(passed)


def _number(value: int | None) -> int:
    return -1 if value is None else value
