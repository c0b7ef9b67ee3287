"""What of a library's span may stand in a record: within bounds, readable, without secrets and without content."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, quote_plus

from engine.core.secret import WORD
from engine.llm.scrubbing import scrubbed
from observability.inner_span import Value

MOST: Final = 32
LONGEST: Final = 1_000
"""Characters of a value; a longer one ends in the mark."""
LONGEST_KEY: Final = 100
MOST_IN_A_LIST: Final = 16
MARK: Final = "...[cut]"
_LARGEST: Final = (1 << 63) - 1
_TELLING: Final = frozenset("=:@ ")
"""A text without any of these is a word, and hides nothing that could be found."""

CHATS: Final = frozenset({"chat", "generate_content", "text_completion"})
"""`gen_ai.operation.name` of a request to a model."""
CONTENT: Final = frozenset(
    {
        "all_messages_events",
        "events",
        "final_result",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.system_instructions",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "gen_ai.tool.definitions",
        "input.value",
        "output.value",
        "pydantic_ai.all_messages",
        "tool_arguments",
        "tool_response",
        "traceloop.entity.input",
        "traceloop.entity.output",
    }
)
"""What is said to models and tools, and by them: GenAI's conventions, pydantic-ai, OpenInference, OpenLLMetry."""
CONTENT_PREFIXES: Final = (
    "gen_ai.completion",
    "gen_ai.prompt",
    "llm.completions",
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompts",
)


def is_chat(attributes: Mapping[str, Any] | None) -> bool:
    """Whether a span is a request to a model."""
    return attributes is not None and attributes.get("gen_ai.operation.name") in CHATS


def forms_of(secrets: Collection[str]) -> tuple[str, ...]:
    """These texts as they are, in addresses, and in JSON; the longest first."""
    found = {form for text in secrets for form in (text, quote(text), quote_plus(text), json.dumps(text)[1:-1])}
    return tuple(sorted(found, key=len, reverse=True))


def attributes_of(attributes: Mapping[str, Any], *, content: bool, secrets: Sequence[str] = ()) -> dict[str, Value]:
    """The attributes that are recorded."""
    found: dict[str, Value] = {}
    for key, value in attributes.items():
        if len(found) == MOST:
            break
        if content or not _is_content(key):
            found[clean(key, LONGEST_KEY, secrets)] = _value(value, secrets)
    return found


def clean(text: str, most: int = LONGEST, secrets: Sequence[str] = ()) -> str:
    """Text that can be written as UTF-8, cut, and without what is a secret or looks like one."""
    text = str(text)
    for secret in secrets:
        text = text.replace(secret, WORD)
    if len(text) > most:
        text = text[: most - len(MARK)] + MARK
    if not text.isascii():
        text = text.encode(errors="backslashreplace").decode()
    return _scrubbed(text) if _TELLING & set(text) else text


@lru_cache(maxsize=512)
def _scrubbed(text: str) -> str:
    """The same addresses come again and again."""
    return scrubbed(text)


def _is_content(key: str) -> bool:
    return key in CONTENT or key.startswith(CONTENT_PREFIXES)


def _value(value: object, secrets: Sequence[str]) -> Value:
    if isinstance(value, bytes):
        return clean(value.decode(errors="backslashreplace"), secrets=secrets)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _list(value, secrets)
    return _plain(value, secrets)


def _list(values: Sequence[object], secrets: Sequence[str]) -> Value:
    found: list[Any] = [_plain(value, secrets) for value in values[:MOST_IN_A_LIST]]
    if len({type(value) for value in found}) > 1:
        found = [str(value) for value in found]
    return found


def _plain(value: object, secrets: Sequence[str]) -> str | bool | int | float:
    """What is of no other type, or cannot be sent as what it is, becomes text."""
    match value:
        case bool():
            return value
        case int() if -_LARGEST <= value <= _LARGEST:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case _:
            return clean(str(value), secrets=secrets)
