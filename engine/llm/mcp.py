"""Tools of an MCP server, joined by its address. The clients come with the extra `longwatch[model]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.core.steps import TryAgain

if TYPE_CHECKING:
    from mcp.types import CallToolResult


@dataclass(frozen=True)
class McpTools:
    """What an MCP server offers, or some of it."""

    address: str
    only: tuple[str, ...] = ()
    timeout: timedelta = timedelta(seconds=30)
    """Of one call."""
    attempts: int = 3
    """Of one call, while the server cannot be reached; then the model is told so."""

    @property
    def place(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    async def listed(self) -> list[dict[str, Any]]:
        """Name, description and schema of each tool of the server, in the order of their names.

        Raises:
            TryAgain: the server is not there.
        """
        from fastmcp.client import Client  # noqa: PLC0415 - an extra

        try:
            async with Client(self.address, timeout=self.timeout) as client:
                found = await client.list_tools()
        except Exception as error:
            message = f"the MCP server at {self.place} does not say its tools: {type(error).__name__}"
            raise TryAgain(message, outage=True) from error
        tools = [{"name": t.name, "description": t.description or "", "schema": t.input_schema} for t in found]
        return sorted(tools, key=lambda tool: tool["name"])

    def offers(self, name: str) -> bool:
        """Whether a tool of the server is one of these."""
        return not self.only or name in self.only

    async def call(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """What a tool answers, as text, and whether it is an error in the server's eyes."""
        from fastmcp.client import Client  # noqa: PLC0415 - an extra

        async with Client(self.address, timeout=self.timeout) as client:
            answer = await client.call_tool_mcp(name, arguments)
        return _text(answer), bool(answer.is_error)


def mcp_tools(
    address: str, *, only: Sequence[str] = (), timeout: timedelta = timedelta(seconds=30), attempts: int = 3
) -> McpTools:
    """The tools of the MCP server at `address`, such as `http://127.0.0.1:8000/mcp`; `only`: those of these names.

    Which tools there are is asked once a call of the step and kept: every attempt of the call sees the same.
    """
    if not address.startswith(("http://", "https://")):
        message = f"mcp_tools({address!r}): the address of a server begins with http:// or https://"
        raise ValueError(message)
    return McpTools(address, tuple(only), timeout, attempts)


def _text(answer: CallToolResult) -> str:
    """All that the answer says in words; of anything else its kind."""
    parts = [str(getattr(part, "text", None) or f"[{part.type}]") for part in answer.content]
    return "\n".join(parts)
