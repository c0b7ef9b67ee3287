"""What a step gives, as a model is asked for it and as it is read from an answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.tools import ToolDefinition

from engine.core.steps import Step
from engine.llm.model import Output
from engine.llm.tools import Arguments, problems

OUTPUT_TOOL: Final = "final_result"
TEXT: Final = "text"


class Wrong(ValueError):
    """An answer that is not what the step gives; the words are for the model."""


@dataclass(frozen=True)
class Answer:
    """What a model gave at last."""

    value: Any


class OutputForm:
    """How the answer of one step looks. A `str` is the model's text; all else is JSON of a schema."""

    def __init__(self, step: Step[Any, Any]) -> None:
        self.is_text = step.gives is str
        self.name = step.name
        self._write = step.write_output
        self._form = Arguments(step.output_type)

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer, as an object."""
        return self._form.schema

    def parameters(self, mode: Output, tools: list[ToolDefinition]) -> ModelRequestParameters:
        """What a request says of tools and answer."""
        if self.is_text:
            return ModelRequestParameters(function_tools=tools, output_mode=TEXT)
        if mode == "native":
            schema = OutputObjectDefinition(json_schema=self._form.schema, name=self.name)
            return ModelRequestParameters(function_tools=tools, output_mode="native", output_object=schema)
        taker = ToolDefinition(
            name=OUTPUT_TOOL,
            description="Gives the final answer and ends the work.",
            parameters_json_schema=self._form.schema,
            kind="output",
        )
        return ModelRequestParameters(
            function_tools=tools, output_mode="tool", output_tools=[taker], allow_text_output=False
        )

    def read_text(self, text: str) -> Any:  # noqa: ANN401 - the output's type
        """The answer in a text.

        Raises:
            Wrong: there is none.
        """
        if not text.strip():
            raise Wrong("There is no answer.")
        return text if self.is_text else self._read(text, "The answer is not what is wanted")

    def read_call(self, call: ToolCallPart) -> Any:  # noqa: ANN401 - the output's type
        """The answer in a call of the tool that takes it.

        Raises:
            Wrong: it does not fit.
        """
        return self._read(call.args_as_json_str(), "The arguments are not what is wanted")

    def example(self, value: object, mode: Output) -> list[ModelResponse | ModelRequest]:
        """An answer as this model would have given it."""
        if self.is_text:
            return [ModelResponse(parts=[TextPart(content=str(value))])]
        # With blanks between the parts, as models write JSON: without them a small one gives the same answer to all.
        plain = json.loads(self._write(value))
        if mode != "tool":
            return [ModelResponse(parts=[TextPart(content=json.dumps(self._form.wrapped(plain)))])]
        call = ToolCallPart(OUTPUT_TOOL, self._form.wrapped(plain), tool_call_id="example")
        taken = ToolReturnPart(OUTPUT_TOOL, "Taken.", tool_call_id="example")
        return [ModelResponse(parts=[call]), ModelRequest(parts=[taken])]

    def _read(self, raw: str, words: str) -> Any:  # noqa: ANN401 - the output's type
        try:
            return self._form.read(raw)
        except ValidationError as error:
            raise Wrong(f"{words}:\n{problems(error)}") from None
