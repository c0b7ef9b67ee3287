"""The front on a real socket, before a model that counts how often it is asked."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from workflows.insurance_claim.model_front import ASKED, KEY, Counts, Front, SharedAnswers

HOST = "127.0.0.1"


class Model(ThreadingHTTPServer):
    """Answers when it is let, and fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), Says)
        self.asked: list[bytes] = []
        self.failures = 0
        self.was_asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()


class Says(BaseHTTPRequestHandler):
    server: Model

    def do_GET(self) -> None:
        self._say(200, {"status": "ok", "path": self.path})

    def do_POST(self) -> None:
        model = self.server
        model.asked.append(self.rfile.read(int(self.headers["Content-Length"])))
        model.was_asked.set()
        model.may_answer.wait()
        model.failures -= 1
        self._say(500 if model.failures >= 0 else 200, {"answer": len(model.asked)})

    def _say(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    made = Model()
    with serving(made):
        yield made


@pytest.fixture
def front(model: Model, tmp_path: Path) -> Iterator[Front]:
    made = Front(HOST, 0, model.server_port, SharedAnswers(tmp_path / "answers.sqlite"))
    with serving(made):
        yield made


def ask(front: Front, question: object, key: str = "call.turn-1", path: str = ASKED) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(HOST, front.server_port, timeout=30)
    try:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        connection.request("POST", path, body, {KEY: key})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def ask_all(front: Front, model: Model, count: int) -> list[tuple[int, Any]]:
    """All at once: the model answers when the first of them has come to it."""
    model.may_answer.clear()
    with ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(ask, front, {"q": "like"}, f"call-{n}") for n in range(count)]
        assert model.was_asked.wait(30)
        model.may_answer.set()
        return [each.result() for each in asking]


def test_like_questions_asked_at_once_are_asked_once(front: Front, model: Model) -> None:
    assert ask_all(front, model, 6) == [(200, {"answer": 1})] * 6
    assert front.answers.counts() == Counts(model_calls=1, answers_shared=5)


def test_what_is_the_same_in_another_order_is_one_question(front: Front, model: Model) -> None:
    ask(front, b'{"a": 1, "b": [1, 2]}')
    ask(front, b'{"b":[1,2],"a":1}')
    ask(front, b'{"b":[2,1],"a":1}')

    assert len(model.asked) == 2


def test_an_answer_outlives_its_process(front: Front, model: Model) -> None:
    ask(front, {"q": 1}, "first")
    later = Front(HOST, 0, model.server_port, SharedAnswers(front.answers.path))
    with serving(later):
        assert ask(later, {"q": 1}, "second") == (200, {"answer": 1})

    assert len(model.asked) == 1
    assert [key for key, _ in later.answers.asked()] == ["first", "second"]


def test_when_asking_fails_the_next_one_asks(front: Front, model: Model) -> None:
    model.failures = 1
    results = ask_all(front, model, 3)

    assert sorted(status for status, _ in results) == [200, 200, 500]
    assert len(model.asked) == 2


def test_a_model_that_is_gone_is_an_error_of_the_gateway(tmp_path: Path) -> None:
    with serving(made := Model()):
        port = made.server_port
    front = Front(HOST, 0, port, SharedAnswers(tmp_path / "answers.sqlite"))
    with serving(front):
        status, said = ask(front, {"q": 1})

    assert status == 502
    assert "does not answer" in said["error"]["message"]


@pytest.mark.parametrize("body", [b"no json", b""])
def test_what_is_no_question_is_refused(front: Front, model: Model, body: bytes) -> None:
    assert ask(front, body)[0] == 400
    assert ask(front, {"q": 1}, path="/v1/other")[0] == 400
    assert model.asked == []


def test_other_pages_are_the_models_own(front: Front) -> None:
    connection = http.client.HTTPConnection(HOST, front.server_port, timeout=30)
    connection.request("GET", "/health")

    assert json.loads(connection.getresponse().read()) == {"status": "ok", "path": "/health"}
    connection.close()
