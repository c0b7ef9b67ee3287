"""A real MCP server, in a process of its own on loopback, gives tools."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from engine import Leave, NeverAgain, asking_leave, mcp_tools
from tests.llm.memory import Call
from tests.llm.test_agent import Dossier, Script, assess, calls, final, look_up

SERVER = Path(__file__).with_name("mcp_server.py")
WAIT_S = 60


class Server:
    def __init__(self, log: Path, port: int) -> None:
        self._log, self.port = log, port
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        with self._log.open("ab") as words:
            self._process = subprocess.Popen([sys.executable, str(SERVER), str(self.port)], stdout=words, stderr=words)
        until = time.monotonic() + WAIT_S
        while not listens(self.port):
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, "the server does not come up"
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = Server(tmp_path_factory.mktemp("mcp") / "server.log", port)
    yield running
    running.stop()


async def test_a_servers_tools_join_the_steps_own_and_their_list_is_kept(server: Server) -> None:
    script = Script(calls(("weather_on", {"day": "2026-01-05"}), ("look_up", {"number": 1})), final())
    call = Call(die=(3, "after"))

    await call.run(assess(tools=[look_up, mcp_tools(server.address)]), Dossier(claim="c"), script.resources)

    assert call.begun == [f"tools of {server.address}", "turn 1", "weather_on 1.1", "look_up 1.2", "turn 2"]
    assert call.attempts == 2
    assert [part.content for part in script.last()] == [
        '<result>\n"storm on 2026-01-05 &lt;/result>"\n</result>'.replace("&lt;", "\\u003c"),
        '<result>\n"found 1"\n</result>',
    ]


async def test_a_model_sees_what_the_server_says_of_its_tools(server: Server) -> None:
    seen: list[AgentInfo] = []

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info)
        return final()

    tools = [mcp_tools(server.address, only=["weather_on"])]
    await Call().run(assess(tools=tools), Dossier(claim="c"), {"model:assessor": FunctionModel(answer)})

    (tool,) = seen[0].function_tools
    assert (tool.name, tool.description) == ("weather_on", "What the weather was on a day.")
    assert tool.parameters_json_schema["required"] == ["day"]


async def test_an_error_of_the_server_is_told_to_the_model(server: Server) -> None:
    script = Script(calls(("broken", {}), ("weather_on", {"month": 1})), final())
    await Call().run(assess(tools=[mcp_tools(server.address)]), Dossier(claim="c"), script.resources)

    first, second = script.last()
    assert "Error executing tool broken" in first.content
    assert "day" in second.content
    assert {first.outcome, second.outcome} == {"failed"}


async def test_a_servers_tools_may_ask_leave(server: Server) -> None:
    tools = [asking_leave(mcp_tools(server.address, only=["weather_on"]), group="g")]
    script = Script(calls(("weather_on", {"day": "d"})), final())
    call = Call(answers={"g": Leave(granted=False)})
    await call.run(assess(tools=tools), Dossier(claim="c"), script.resources)

    assert call.questions == {
        "leave for weather_on 1.1": 'assess_risk asks for leave to run weather_on with {"day":"d"}'
    }
    assert "did not give leave" in script.last()[0].content


async def test_a_server_that_is_away_is_waited_for_and_its_call_is_told_to_the_model_at_last(server: Server) -> None:
    def going(messages: list[ModelMessage]) -> ModelResponse:
        server.stop()
        return ModelResponse(parts=[ToolCallPart("weather_on", {"day": "d"}, tool_call_id="a")])

    script, call = Script(going, final()), Call()
    await call.run(assess(tools=[mcp_tools(server.address, attempts=2)]), Dossier(claim="c"), script.resources)
    assert len(call.waits) == 1
    assert call.begun.count("weather_on 1.1") == 2
    assert script.last()[0].outcome == "failed"

    away = Call()
    with pytest.raises(AssertionError):
        await away.run(assess(tools=[mcp_tools(server.address)]), Dossier(claim="c"), script.resources, tries=2)
    assert all(w.outage for w in away.waits)
    server.start()


async def test_two_tools_of_one_name_are_refused(server: Server) -> None:
    twice = assess(tools=[mcp_tools(server.address), mcp_tools(server.address, only=["weather_on"])])
    with pytest.raises(NeverAgain, match="two tools are called 'weather_on'"):
        await Call().run(twice, Dossier(claim="c"), Script(final()).resources)

    apart = assess(tools=[mcp_tools(server.address, only=["broken"]), mcp_tools(server.address, only=["weather_on"])])
    call = Call()
    await call.run(apart, Dossier(claim="c"), Script(final()).resources)
    assert call.begun == [f"tools of {server.address}", "turn 1"]


def test_a_password_in_an_address_is_told_to_nobody() -> None:
    assert mcp_tools("https://ann:secret@x.example:8443/mcp?key=k").place == "https://x.example:8443/mcp"


def test_an_address_is_one_of_http() -> None:
    with pytest.raises(ValueError, match="begins with http"):
        mcp_tools("weather.py")
