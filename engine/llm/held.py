"""One answer at a time, held to a schema: how a model is asked that knows no tool calling. Needs `longwatch[model]`.

A very small model follows the examples that it has just read, and little else. So it is asked for one JSON object, to
which its server holds it while it writes: `{"tool": NAME, ...arguments}` of a tool that it has not called yet, or the
final answer. In the first turn there are only tools: it looks something up before it answers. What it has looked up
stands first, examples and question behind that as ever, since so such a model follows them best.

What is kept of a turn is as of any other model: calls of tools, and texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from engine.llm.output import OUTPUT_TOOL, OutputForm
from engine.llm.prompt import DATA_IS_DATA, ERROR, INPUT, RESULT

Schema = dict[str, Any]

NOTED: Final = "Noted."
"""What the model has said to what it looked up."""
TEXT: Final = "answer"
"""The field of a final answer that is text."""
_MARKED: Final = re.compile(rf"<({RESULT}|{ERROR})>\n(.*)\n</\1>", re.DOTALL)
_REFERENCE: Final = "#/$defs/"


class Held:
    """One turn of such a model."""

    def __init__(self, messages: Sequence[ModelMessage], tools: Sequence[ToolDefinition], form: OutputForm) -> None:
        self._form = form
        self._messages = messages
        self._found = [part for message in messages for part in _returned(message) if part.tool_name != OUTPUT_TOOL]
        called = {part.tool_name for part in self._found}
        self._tools = [tool for tool in tools if tool.name not in called]
        self._has_tools = bool(tools)
        self._mark = _free_name("tool", [*(t.parameters_json_schema for t in tools), form.schema])

    def messages(self) -> list[ModelMessage]:
        """The talk so far, as it is told to the model."""
        rest = [told for message in self._messages if (told := self._told(message)) is not None]
        instructions = self._instructions(rest)
        said: list[ModelMessage] = []
        for part in self._found:
            words = f"{part.tool_name}: {_quoted(str(part.content))}"
            said += [ModelRequest(parts=[UserPromptPart(words)]), ModelResponse(parts=[TextPart(NOTED)])]
        return [_with(instructions, message) for message in (*said, *rest)]

    def parameters(self) -> ModelRequestParameters:
        """What it may answer: no tools, but one object of a schema."""
        held = OutputObjectDefinition(json_schema=self.schema, name=self._form.name)
        return ModelRequestParameters(output_mode="native", output_object=held)

    @property
    def schema(self) -> Schema:
        """Of a tool's call or the final answer."""
        options = [_in_its_room(self._call(tool), tool.name) for tool in self._tools]
        if self._found or not self._has_tools:
            options.append(_in_its_room(self._final, self._form.name))
        definitions = {name: each for option in options for name, each in option.pop("$defs", {}).items()}
        schema = {"anyOf": options} if len(options) > 1 else options[0]
        return schema | ({"$defs": definitions} if definitions else {})

    def read(self, response: ModelResponse) -> ModelResponse:
        """An answer with its call of a tool as one; what is no JSON stays as it is, and is judged by others."""
        return replace(response, parts=[self._read(part) for part in response.parts])

    def _read(self, part: ModelResponsePart) -> ModelResponsePart:
        said = _object(part.content) if isinstance(part, TextPart) else None
        if said is None:
            return part
        if isinstance(name := said.pop(self._mark, None), str):
            return ToolCallPart(name, said, tool_call_id=f"held_{len(self._found) + 1}")
        if self._form.is_text and isinstance(text := said.get(TEXT), str):
            return TextPart(text)
        return part

    def _call(self, tool: ToolDefinition) -> Schema:
        schema = tool.parameters_json_schema
        properties = {self._mark: {"const": tool.name}, **schema.get("properties", {})}
        required = [self._mark, *schema.get("required", [])]
        return {**schema, "type": "object", "properties": properties, "required": required}

    @property
    def _final(self) -> Schema:
        if not self._form.is_text:
            return self._form.schema
        return {"type": "object", "properties": {TEXT: {"type": "string"}}, "required": [TEXT]}

    def _told(self, message: ModelMessage) -> ModelMessage | None:
        """A message without calls of tools and what came of them; None: nothing is left."""
        if isinstance(message, ModelResponse):
            texts = [TextPart(text) for part in message.parts for text in self._text(part)]
            return ModelResponse(parts=texts) if texts else None
        parts = [part for part in message.parts if not isinstance(part, ToolReturnPart)]
        refused = [p for p in _returned(message) if p.tool_name == OUTPUT_TOOL and p.outcome == "failed"]
        parts += [UserPromptPart(str(part.content)) for part in refused]
        return replace(message, parts=parts) if parts else None

    def _text(self, part: ModelResponsePart) -> Iterator[str]:
        """What the model said, in the form in which it is held to say it."""
        if isinstance(part, TextPart):
            yield json.dumps({TEXT: part.content}) if self._form.is_text else part.content
        elif isinstance(part, ToolCallPart) and part.tool_name == OUTPUT_TOOL:
            yield json.dumps(part.args_as_dict())

    def _instructions(self, messages: Sequence[ModelMessage]) -> str | None:
        """Without words on marks that nothing here has: a small model would only be led away by them."""
        told = [m for m in messages if isinstance(m, ModelRequest)]
        has_marks = any(
            f"<{INPUT}>" in str(part.content) for m in told for part in m.parts if isinstance(part, UserPromptPart)
        )
        instructions = told[-1].instructions if told else None
        return instructions if has_marks or not instructions else instructions.removesuffix(f"\n\n{DATA_IS_DATA}")


def _returned(message: ModelMessage) -> Iterator[ToolReturnPart]:
    return (part for part in message.parts if isinstance(part, ToolReturnPart))


def _with(instructions: str | None, message: ModelMessage) -> ModelMessage:
    return replace(message, instructions=instructions) if isinstance(message, ModelRequest) else message


def _quoted(content: str) -> str:
    """What a tool said as JSON in one line: data that cannot end its quotation marks."""
    found = _MARKED.fullmatch(content)
    if found is not None and found[1] == RESULT:
        return found[2]
    return json.dumps(content if found is None else found[2], ensure_ascii=False)


def _object(text: str) -> dict[str, Any] | None:
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _free_name(name: str, schemas: Sequence[Schema]) -> str:
    """One that no field of these has."""
    while any(name in schema.get("properties", {}) for schema in schemas):
        name += "_"
    return name


def _in_its_room(schema: Schema, room: str) -> Schema:
    """A schema whose definitions bear names that no other's do."""
    named: Schema = _renamed({key: value for key, value in schema.items() if key != "$defs"}, room)
    definitions = {f"{room}.{name}": _renamed(each, room) for name, each in schema.get("$defs", {}).items()}
    return named | ({"$defs": definitions} if definitions else {})


def _renamed(value: Any, room: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, list):
        return [_renamed(each, room) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: f"{_REFERENCE}{room}.{each.removeprefix(_REFERENCE)}" if key == "$ref" else _renamed(each, room)
        for key, each in value.items()
    }
