"""A connection to the server from an asyncio loop.

Not redis-py's: whenever that borrows a connection it looks for bytes in a time-out of 0 seconds, and in Python 3.11 a
task that is cancelled in that moment goes on as if nothing had been said (seen with 5.3); it costs time, too.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Self

import hiredis

from engine.log.errors import LogUnavailable
from engine.log.redis_wire import REPLY_SECONDS, Address, Reply, refused

READ_BYTES = 1 << 16


class Replaced(Exception):
    """A newer incarnation of this worker is at work; this one lets nobody pass any more."""


class Link:
    """Requests out, replies in order. One that was cancelled or failed in the middle must be closed."""

    def __init__(self, address: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """See `connect`."""
        self._address, self._reader, self._writer = address, reader, writer
        self._parser = hiredis.Reader()

    @classmethod
    async def connect(cls, address: Address) -> Self:
        """Connect and greet.

        Raises:
            LogUnavailable: nobody answers there.
            LogError: the greeting was refused.
        """
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                if address.path:
                    reader, writer = await asyncio.open_unix_connection(address.path)
                else:
                    context = ssl.create_default_context() if address.tls else None
                    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
        except OSError as error:  # a TimeoutError is one
            raise LogUnavailable(f"log {address}: cannot connect ({error}); is the server running?") from error
        link = cls(address, reader, writer)
        try:
            checked(await link.call_all(address.greeting(), address.greetings))
        except BaseException:
            link.close()
            raise
        return link

    async def call_all(self, requests: bytes, count: int) -> list[Reply]:
        """Send in one write and take so many replies; errors are among them.

        Raises:
            LogUnavailable: the connection broke, or the server is silent.
        """
        self.send(requests)
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                return [await self.reply() for _ in range(count)]
        except TimeoutError as error:
            raise LogUnavailable(f"log {self._address}: silent for {REPLY_SECONDS} s") from error

    def send(self, requests: bytes) -> None:
        """Send without waiting for a reply."""
        if requests:
            self._writer.write(requests)

    async def reply(self) -> Reply:
        """The next reply or message, however long it takes.

        Raises:
            LogUnavailable: the connection broke.
        """
        while (reply := self._parser.gets()) is False:
            try:
                data = await self._reader.read(READ_BYTES)
            except OSError as error:
                raise LogUnavailable(f"log {self._address}: connection lost ({error})") from error
            if not data:
                raise LogUnavailable(f"log {self._address}: connection lost (the server closed it)")
            self._parser.feed(data)
        return reply

    def close(self) -> None:
        """Close; harmless twice."""
        self._writer.transport.abort()


def checked(replies: list[Reply]) -> list[Reply]:
    """The replies, if none is an error.

    Raises:
        Replaced: a newer incarnation is at work.
        LogError: the right kind of it.
    """
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if "FENCED" in text:
                raise Replaced(f"limits: {text[text.index('FENCED') + 7 :]}; it must stop")
            raise refused(reply)
    return replies
