"""The HTTP side of the metrics: `/metrics` and `/-/healthy`, each request in a thread of its own.

What is sent is made before the first byte goes out, and a client that does not read is given up after some seconds: it
holds a thread and a buffer meanwhile, and no lock.
"""

from __future__ import annotations

import gzip
import logging
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.exposition import gzip_accepted

if TYPE_CHECKING:
    from observability.metrics import Exposition

_log = logging.getLogger(__name__)

SLOW_SECONDS: Final = 10.0
"""A client that takes or gives nothing for so long is given up."""
_PAGE: Final = b"Longwatch: its metrics are at /metrics\n"


class PortTaken(Exception):
    """Somebody else listens there."""

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host, self.port, self.why = host, port, why
        super().__init__(
            f"the metrics cannot be served at {host}:{port}, which is tried again: {why}. End who listens there, or "
            "take another port (--metrics PORT)"
        )

    def __reduce__(self) -> tuple[type[PortTaken], tuple[str, int, str]]:
        """Survive pickling, which calls the class with its facts."""
        return PortTaken, (self.host, self.port, self.why)


class ScrapeServer(ThreadingHTTPServer):
    """Serves one exposition."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, exposition: Exposition) -> None:
        """Listen.

        Raises:
            PortTaken: somebody else does, or it is not allowed.

        """
        self.exposition = exposition
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Scrape)
        except (OSError, OverflowError) as error:
            raise PortTaken(host, port, getattr(error, "strerror", "") or str(error)) from None

    def server_bind(self) -> None:
        """Bind alone: http.server looks up its own name too, which takes as long as a name server that is away."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    @property
    def port(self) -> int:
        port: int = self.server_address[1]
        return port

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as socketserver has it
        del request
        _log.debug("a scrape by %s was cut off", client_address, exc_info=True)


class Scrape(BaseHTTPRequestHandler):
    """One connection."""

    server: ScrapeServer
    protocol_version = "HTTP/1.1"
    timeout = SLOW_SECONDS
    server_version = "longwatch"
    sys_version = ""

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._metrics()
            case "/-/healthy":
                self._answer(HTTPStatus.OK, b"healthy\n")
            case "/":
                self._answer(HTTPStatus.OK, _PAGE)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, _PAGE)

    do_HEAD = do_GET  # noqa: N815 - as http.server has it

    def _metrics(self) -> None:
        try:
            body, kind = self.server.exposition.render(self.headers.get("Accept", ""))
        except Exception:  # noqa: BLE001 - told, and the next scrape is tried
            _log.exception("a scrape failed")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see metrics.log\n")
            return
        headers = {"Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        self._answer(HTTPStatus.OK, body, kind, headers)

    def _answer(
        self,
        status: HTTPStatus,
        body: bytes,
        kind: str = "text/plain; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - as http.server has it
        _log.debug(format, *args)
