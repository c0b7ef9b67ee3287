"""Like questions share one answer: what stands in front of the small model's server.

A question is a request's JSON in canonical form; equal ones have one answer, which is kept in SQLite and so outlives
every process. While one caller asks, the others with the same question wait for its answer; when asking fails, the next
one asks. Every request is noted with its `Idempotency-Key`, so that it can be counted what a killed engine asked again.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from workflows.insurance_claim.world import connection

ASKED = "/v1/chat/completions"
JSON = "application/json"
KEY = "Idempotency-Key"
LONGEST_QUESTION = 1 << 20
LONGEST_WAIT_S = 600
"""For the model: its queue included."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (question TEXT PRIMARY KEY, request TEXT NOT NULL, answer BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    key TEXT NOT NULL,
    question TEXT NOT NULL,
    at REAL NOT NULL,
    model INTEGER NOT NULL,
    seconds REAL
);
"""


@dataclass(frozen=True)
class Counts:
    """What was asked, and what sharing saved."""

    model_calls: int
    """Requests that reached the model, those that a kill cut off included."""
    answers_shared: int
    """Requests that were answered from the store."""


@dataclass(frozen=True)
class Reply:
    """An answer as it is sent."""

    status: int
    body: bytes


class SharedAnswers:
    """The store at `path`. Its methods may be called from any thread and any process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with connection(path) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    def stored(self, question: str) -> bytes | None:
        with connection(self.path) as db:
            row = db.execute("SELECT answer FROM answers WHERE question = ?", (question,)).fetchone()
        return None if row is None else bytes(row[0])

    def note(self, key: str, question: str, *, model: bool) -> int:
        """Note a request before it is made, so that a kill does not hide it."""
        with connection(self.path) as db:
            row = (key, question, time.time(), model)
            return int(db.execute("INSERT INTO requests VALUES (?, ?, ?, ?, NULL)", row).lastrowid or 0)

    def keep(self, question: str, request: str, answer: bytes, row: int, seconds: float) -> None:
        with connection(self.path) as db:
            db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (question, request, answer))
            db.execute("UPDATE requests SET seconds = ? WHERE rowid = ?", (seconds, row))

    def counts(self) -> Counts:
        with connection(self.path) as db:
            calls, shared = db.execute(
                "SELECT count(*) FILTER (WHERE model), count(*) FILTER (WHERE NOT model) FROM requests"
            ).fetchone()
        return Counts(model_calls=calls, answers_shared=shared)

    def repeated(self) -> int:
        """Requests under a key that had been there before."""
        with connection(self.path) as db:
            return int(db.execute("SELECT count(*) - count(DISTINCT key) FROM requests").fetchone()[0])

    def asked(self) -> list[tuple[str, float]]:
        """Each request's idempotency key, and when it came (seconds of `time.time()`)."""
        with connection(self.path) as db:
            return db.execute("SELECT key, at FROM requests ORDER BY rowid").fetchall()


class Front(ThreadingHTTPServer):
    """Listens on `port`, asks the server on `model_port`, and keeps what that says."""

    daemon_threads = True

    def __init__(self, host: str, port: int, model_port: int, answers: SharedAnswers) -> None:
        super().__init__((host, port), Handler)
        self.host, self.model_port, self.answers = host, model_port, answers
        self._turns: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def reply(self, body: bytes, key: str) -> Reply:
        """The stored answer to a request, the one that another caller is getting, or the one that the model gives."""
        request = canonical(json.loads(body))
        question = hashlib.sha256(request.encode()).hexdigest()[:32]
        with self._turn(question):
            if (stored := self.answers.stored(question)) is not None:
                self.answers.note(key, question, model=False)
                return Reply(HTTPStatus.OK, stored)
            row, began = self.answers.note(key, question, model=True), time.perf_counter()
            reply = self.forward("POST", ASKED, body)
            if reply.status == HTTPStatus.OK:
                self.answers.keep(question, request, reply.body, row, time.perf_counter() - began)
            return reply

    def forward(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """What the model's server says."""
        inner = http.client.HTTPConnection(self.host, self.model_port, timeout=LONGEST_WAIT_S)
        try:
            inner.request(method, path, body, {"Content-Type": JSON})
            response = inner.getresponse()
            return Reply(response.status, response.read())
        finally:
            inner.close()

    @contextmanager
    def _turn(self, question: str) -> Iterator[None]:
        """One caller at a time for each question."""
        with self._lock:
            turn = self._turns.setdefault(question, threading.Lock())
        with turn:
            yield

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as its base has it
        """A caller that is gone (a killed engine) is nobody's matter; what was asked for it is kept."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Front

    def do_GET(self) -> None:
        self._send(self._try(lambda: self.server.forward("GET", self.path)))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != ASKED or not 0 < length <= LONGEST_QUESTION:
            self.close_connection = True
            self._send(problem(HTTPStatus.BAD_REQUEST, f"POST {ASKED} with a body of at most {LONGEST_QUESTION} bytes"))
            return
        body = self.rfile.read(length)
        self._send(self._try(lambda: self.server.reply(body, self.headers.get(KEY) or "")))

    def log_message(self, *args: object) -> None:
        """The model's server has a log of its own."""

    def _try(self, get: Any) -> Reply:  # noqa: ANN401 - makes a reply
        try:
            reply: Reply = get()
        except ValueError as error:
            return problem(HTTPStatus.BAD_REQUEST, f"no JSON: {error}")
        except (OSError, http.client.HTTPException) as error:
            return problem(HTTPStatus.BAD_GATEWAY, f"the model does not answer: {type(error).__name__}")
        return reply

    def _send(self, reply: Reply) -> None:
        with suppress(ConnectionError):
            self.send_response(reply.status)
            self.send_header("Content-Type", JSON)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)


def canonical(request: object) -> str:
    """JSON whose bytes are equal where the requests are."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def problem(status: HTTPStatus, words: str) -> Reply:
    return Reply(status, json.dumps({"error": {"message": words, "code": int(status)}}).encode())
