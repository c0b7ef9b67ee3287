"""Where spans go, and what came back: one way of telling for HTTP and gRPC.

A sender sends one request, once. What to do with its answer is `observability.delivery`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.settings import Settings

USER_AGENT: Final = f"Longwatch/{version('longwatch')}"
LONGEST_WORDS: Final = 300
"""Characters of a collector's own words that are kept."""
_TIMEOUT_MS: Final = 10_000
_SHORTEST_SECRET: Final = 4


class Verdict(Enum):
    """What an answer means for the spans that were sent."""

    TAKEN = auto()
    LATER = auto()
    """The collector is away or busy: the same again after a while."""
    BROKEN = auto()
    """It failed over this: the same again a few times; if that does not help, a span in it is at fault."""
    REFUSED = auto()
    """It will not take this, now or later."""
    TOO_LARGE = auto()
    """It will not take so much at once."""
    MISCONFIGURED = auto()
    """It takes nothing from us: the address, the protocol or the key is wrong, which somebody has to mend."""


class Answer(NamedTuple):
    """What came back for one request."""

    verdict: Verdict
    reason: str = ""
    """In few and always the same words, such as `http 503`: failures are counted by it."""
    words: str = ""
    """The collector's own."""
    after: float | None = None
    """It asks for so many seconds of peace."""
    rejected: int = 0
    """Spans of a request that was taken which it did not take."""


class Sender(Protocol):
    """Sends requests to one collector over a connection that is kept. One thread's."""

    def send(self, body: bytes) -> Answer:
        """Send an encoded `ExportTraceServiceRequest` once; never raises for what a collector or network does."""

    def close(self) -> None:
        """Drop the connection."""


@dataclass(frozen=True)
class Collector:
    """Where to send, and how."""

    url: str
    protocol: str = "http/protobuf"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """May hold keys: never shown."""
    gzip: bool = False
    timeout: float = _TIMEOUT_MS / 1000
    """Seconds for one request."""
    certificate: str = ""
    """File with the authorities that are trusted; empty: the system's."""
    client_certificate: str = ""
    client_key: str = ""

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str]) -> Collector:
        """What settings and OpenTelemetry's variables say; those for traces win over the general ones.

        Source: OpenTelemetry, "OTLP Exporter Configuration" 1.50. A value that cannot be read counts as not set.
        """

        def said(name: str) -> str:
            found = (environment.get(f"OTEL_EXPORTER_OTLP_{kind}{name}", "").strip() for kind in ("TRACES_", ""))
            return next(filter(None, found), "")

        return cls(
            settings.otlp,
            settings.otlp_protocol,
            headers=read_headers(said("HEADERS")),
            gzip=said("COMPRESSION").lower() == "gzip",
            timeout=_seconds(said("TIMEOUT")),
            certificate=said("CERTIFICATE"),
            client_certificate=said("CLIENT_CERTIFICATE"),
            client_key=said("CLIENT_KEY"),
        )

    @property
    def shown(self) -> str:
        """The URL without what may be secret in it: user, password and query."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def quote(self, words: str) -> str:
        """A collector's words, short, on one line, and without our keys, which a server may repeat."""
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 1] + "…"

    @property
    def _secrets(self) -> list[str]:
        parts = urlsplit(self.url)
        own = [value for _, value in self.headers for value in (value, *value.split())]
        said = [*own, unquote(parts.password or ""), parts.query]
        return sorted((each for each in said if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)


def open_sender(collector: Collector) -> Sender:
    """A sender of the collector's protocol; nothing is connected before it sends."""
    if collector.protocol == "grpc":
        from observability.grpc_sender import GrpcSender  # noqa: PLC0415 (20 MB, for those who want it)

        return GrpcSender(collector)
    from observability.http_sender import HttpSender  # noqa: PLC0415 (likewise)

    return HttpSender(collector)


def read_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Headers as `OTEL_EXPORTER_OTLP_HEADERS` holds them, `name=value,name=value`, values percent-encoded.

    What is no header, or would break out of one, is left out.
    """
    found = []
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        if equals and name and name.isascii() and name.replace("-", "").replace("_", "").isalnum() and _is_plain(value):
            found.append((name, value))
    return tuple(found)


def _is_plain(value: str) -> bool:
    return value.isprintable() and value.isascii()


def _seconds(text: str) -> float:
    """Seconds of a number of milliseconds."""
    try:
        found = float(text)
    except ValueError:
        return _TIMEOUT_MS / 1000
    return found / 1000 if found > 0 and math.isfinite(found) else _TIMEOUT_MS / 1000
