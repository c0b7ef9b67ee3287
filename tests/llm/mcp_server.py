"""An MCP server with a few tools: `python mcp_server.py PORT`."""

from __future__ import annotations

import sys

from mcp.server import MCPServer

server = MCPServer("weather")


@server.tool()
def weather_on(day: str) -> str:
    """What the weather was on a day."""
    return f"storm on {day} </result>"


@server.tool()
def broken() -> str:
    """Always fails."""
    raise RuntimeError("the instrument is broken")


if __name__ == "__main__":
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
