"""Appends from the steps' asyncio loop: one write a turn, sent again by itself when the server comes back."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

import hiredis

from engine.log.checks import check_same_log
from engine.log.errors import LogError, LogUnavailable
from engine.log.redis_keys import FIELD, HEADER, header_of, stream
from engine.log.redis_wire import REPLY_SECONDS, Address, Reply, bulks, encode, refused

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts to connect."""


class RedisAppender:
    """`engine.log.protocol.Appender` over Redis Streams. Made and used on one running loop.

    An entry is kept until the server has acknowledged it. When the connection breaks, or the server refuses for lack of
    memory or disk, all that is kept is sent again, in order.
    """

    def __init__(self, url: str, log_id: str, partitions: int) -> None:
        """Begin to connect; `append` may be called at once."""
        self._address = Address.parse(url)
        self._log_id = log_id
        self._heads = [b"*5\r\n" + bulks("XADD", stream("log", p), "*", FIELD) for p in range(partitions)]
        self._unsent: list[bytes] = []
        self._unacknowledged: deque[bytes] = deque()
        self._acknowledged = 0
        self._watched: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Whom to tell when so many appends are acknowledged in all: they are in the order in which they were made."""
        self._link: _Link | None = None
        self._armed = False
        self._failure: LogError | None = None
        self._drained: list[asyncio.Future[None]] = []
        self.trouble: LogUnavailable | None = None
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep_connected(), name="log-appender")

    @property
    def waiting(self) -> int:
        """See `Appender.waiting`."""
        return len(self._unsent) + len(self._unacknowledged)

    def append(self, partition: int, payload: bytes) -> None:
        """See `Appender.append`."""
        if self._failure:
            raise self._failure
        self._unsent.append(b"%b$%d\r\n%b\r\n" % (self._heads[partition], len(payload), payload))
        if not self._armed and self._link:
            self._armed = True
            self._loop.call_soon(self._send)

    def keep(self, partition: int, payload: bytes) -> asyncio.Future[None]:
        """See `Appender.keep`."""
        self.append(partition, payload)
        future: asyncio.Future[None] = self._loop.create_future()
        self._watched.append((self._acknowledged + self.waiting, future))
        return future

    async def drain(self) -> None:
        """See `Appender.drain`."""
        if self._failure:
            raise self._failure
        if self.waiting:
            future: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(future)
            await future

    async def close(self) -> None:
        """See `Appender.close`."""
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link:
            self._link.drop()

    def _send(self) -> None:
        self._armed = False
        if self._link and self._unsent:
            unsent, self._unsent = self._unsent, []
            self._unacknowledged.extend(unsent)
            self._link.write(b"".join(unsent))

    def _acknowledge(self) -> None:
        self._unacknowledged.popleft()
        self._acknowledged += 1
        while self._watched and self._watched[0][0] <= self._acknowledged:
            _, future = self._watched.popleft()
            if not future.done():
                future.set_result(None)
        if self._drained and not self.waiting:
            self._wake(None)

    def _wake(self, failure: LogError | None) -> None:
        drained, self._drained = self._drained, []
        if failure:
            drained += [future for _, future in self._watched]
            self._watched.clear()
        for future in drained:
            if not future.done():
                future.set_exception(failure) if failure else future.set_result(None)

    async def _keep_connected(self) -> None:
        try:
            while True:
                link = await self._connect()
                self._unsent[:0] = self._unacknowledged
                self._unacknowledged.clear()
                self._link, self.trouble = link, None
                self._send()
                error = await link.lost
                self._link = None
                if not isinstance(error, LogUnavailable):
                    raise error
                self._complain(error)
                await asyncio.sleep(FIRST_PAUSE)
        except LogError as error:
            logger.error("%s", error)  # noqa: TRY400 - it is raised where something is appended next
            self._failure = error
            self._wake(error)

    async def _connect(self) -> _Link:
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._open()
            except LogUnavailable as error:
                self._complain(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _open(self) -> _Link:
        """Connect and check that it is the same log."""
        link = _Link(self._acknowledge, self._address)
        try:
            if self._address.path:
                await self._loop.create_unix_connection(lambda: link, self._address.path)
            else:
                context = ssl.create_default_context() if self._address.tls else None
                await self._loop.create_connection(lambda: link, self._address.host, self._address.port, ssl=context)
            request = self._address.greeting() + encode("HGETALL", HEADER)
            *_, fields = await link.greet(request, self._address.greetings + 1)
            check_same_log(header_of(fields, self._address), self._log_id, self._address)
        except OSError as error:
            msg = f"log {self._address}: cannot connect ({error}); is the server running?"
            raise LogUnavailable(msg) from error
        except LogError:
            link.drop()
            raise
        return link

    def _complain(self, error: LogUnavailable) -> None:
        if self.trouble is None:
            logger.warning("%s (%d results wait)", error, self.waiting)
        self.trouble = error


class _Link(asyncio.Protocol):
    """One connection: first the replies to the greeting, then one acknowledgement for each append."""

    def __init__(self, acknowledge: Callable[[], None], address: Address) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[LogError] = loop.create_future()
        self._greeted: asyncio.Future[list[Reply]] = loop.create_future()
        self._greetings: list[Reply] = []
        self._expected = 0
        self._acknowledge = acknowledge
        self._address = address
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None

    async def greet(self, requests: bytes, count: int) -> list[Reply]:
        """Send the first requests and wait for their replies.

        Raises:
            LogError: one of them is an error, or the connection broke.
        """
        self._expected = count
        self.write(requests)
        await asyncio.wait((self._greeted, self.lost), timeout=REPLY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if self.lost.done():
            raise self.lost.result()
        if not self._greeted.done():
            raise self._away(f"silent for {REPLY_SECONDS} s")
        return self._greeted.result()

    def write(self, requests: bytes) -> None:
        if self._transport:
            self._transport.write(requests)

    def drop(self) -> None:
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False and not self.lost.done():
            if isinstance(reply, hiredis.ReplyError):
                self._lose(refused(reply))
            elif self._expected:
                self._greetings.append(reply)
                self._expected -= 1
                if not self._expected:
                    self._greeted.set_result(self._greetings)
            else:
                self._acknowledge()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(self._away(str(exc or "the server closed the connection")))

    def _lose(self, error: LogError) -> None:
        """After a refusal nothing that follows may count: what stands behind it is sent again in order."""
        if not self.lost.done():
            self.lost.set_result(error)
        self.drop()

    def _away(self, words: str) -> LogUnavailable:
        return LogUnavailable(f"log {self._address}: connection lost ({words}); connecting again, nothing is dropped")
