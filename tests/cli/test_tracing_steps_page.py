"""What `docs/tracing-steps.md` shows works, and its bounds are the ones that hold."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import ModuleType

import httpx
import pytest

from engine import StepContext
from engine.core.trace import traceparent
from observability import collected, inner_attributes
from observability.inner_span import read_inner
from observability.inside import Around, Inside
from tests.cli.pages import Page

PAGE = Page("tracing-steps")
PLACE = traceparent("ab" * 16, "11" * 8)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return PAGE.module(tmp_path_factory.mktemp("tracing"))


def context(heard: list[httpx.Request]) -> StepContext:
    def answer(request: httpx.Request) -> httpx.Response:
        heard.append(request)
        return httpx.Response(200, json={"number": "4711"})

    client = httpx.AsyncClient(base_url="https://example.com", transport=httpx.MockTransport(answer))
    return StepContext("key", 1, datetime.now(UTC), {"policies": client, "bank": client})


def test_the_pages_steps_ask_as_they_say(page: ModuleType) -> None:
    heard: list[httpx.Request] = []

    assert asyncio.run(page.fetch_policy("4711", context(heard))) == {"number": "4711"}
    asyncio.run(page.pay_out("4711", context(heard)))
    assert [request.url.path for request in heard] == ["/policies/4711", "/reservations", "/payments"]


def test_the_pages_own_spans_are_collected(page: ModuleType) -> None:
    Inside().start()
    with Around(PLACE, "", "") as around:
        assert asyncio.run(page.assess(["front", "rear"])) == 9
        spans, _ = read_inner(around.drain())

    assert [(span.name, span.attributes) for span in spans] == [
        ("measure", {"photo": "front", "found": 5}),
        ("measure", {"photo": "rear", "found": 4}),
    ]


def test_the_pages_thread_sends_the_headers(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, str] = {}

    class Connection:
        status = 204

        def __init__(self, host: str, timeout: float) -> None: ...
        def request(self, method: str, path: str, headers: dict[str, str]) -> None:
            sent.update(headers)

        def getresponse(self) -> Connection:
            return self

        def close(self) -> None: ...

    monkeypatch.setattr(page, "HTTPSConnection", Connection)
    placed = StepContext("key", 1, datetime.now(UTC), place=lambda: {"traceparent": PLACE})

    assert page.notify.function("4711", placed) == 204
    assert sent == {"traceparent": PLACE}


def test_the_pages_bounds_hold() -> None:
    assert f"{collected.MOST_SPANS}, the first that begin" in PAGE.text
    assert f"{collected.MOST_BYTES >> 10} KB" in PAGE.text
    assert f"`{collected.CUT}`" in PAGE.text
    assert f"attributes of a span | {inner_attributes.MOST} |" in PAGE.text
    assert f"{inner_attributes.LONGEST:,} characters | cut, ends in `{inner_attributes.MARK}`" in PAGE.text
