"""The server: a thread with a loop of its own, a script, and a log of what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from engine.testing.providers.anthropic_messages import AnthropicMessages
from engine.testing.providers.behaviour import Behaviour, Exchange, Plausible
from engine.testing.providers.connection import Connection, Received, response
from engine.testing.providers.openai_chat import OpenAIChat
from engine.testing.providers.openai_responses import OpenAIResponses
from engine.testing.providers.protocol import Asked, Json, Speaks
from engine.testing.providers.request import Load, Request

Script = Iterable[Behaviour] | Callable[[Request], Behaviour | None]

HOST = "127.0.0.1"
BACKLOG = 4096
PROTOCOLS: dict[str, Speaks] = {
    "/v1/chat/completions": OpenAIChat(),
    "/v1/responses": OpenAIResponses(),
    "/v1/messages": AnthropicMessages(),
}


class Provider:
    """A model provider on loopback, between `with` and its end. The package's page says what it does.

    Its methods may be called from any thread; none blocks for longer than the server needs to do what it says.
    """

    def __init__(
        self, script: Script = (), *, default: Behaviour | None = None, port: int = 0, keep_requests: bool = True
    ) -> None:
        """`default` stands where the script has ended or says nothing. `port` 0 takes a free one.

        Without `keep_requests` only sums are kept (`load` and `GET /stats` then know no windows): for benchmarks.
        """
        self.default = default or Plausible()
        self.requests: list[Request] = []
        self.keep_requests = keep_requests
        self.count = self.at_once = self.peak_at_once = self.tokens = 0
        self.port = port
        self.script = script
        self._connections: set[Connection] = set()
        self._news = threading.Condition()
        self._listener: asyncio.Server | None = None

    @property
    def script(self) -> Script:
        """What to do with the requests to come: behaviours in order, or a function of each request.

        To set it begins it anew. A behaviour stands for as many requests as its `times` says. A function that answers
        None leaves the request to the default; it is called on the server's thread.
        """
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script = script
        self._steps = iter(()) if callable(script) else _repeated(script)

    @property
    def url(self) -> str:
        """For the Anthropic client as it is; OpenAI's wants `openai_url`."""
        return f"http://{HOST}:{self.port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def load(self, model: str | None = None, window: float = 60) -> Load:
        """How much was asked, in all and at its worst, of one model or of all."""
        return Load.of([each for each in list(self.requests) if model in (None, each.model)], window)

    def down(self) -> None:
        """Refuse connections, and break off those that are open. Nobody else gets the port meanwhile."""
        self._run(self._break_off())

    def up(self) -> None:
        """Take connections again, at the same port."""
        self._run(self._listen())

    def let_go(self) -> None:
        """Answer what is `Held`, and what will be."""
        self._do(self._let_go.set)

    def wait_for(self, count: int, timeout: float = 30) -> None:
        """Until so many requests have come, in all.

        Raises:
            TimeoutError: Fewer came in so many seconds.
        """
        with self._news:
            if not self._news.wait_for(lambda: self.count >= count, timeout):
                message = f"{self.count} of {count} requests came within {timeout} s"
                raise TimeoutError(message)

    def stats(self) -> Json:
        """Sums, as `GET /stats` gives them: requests, tokens, at_once, peak_at_once."""
        return {
            "requests": self.count,
            "tokens": self.tokens,
            "at_once": self.at_once,
            "peak_at_once": self.peak_at_once,
            **({"load": asdict(self.load())} if self.keep_requests else {}),
        }

    # The server's life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        # Never listens: it keeps the port for us while the provider is down.
        self._place = _bound(self.port)
        self.port = self._place.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._let_go = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"provider:{self.port}", daemon=True)
        self._thread.start()
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What the end of `with` does; a second time does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    def _run(self, work: Any) -> None:  # noqa: ANN401 - a coroutine of any kind
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _do(self, act: Callable[[], object]) -> None:
        async def done() -> None:
            act()

        self._run(done())

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await self._loop.create_server(
                lambda: Connection(self._serve, self._connections), sock=_bound(self.port), backlog=BACKLOG
            )

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.cut(reset=True)

    async def _break_off(self) -> None:
        """Comes back when what was in hand has ended and is logged."""
        self._close_listener()
        await asyncio.sleep(0)  # connections are lost on the loop's next round
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks)

    async def _close(self) -> None:
        await self._break_off()
        while self._connections:  # one may have been accepted in the very last moment
            await self._break_off()

    # A request --------------------------------------------------------------------------------------------------------

    async def _serve(self, connection: Connection, received: Received) -> None:
        speaks = PROTOCOLS.get(received.path)
        if received.method == "GET" and received.path == "/stats":
            await connection.write(response(self.stats()))
        elif speaks is None or received.method != "POST":
            known = ", ".join(f"POST {path}" for path in PROTOCOLS)
            words = f"{received.method} {received.path} is not served here; served are: {known}, GET /stats"
            await connection.write(response({"error": {"message": words}}, status=404))
        else:
            await self._answer(connection, received, speaks)

    async def _answer(self, connection: Connection, received: Received, speaks: Speaks) -> None:
        try:
            body = json.loads(received.body)
            asked = speaks.read(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            words = f"this is no request of {speaks.name}: {error!r}"
            await connection.write(response(speaks.error(400, words, None), status=400))
            return
        request = self._begin(received, speaks, body, asked)
        await self._play(Exchange(request, speaks, connection, self._let_go))

    async def _play(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            behaviour = self._behaviour(request)
            request.behaviour = type(behaviour).__name__
            if behaviour.delay:
                await asyncio.sleep(behaviour.delay)
            await behaviour.play(exchange)
        except asyncio.CancelledError:
            self._end(request, "cut" if self._listener is None else "gone")
            raise
        except BaseException:
            self._end(request, "cut")
            raise
        self._end(request, "answered")

    def _behaviour(self, request: Request) -> Behaviour:
        if callable(self._script):
            return self._script(request) or self.default
        return next(self._steps, self.default)

    def _begin(self, received: Received, speaks: Speaks, body: Json, asked: Asked) -> Request:
        with self._news:
            self.count += 1
            self.at_once += 1
            self.peak_at_once = max(self.peak_at_once, self.at_once)
            request = Request(
                self.count, time.time(), time.monotonic(), speaks.name, received.headers, body, asked, self.at_once
            )
            if self.keep_requests:
                self.requests.append(request)
            self._news.notify_all()
        return request

    def _end(self, request: Request, outcome: Any) -> None:  # noqa: ANN401 - a Literal, as a string
        request.ended = time.monotonic()
        if request.outcome == "pending":
            request.outcome = outcome
        self.at_once -= 1
        self.tokens += request.tokens.total


def _repeated(script: Iterable[Behaviour]) -> Iterator[Behaviour]:
    for behaviour in script:
        for _ in range(behaviour.times):
            yield behaviour


def _bound(port: int) -> socket.socket:
    """Two may be bound to one port, so that one can keep it while the other goes and comes."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((HOST, port))
    return bound
