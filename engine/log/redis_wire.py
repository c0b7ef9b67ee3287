"""The least that a Redis client can be: bytes out, hiredis in.

A general client spends 10 to 20 microseconds on every command; the partition engine has 80 for everything that it does
with an entry. So requests are joined by hand and sent in one write, and replies stay bytes.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from engine.log.errors import Fenced, LogBusy, LogError, LogLost, LogUnavailable

Reply = Any
"""What hiredis makes of a reply: bytes, int, None, a list of these, or a ReplyError inside a list."""

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 30
"""A server that is silent for longer is given up; the caller connects again and sends again."""
LONGEST_WAIT_MS = REPLY_SECONDS * 1000 // 2
"""A read waits no longer than that for entries, whatever it is asked, so that silence means trouble."""
OLDEST_VERSION = (6, 2)
"""XTRIM MINID and exclusive ranges came with 6.2."""

_AWAY = re.compile(
    r"\b(OOM|MISCONF|READONLY|LOADING|BUSY|NOSCRIPT|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|UNKILLABLE|"
    r"max number of clients reached)\b"
)
_ADVICE = {
    "OOM": "the server's memory is at its maxmemory: raise it, or let the engine archive and trim",
    "MISCONF": "the server cannot write its append-only file: free disk space",
    "READONLY": "the server is a read-only replica: point --log at the primary",
    "LOADING": "the server is reading its files: wait",
}


@dataclass(frozen=True)
class Address:
    """Where a server is: a unix socket (`path`), or host and port."""

    path: str = ""
    host: str = ""
    port: int = 6379
    tls: bool = False
    user: str = ""
    password: str = ""
    database: int = 0

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `unix:///path?db=0`, `redis://[user:password@]host[:port][/db]` or `rediss://...`.

        Raises:
            LogError: it is none of these.
        """
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        try:
            match parts.scheme:
                case "unix":
                    database = parse_qs(parts.query).get("db", ["0"])[0]
                    return cls(path=unquote(parts.path), user=user, password=password, database=int(database))
                case "redis" | "rediss" if parts.hostname:
                    return cls(
                        host=parts.hostname,
                        port=parts.port or 6379,
                        tls=parts.scheme == "rediss",
                        user=user,
                        password=password,
                        database=int(parts.path.strip("/") or 0),
                    )
        except ValueError as error:
            raise _no_address(url) from error
        raise _no_address(url)

    def __str__(self) -> str:
        return (
            f"unix://{self.path}" if self.path else f"redis{'s' * self.tls}://{self.host}:{self.port}/{self.database}"
        )

    def greeting(self) -> bytes:
        """The requests that open a session; each is answered by OK."""
        requests = []
        if self.password:
            requests.append(encode("AUTH", *filter(None, (self.user, self.password))))
        if self.database:
            requests.append(encode("SELECT", self.database))
        return b"".join(requests)

    @property
    def greetings(self) -> int:
        """How many requests the greeting has."""
        return bool(self.password) + bool(self.database)


def _no_address(url: str) -> LogError:
    shown = re.sub(r"//[^@/]*@", "//...@", url)
    return LogError(f"log {shown!r}: give unix:///path, redis://host:port/db or rediss://host:port/db")


def bulk(value: bytes | str | float) -> bytes:
    """One argument of a request."""
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def bulks(*values: bytes | str | float) -> bytes:
    """A part of a request: its first arguments, made once and sent often."""
    return b"".join(map(bulk, values))


def encode(*arguments: bytes | str | float) -> bytes:
    """A whole request."""
    return b"*%d\r\n%b" % (len(arguments), bulks(*arguments))


def blocking(wait_ms: int) -> tuple[str | int, ...]:
    """The arguments by which XREAD waits; for Redis a wait of 0 would be one without end."""
    return ("BLOCK", min(wait_ms, LONGEST_WAIT_MS)) if wait_ms > 0 else ()


def refused(error: Exception) -> LogError:
    """What an error reply means for the one who asked."""
    text = str(error)
    if "FENCED" in text:
        return Fenced(f"this engine was replaced: {text[text.index('FENCED') :]}; it must stop, the newer one goes on")
    if "LOST" in text:
        return LogLost(f"{text[text.index('LOST') :]}; restore the log's files, or start a new data folder")
    if "LEASED" in text:
        return LogBusy("another engine took this log in the same moment; look at `longwatch status`")
    if away := _AWAY.search(text):
        advice = _ADVICE.get(away[1], "the server refuses for now: look at its own log")
        return LogUnavailable(f"log: {text}: {advice}; nothing is lost, the same is sent again")
    return LogError(f"log: the server answered {text!r}")


class Wire:
    """A connection: `send` requests, take one `reply` for each, in order."""

    def __init__(self, address: Address) -> None:
        """Connect.

        Raises:
            LogUnavailable: nobody answers there, or not yet.
            LogError: the server is too old or wants a password.
        """
        self.address = address
        self._reader = hiredis.Reader()
        self._buffer = bytearray(1 << 18)
        try:
            self._socket = _connect(address)
        except OSError as error:
            msg = f"log {address}: cannot connect ({error}); is the server running?"
            raise LogUnavailable(msg) from error
        try:
            self._greet()
        except LogError:
            self.close()
            raise

    def _greet(self) -> None:
        self.send(self.address.greeting() + encode("INFO", "server"))
        for _ in range(self.address.greetings):
            self.reply()
        if found := re.search(rb"redis_version:(\d+)\.(\d+)", self.reply()):
            version = int(found[1]), int(found[2])
            if version < OLDEST_VERSION:
                msg = f"log {self.address}: Redis {version[0]}.{version[1]}; Longwatch needs 6.2 or newer"
                raise LogError(msg)

    def send(self, requests: bytes) -> None:
        """Send; returns when the system has taken all bytes."""
        try:
            self._socket.sendall(requests)
        except OSError as error:
            raise self._broken(error) from error

    def raw_reply(self) -> Reply:
        """The next reply; an error reply is returned, not raised.

        Raises:
            LogUnavailable: the connection broke, or the server is silent.
        """
        reader, buffer = self._reader, self._buffer
        reply = reader.gets()
        while reply is False:
            try:
                size = self._socket.recv_into(buffer)
            except OSError as error:
                raise self._broken(error) from error
            if not size:
                raise self._broken(ConnectionError("the server closed the connection"))
            reader.feed(buffer, 0, size)  # type: ignore[arg-type]  # any buffer will do; its stub says bytes
            reply = reader.gets()
        return reply

    def reply(self) -> Reply:
        """The next reply.

        Raises:
            LogError: the right kind of it, when the reply is an error.
        """
        reply = self.raw_reply()
        if isinstance(reply, hiredis.ReplyError):
            raise refused(reply)
        return reply

    def call(self, *arguments: bytes | str | float) -> Reply:
        """One request and its reply."""
        self.send(encode(*arguments))
        return self.reply()

    def call_all(self, requests: list[bytes]) -> list[Reply]:
        """Many requests in one write, and all replies; the first error among them is raised when all have come."""
        self.send(b"".join(requests))
        replies = [self.raw_reply() for _ in requests]
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise refused(reply)
        return replies

    def close(self) -> None:
        """Close the connection; harmless twice."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _broken(self, error: OSError) -> LogUnavailable:
        self.close()
        words = f"silent for {REPLY_SECONDS} s" if isinstance(error, BlockingIOError) else str(error)
        return LogUnavailable(f"log {self.address}: connection lost ({words}); connect again, what was queued is kept")


def _connect(address: Address) -> socket.socket:
    connection = _unix(address) if address.path else _tcp(address)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
    # Limits of the kernel, not settimeout(): that would cost a poll() before every recv().
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", REPLY_SECONDS, 0))
    return connection


def _unix(address: Address) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection


def _tcp(address: Address) -> socket.socket:
    connection = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls:
            connection = ssl.create_default_context().wrap_socket(connection, server_hostname=address.host)
        connection.settimeout(None)
    except OSError:
        connection.close()
        raise
    return connection
