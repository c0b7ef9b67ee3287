"""Content on spans: what came in an event, what a step, a model or a tool gave back.

A record has it only where its workflow asks for that, and never with what is marked `Secret`: the fold sees to it.
What a model said is written as the GenAI conventions want it; their source is JSON schema `gen_ai.output.messages`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from observability import names

if TYPE_CHECKING:
    from engine.core.record import Record
    from observability.span import Attributes

_FINISHED: Final = {"tool_call": "tool_call", "content_filter": "content_filter", "length": "length", "error": "error"}


def of_event(record: Record) -> Attributes:
    """An event's data."""
    return _content(names.EVENT_DATA, record)


def of_result(record: Record) -> Attributes:
    """What a step gave, or a part of it."""
    return _content(names.CONTENT, record)


def of_tool(record: Record) -> Attributes:
    """What a tool gave back."""
    return _content(names.TOOL_RESULT, record)


def of_model(record: Record) -> Attributes:
    """What a model said."""
    if not record.content:
        return ()
    try:
        said = json.loads(bytes(record.content))["response"]
        message = {
            "role": "assistant",
            "parts": [_part(part) for part in said["parts"]],
            "finish_reason": _FINISHED.get(str(said.get("finish_reason")), "stop"),
        }
        written = json.dumps([message], ensure_ascii=False, separators=(",", ":"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _content(names.OUTPUT_MESSAGES, record)
    return ((names.OUTPUT_MESSAGES, written),)


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """A part of pydantic-ai's `ModelResponse`, in the words of the conventions."""
    kind = part.get("part_kind")
    if kind == "text":
        return {"type": "text", "content": part["content"]}
    if kind == "thinking":
        return {"type": "reasoning", "content": part["content"]}
    if kind == "tool-call":
        return {
            "type": "tool_call",
            "id": part.get("tool_call_id"),
            "name": part["tool_name"],
            "arguments": part.get("args"),
        }
    return {"type": str(kind), **part}


def _content(name: str, record: Record) -> Attributes:
    if not record.content:
        return ()
    return ((name, bytes(record.content).decode(errors="replace")),)
