"""OTLP over HTTP: protobuf in a POST, as OpenTelemetry's "OTLP Specification 1.9.0", "OTLP/HTTP" asks for."""

from __future__ import annotations

import base64
import gzip
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import urllib3

from observability import protobuf
from observability.sender import USER_AGENT, Answer, Collector, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

_GZIP_LEVEL: Final = 1
"""Spans are alike: the fastest level takes most of what there is to take."""
_LONGEST_ANSWER: Final = 1 << 16

_LATER: Final = {408, 425, 429, 502, 503, 504}
_REFUSED: Final = {400, 406, 409, 411, 412, 422, 431}
"""What may be the spans' fault; all other 4xx are the address's or the key's."""


class HttpSender:
    """One connection, kept alive."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        parts = urlsplit(collector.url)
        path = parts.path if parts.path.strip("/") else "/v1/traces"
        self._url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, parts.query, ""))
        self._gzip = collector.gzip
        self._headers = _headers(collector)
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,
            timeout=urllib3.Timeout(total=collector.timeout),
            ca_certs=collector.certificate or None,
            cert_file=collector.client_certificate or None,
            key_file=collector.client_key or None,
        )

    def send(self, body: bytes) -> Answer:
        """See `Sender.send`."""
        sent = gzip.compress(body, _GZIP_LEVEL, mtime=0) if self._gzip else body
        try:
            answer = self._pool.request(
                "POST", self._url, body=sent, headers=self._headers, redirect=False, preload_content=False
            )
            try:
                read = answer.read(_LONGEST_ANSWER, decode_content=True)
                if not answer.read(1):
                    answer.release_conn()
            finally:
                answer.close()  # who has more to say than anybody listens to is hung up on; else nothing happens
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return _failed(error, self._collector)
        found = _answer(answer.status, answer.headers, read)
        return found._replace(words=self._collector.quote(found.words))

    def close(self) -> None:
        self._pool.clear()


def _headers(collector: Collector) -> dict[str, str]:
    headers = {"content-type": "application/x-protobuf", "user-agent": USER_AGENT}
    if collector.gzip:
        headers["content-encoding"] = "gzip"
    credentials, at, _ = urlsplit(collector.url).netloc.rpartition("@")
    if at:
        headers["authorization"] = "Basic " + base64.b64encode(unquote(credentials).encode()).decode()
    return headers | dict(collector.headers)


def _failed(error: Exception, collector: Collector) -> Answer:
    """What a failure below HTTP means."""
    match error:
        case urllib3.exceptions.SSLError():
            return Answer(Verdict.MISCONFIGURED, "tls", collector.quote(str(error)))
        case urllib3.exceptions.LocationValueError():
            return Answer(Verdict.MISCONFIGURED, "url")
        case urllib3.exceptions.NameResolutionError():
            return Answer(Verdict.LATER, "host not found")
        case urllib3.exceptions.NewConnectionError():  # to urllib3 this one is a timeout too
            return Answer(Verdict.LATER, "connection refused")
        case urllib3.exceptions.TimeoutError():
            return Answer(Verdict.LATER, "timeout")
        case _:
            return Answer(Verdict.LATER, "connection broken", collector.quote(str(error)))


def _answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        partial = protobuf.message(body, 1)
        return Answer(
            Verdict.TAKEN,
            "partial success" if partial else "",
            protobuf.text(partial, 2),
            rejected=protobuf.integer(partial, 1),
        )
    reason = f"http {status}"
    words = _words(headers, body)
    if status in _LATER:
        return Answer(Verdict.LATER, reason, words, after=_after(headers.get("retry-after", "")))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Answer(Verdict.TOO_LARGE, reason, words)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Answer(Verdict.BROKEN, reason, words)
    return Answer(Verdict.REFUSED if status in _REFUSED else Verdict.MISCONFIGURED, reason, words)


def _words(headers: Mapping[str, str], body: bytes) -> str:
    """The message of a failure: a `google.rpc.Status` in protobuf, else text."""
    if "protobuf" in headers.get("content-type", ""):
        return protobuf.text(body, 2)
    return body.decode(errors="replace")


def _after(text: str) -> float | None:
    """Seconds that `Retry-After` asks for, in either of its forms (RFC 9110, 10.2.3)."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
