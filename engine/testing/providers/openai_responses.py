"""OpenAI's POST /v1/responses, which `openai:...` means to pydantic-ai."""

from __future__ import annotations

import time
from typing import Any

from engine.testing.providers.openai_chat import error_of
from engine.testing.providers.protocol import Asked, Content, Json, Tokens, Tool


class OpenAIResponses:
    """OpenAI's Responses API."""

    name = "openai-responses"
    id_header = "x-request-id"
    last_event = ""

    def read(self, body: Json) -> Asked:
        given = body["input"]
        messages: list[Any] = [{"role": "user", "content": given}] if isinstance(given, str) else given
        if instructions := body.get("instructions"):
            messages = [{"role": "system", "content": instructions}, *messages]
        choice = body.get("tool_choice")
        shape = (body.get("text") or {}).get("format") or {}
        return Asked(
            model=body["model"],
            messages=messages,
            tools=tuple(
                Tool(tool["name"], tool.get("parameters") or {})
                for tool in body.get("tools") or ()
                if tool.get("type") == "function"
            ),
            forced=choice.get("name") if isinstance(choice, dict) else None,
            required=choice == "required",
            schema=shape.get("schema"),
            called=tuple(each["name"] for each in messages if each.get("type") == "function_call"),
            stream=bool(body.get("stream")),
        )

    def answer(self, asked: Asked, content: Content, tokens: Tokens, number: int) -> Json:
        stopped = content.end == "content_filter"
        return {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "incomplete" if stopped else "completed",
            "error": None,
            "incomplete_details": {"reason": "content_filter"} if stopped else None,
            "instructions": None,
            "metadata": {},
            "model": asked.model,
            "output": [] if stopped else _output(content, number),
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": {
                "input_tokens": tokens.input,
                "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
                "output_tokens": tokens.output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tokens.total,
            },
        }

    def empty(self, answer: Json) -> Json:
        return {**answer, "output": []}

    def doubled(self, answer: Json, other: Json) -> Json:
        return {**answer, "output": [*answer["output"], *other["output"]]}

    def events(self, answer: Json) -> list[Json]:
        begun = {**answer, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        events: list[Json] = [{"type": "response.created", "response": begun}]
        for place, item in enumerate(answer["output"]):
            events += _item_events(item, place)
        events.append({"type": f"response.{answer['status']}", "response": answer})
        return [{**event, "sequence_number": number} for number, event in enumerate(events)]

    def error(self, status: int, message: str, kind: str | None) -> Json:
        return error_of(status, message, kind)


def _output(content: Content, number: int) -> list[Json]:
    items: list[Json] = [
        {
            "type": "function_call",
            "id": f"fc_{number}_{place}",
            "call_id": f"call_{number}_{place}",
            "name": call.name,
            "arguments": call.text,
            "status": "completed",
        }
        for place, call in enumerate(content.calls)
    ]
    if content.text is None:
        return items
    if content.end == "refusal":
        said: Json = {"type": "refusal", "refusal": content.text}
    else:
        said = {"type": "output_text", "text": content.text, "annotations": []}
    message = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [said]}
    return [message, *items]


def _item_events(item: Json, place: int) -> list[Json]:
    where = {"item_id": item["id"], "output_index": place}
    if item["type"] == "function_call":
        begun = {**item, "arguments": "", "status": "in_progress"}
        said = [
            {"type": "response.function_call_arguments.delta", **where, "delta": item["arguments"]},
            {"type": "response.function_call_arguments.done", **where, **_some(item, "name", "arguments")},
        ]
    else:
        begun = {**item, "content": [], "status": "in_progress"}
        said = _part_events(item["content"][0], {**where, "content_index": 0})
    added = {"type": "response.output_item.added", "output_index": place, "item": begun}
    return [added, *said, {"type": "response.output_item.done", "output_index": place, "item": item}]


def _part_events(part: Json, where: Json) -> list[Json]:
    kind = part["type"]  # output_text or refusal
    field = "refusal" if kind == "refusal" else "text"
    more: Json = {} if kind == "refusal" else {"logprobs": []}
    return [
        {"type": "response.content_part.added", **where, "part": {**part, field: ""}},
        {"type": f"response.{kind}.delta", **where, "delta": part[field], **more},
        {"type": f"response.{kind}.done", **where, field: part[field], **more},
        {"type": "response.content_part.done", **where, "part": part},
    ]


def _some(item: Json, *names: str) -> Json:
    return {name: item[name] for name in names}
