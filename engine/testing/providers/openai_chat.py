"""OpenAI's POST /v1/chat/completions, which most other providers and local servers speak too."""

from __future__ import annotations

import time
from typing import Any

from engine.testing.providers.protocol import Asked, Content, Json, Tokens, Tool

KINDS = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    429: "requests",
}
CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}


def error_of(status: int, message: str, kind: str | None) -> Json:
    code = kind or CODES.get(status)
    return {"error": {"message": message, "type": KINDS.get(status, "server_error"), "param": None, "code": code}}


class OpenAIChat:
    """OpenAI's Chat Completions API."""

    name = "openai-chat"
    id_header = "x-request-id"
    last_event = "data: [DONE]\n\n"

    def read(self, body: Json) -> Asked:
        messages: list[Any] = body["messages"]
        functions = [tool["function"] for tool in body.get("tools") or () if tool.get("type") == "function"]
        choice = body.get("tool_choice")
        shape = body.get("response_format") or {}
        return Asked(
            model=body["model"],
            messages=messages,
            tools=tuple(Tool(each["name"], each.get("parameters") or {}) for each in functions),
            forced=choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else None,
            required=choice == "required",
            schema=shape["json_schema"].get("schema") if shape.get("type") == "json_schema" else None,
            called=tuple(call["function"]["name"] for each in messages for call in each.get("tool_calls") or ()),
            stream=bool(body.get("stream")),
        )

    def answer(self, asked: Asked, content: Content, tokens: Tokens, number: int) -> Json:
        refusal = content.text if content.end == "refusal" else None
        message: Json = {
            "role": "assistant",
            "content": content.text if content.end == "done" else None,
            "refusal": refusal,
        }
        if content.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{number}_{place}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.text},
                }
                for place, call in enumerate(content.calls)
            ]
        end = "content_filter" if content.end == "content_filter" else "tool_calls" if content.calls else "stop"
        return {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked.model,
            "choices": [{"index": 0, "finish_reason": end, "logprobs": None, "message": message}],
            "usage": {
                "prompt_tokens": tokens.input,
                "completion_tokens": tokens.output,
                "total_tokens": tokens.total,
                "prompt_tokens_details": {"cached_tokens": tokens.cached},
            },
        }

    def empty(self, answer: Json) -> Json:
        return {**answer, "choices": []}

    def doubled(self, answer: Json, other: Json) -> Json:
        second = {**other["choices"][0], "index": 1}
        return {**answer, "choices": [*answer["choices"], second]}

    def events(self, answer: Json) -> list[Json]:
        shared = {**answer, "object": "chat.completion.chunk"}
        usage = shared.pop("usage")
        said = [_delta(choice) for choice in answer["choices"]]
        ends = [{**choice, "delta": {}} for choice in said]
        begun = [{**choice, "finish_reason": None} for choice in said]
        return [{**shared, "choices": begun}, {**shared, "choices": ends}, {**shared, "choices": [], "usage": usage}]

    def error(self, status: int, message: str, kind: str | None) -> Json:
        return error_of(status, message, kind)


def _delta(choice: Json) -> Json:
    """A choice as a stream has it: its message is a difference to nothing, its tool calls are numbered."""
    message = {**choice["message"]}
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{**call, "index": place} for place, call in enumerate(calls)]
    rest = {key: value for key, value in choice.items() if key != "message"}
    return {**rest, "delta": message}
