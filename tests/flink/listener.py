"""An HTTP server on loopback that remembers with which headers each path was asked."""

from __future__ import annotations

import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Listener:
    """Use it as a context manager. Answers 200, under `/500` that status."""

    def __init__(self) -> None:
        heard = self._heard = dict[str, list[dict[str, str]]]()
        self._held, self._asked, self._go = "", threading.Event(), threading.Event()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                path = self.path.partition("?")[0]
                heard.setdefault(path, []).append(headers)
                if path == listener._held:
                    listener._asked.set()
                    listener._go.wait(60)
                self.send_response(500 if self.path.startswith("/500") else 200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                with suppress(OSError):  # whoever asked may be dead
                    self.wfile.write(b"ok")

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - likewise
                """Not on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def hold(self, path: str) -> None:
        """Answer no request for this path until `let_go`."""
        self._held = path

    def until_asked(self, path: str) -> None:
        """Wait until the path that is held is asked for."""
        assert path == self._held
        assert self._asked.wait(60)

    def let_go(self) -> None:
        self._go.set()

    def all(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for this path."""
        return self._heard[path]

    def headers(self, path: str) -> dict[str, str]:
        """Of the one request for this path."""
        (found,) = self._heard[path]
        return found

    def above(self, path: str) -> tuple[str, str]:
        """Trace and span that the one request for this path stands below."""
        _, trace, span, _ = self.headers(path)["traceparent"].split("-")
        return trace, span
