"""HTTP/1.1 by hand, as little of it as these clients need: a library would not let itself be made to misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Any, cast

from engine.testing.providers.protocol import Json

LONGEST_HEAD = 64 * 1024
LONGEST_BODY = 64 * 1024 * 1024
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends RST in place of FIN."""


OVERLOADED = 529
"""Anthropic's own status."""


@dataclass(frozen=True)
class Received:
    """A request as it came, its body unread."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Serve = Callable[["Connection", Received], Awaitable[None]]


class Connection(asyncio.Protocol):
    """Takes one request after another; `serve` answers each by `write`, or breaks off by `cut`."""

    def __init__(self, serve: Serve, open_connections: set[Connection]) -> None:
        self.serve = serve
        self.open_connections = open_connections
        self.waiting = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's form
        self.open_connections.discard(self)
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        if self.task is None:
            self._next()

    def cut(self, *, reset: bool = False) -> None:
        """Break off: by an orderly end (what was written arrives), or by a reset (it may not)."""
        if reset:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        else:
            self.transport.close()

    async def write(self, data: bytes) -> None:
        """Waits while the client does not read; cancelled when it goes."""
        self.transport.write(data)
        await self.writable.wait()

    def _next(self) -> None:
        try:
            received = self._take()
        except ValueError as error:
            self.transport.write(response({"error": {"message": str(error)}}, status=400))
            self.transport.close()
            return
        if received is not None:
            self.task = asyncio.ensure_future(self.serve(self, received))
            self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.transport.write(response({"error": {"message": f"the server's script failed: {error!r}"}}, status=500))
            self.transport.close()
        elif not self.transport.is_closing():
            self._next()

    def _take(self) -> Received | None:
        """The next whole request, cut off what waits."""
        end = self.waiting.find(b"\r\n\r\n")
        if end < 0:
            if len(self.waiting) > LONGEST_HEAD:
                raise ValueError("the head of the request is too long")
            return None
        first, *lines = self.waiting[:end].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "transfer-encoding" in headers:
            raise ValueError("send a Content-Length: chunks are not read here")
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= LONGEST_BODY:
            raise ValueError(f"a body of {length} bytes is not taken")
        whole = end + 4 + length
        if len(self.waiting) < whole:
            return None
        body = bytes(self.waiting[end + 4 : whole])
        del self.waiting[:whole]
        return Received(method, path.partition("?")[0], headers, body)


def response(
    body: Json | bytes | str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> bytes:
    """A whole answer."""
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return head(len(data), status=status, headers=headers, content_type=content_type) + data


def head(
    length: int,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    content_type: str = "application/json",
) -> bytes:
    """The head of an answer. A `date` in `headers` stands in place of the real one."""
    fields: dict[str, Any] = {
        "date": http_date(),
        "content-type": content_type,
        "content-length": length,
        **{name.lower(): value for name, value in (headers or {}).items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} {_phrase(status)}\r\n{lines}\r\n".encode("latin-1")


def http_date(offset: timedelta = timedelta()) -> str:
    """Now, or so much later, as HTTP writes it."""
    return formatdate(time() + offset.total_seconds(), usegmt=True)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Overloaded" if status == OVERLOADED else "Unknown"
