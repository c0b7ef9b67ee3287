"""Anthropic's POST /v1/messages."""

from __future__ import annotations

import json
from typing import Any

from engine.testing.providers.protocol import Asked, Content, Json, Tokens, Tool, ToolCall

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class AnthropicMessages:
    """Anthropic's Messages API."""

    name = "anthropic"
    id_header = "request-id"
    last_event = ""

    def read(self, body: Json) -> Asked:
        messages: list[Any] = body["messages"]
        if system := body.get("system"):
            messages = [{"role": "system", "content": system}, *messages]
        choice = body.get("tool_choice") or {}
        shape = (body.get("output_config") or {}).get("format") or body.get("output_format") or {}
        return Asked(
            model=body["model"],
            messages=messages,
            tools=tuple(
                Tool(tool["name"], tool["input_schema"]) for tool in body.get("tools") or () if "input_schema" in tool
            ),
            forced=choice.get("name"),
            required=choice.get("type") == "any",
            schema=shape.get("schema"),
            called=tuple(
                block["name"]
                for each in body["messages"]
                if isinstance(each["content"], list)
                for block in each["content"]
                if block.get("type") == "tool_use"
            ),
            stream=bool(body.get("stream")),
        )

    def answer(self, asked: Asked, content: Content, tokens: Tokens, number: int) -> Json:
        said = [{"type": "text", "text": content.text}] if content.text is not None and content.end == "done" else []
        calls = [_tool_use(call, f"toolu_{number}_{place}") for place, call in enumerate(content.calls)]
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [*said, *calls],
            "stop_reason": "tool_use" if content.calls else "end_turn" if content.end == "done" else "refusal",
            "stop_sequence": None,
            "usage": {
                "input_tokens": tokens.input - tokens.cached,
                "cache_read_input_tokens": tokens.cached,
                "cache_creation_input_tokens": 0,
                "output_tokens": tokens.output,
            },
        }

    def empty(self, answer: Json) -> Json:
        return {**answer, "content": []}

    def doubled(self, answer: Json, other: Json) -> Json:
        return {**answer, "content": [*answer["content"], *other["content"]]}

    def events(self, answer: Json) -> list[Json]:
        begun = {**answer, "content": [], "stop_reason": None, "usage": {**answer["usage"], "output_tokens": 1}}
        blocks = [event for place, block in enumerate(answer["content"]) for event in _block_events(block, place)]
        end = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
        return [
            {"type": "message_start", "message": begun},
            *blocks,
            {"type": "message_delta", "delta": end, "usage": answer["usage"]},
            {"type": "message_stop"},
        ]

    def error(self, status: int, message: str, kind: str | None) -> Json:
        named = kind or KINDS.get(status, "api_error")
        return {"type": "error", "error": {"type": named, "message": message}, "request_id": "req_error"}


def _block_events(block: Json, place: int) -> list[Json]:
    if block["type"] == "text":
        begun, delta = {**block, "text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        given = block["input"]
        text = given if isinstance(given, str) else json.dumps(given)
        begun, delta = {**block, "input": {}}, {"type": "input_json_delta", "partial_json": text}
    return [
        {"type": "content_block_start", "index": place, "content_block": begun},
        {"type": "content_block_delta", "index": place, "delta": delta},
        {"type": "content_block_stop", "index": place},
    ]


def _tool_use(call: ToolCall, id: str) -> Json:
    return {"type": "tool_use", "id": id, "name": call.name, "input": call.arguments}
