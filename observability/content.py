"""Content on spans: what came in an event, what a step, a model or a tool gave back.

A record has it only where its workflow asks for that, and never with what is marked `Secret`: the fold sees to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from observability import names

if TYPE_CHECKING:
    from engine.core.record import Record
    from observability.span import Attributes


def of_event(record: Record) -> Attributes:
    """An event's data."""
    return _content(names.EVENT_DATA, record)


def of_result(record: Record) -> Attributes:
    """What a step gave, or a part of it."""
    return _content(names.CONTENT, record)


def of_model(record: Record) -> Attributes:
    """What a model said."""
    return _content(names.OUTPUT_MESSAGES, record)


def of_tool(record: Record) -> Attributes:
    """What a tool gave back."""
    return _content(names.TOOL_RESULT, record)


def _content(name: str, record: Record) -> Attributes:
    if not record.content:
        return ()
    return ((name, bytes(record.content).decode(errors="replace")),)
