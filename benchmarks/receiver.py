"""A collector that takes everything and looks at nothing: `python -m benchmarks.receiver` prints its port.

What a real one does with spans is its own affair; this one costs as little as a receiver can.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from types import TracebackType
from typing import Final, Self

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class Receiver:
    """One in a process of its own. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.receiver"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        port = self._process.stdout.readline() if self._process.stdout else b""
        self.url = f"http://127.0.0.1:{int(port)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.terminate()


def main() -> None:
    """Serve until standard input ends, as it does with whoever started this."""
    server = socket.create_server(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(server,), daemon=True).start()
    sys.stdin.read()


def _accept(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    """One request after the other; a body is read into one buffer, and forgotten."""
    sink = bytearray(1 << 20)
    held = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in held:
                if not (read := connection.recv(1 << 16)):
                    return
                held += read
            head, _, body = held.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            left = int(found[1]) - len(body) if found else 0
            while left > 0:
                if not (size := connection.recv_into(sink, min(left, len(sink)))):
                    return
                left -= size
            held = b""
            connection.sendall(_ANSWER)


if __name__ == "__main__":
    main()
