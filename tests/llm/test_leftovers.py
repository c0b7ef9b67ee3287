"""An answer that was not asked for is nobody's."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from engine.llm.leftovers import spoil_if_more_came
from tests.providers import Answer, Cut, Provider, TwoAnswers

BODY: Any = {"model": "gpt-test", "messages": [{"role": "user", "content": "Is it safe?"}]}


async def ask(transport: httpx2.AsyncHTTPTransport, provider: Provider, *, look: bool) -> tuple[str, bool]:
    """The text of the answer, and whether more came."""
    asked = httpx2.Request("POST", f"{provider.openai_url}/chat/completions", json=BODY)
    response = await transport.handle_async_request(asked)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    body = b"".join([part async for part in response.stream])
    more_came = look and spoil_if_more_came(response.stream)
    await response.stream.aclose()
    return json.loads(body)["choices"][0]["message"]["content"], more_came


@pytest.mark.parametrize(("look", "answers"), [(True, ["one", "three"]), (False, ["one", "two"])])
async def test_what_came_too_much_is_not_the_answer_to_the_next_request(look: bool, answers: list[str]) -> None:
    script = [TwoAnswers(first=Answer("one"), second=Answer("two")), Answer("three")]
    with Provider(script) as provider:
        async with httpx2.AsyncHTTPTransport() as transport:
            got = [await ask(transport, provider, look=look) for _ in range(2)]

    assert [text for text, _ in got] == answers
    assert [more_came for _, more_came in got] == [look, False]


async def test_a_connection_with_nothing_more_in_it_is_used_again() -> None:
    with Provider() as provider:
        async with httpx2.AsyncHTTPTransport() as transport:
            for _ in range(3):
                await ask(transport, provider, look=True)
            connections = len(provider._connections)

    assert connections == 1


@pytest.mark.parametrize("stream", [None, object(), httpx2.ByteStream(b"")])
def test_what_is_no_http_1_stream_is_left_alone(stream: object) -> None:
    assert not spoil_if_more_came(stream)


async def test_a_broken_connection_is_left_alone() -> None:
    with Provider([Cut(0.9)]) as provider:
        async with httpx2.AsyncHTTPTransport() as transport:
            with pytest.raises(httpx2.RemoteProtocolError):
                await ask(transport, provider, look=True)

            assert (await ask(transport, provider, look=True))[0]
