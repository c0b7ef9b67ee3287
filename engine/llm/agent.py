"""The loop of an `llm_step`: ask the model, run the tools that it calls, until it gives the answer.

Needs the extra `longwatch[model]`. pydantic-ai's models speak the providers' protocols; the loop is here, since every
turn and every tool's call goes through `once` of the runner under a name that is the same in every attempt
(`turn 3`, `order_survey 3.1`), one after the other: an attempt that begins again walks through what is kept and goes on
where the last one ended. Nothing of what is said is traced from here: what happened is in the record.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from engine.core.entry import Used
from engine.core.steps import A, Answered, Leave, NeverAgain, Runner, StepContext
from engine.llm.asking import Asking, Question, candidates_of, read_turn, used_of
from engine.llm.bounds import Tally
from engine.llm.output import OUTPUT_TOOL, Answer, OutputForm, Wrong
from engine.llm.prompt import DATA_IS_DATA, INPUT, cut, delimited_json, error, result
from engine.llm.step import Thinking
from engine.llm.toolbox import Calling, Runnable, WrongArguments, toolbox

T = TypeVar("T")

CHARACTERS_A_TOKEN: Final = 4
"""No tokenizer's number: an estimate for what must be known before a provider has counted."""
NOT_USED: Final = "Your answer cannot be used. Answer again, in the form that is wanted."
LONGEST_QUESTION: Final = 1_000
"""Characters of a tool's arguments that a person is shown who is asked for leave."""


class InvalidAnswer(NeverAgain):
    """A model was told again and again what is wanted, and did not give it."""


async def converse(thinking: Thinking, asked: Any, context: StepContext) -> Any:  # noqa: ANN401 - the step's types
    """One attempt of the step: its answer.

    Raises:
        TryAgain, NeverAgain, StepHalts: what becomes of the call, see `engine.llm.errors` and `engine.llm.bounds`.
    """
    return await _Conversation(thinking, asked, context).held()


class _Conversation:
    def __init__(self, thinking: Thinking, asked: Any, context: StepContext) -> None:  # noqa: ANN401 - likewise
        self._thinking, self._asked, self._context = thinking, asked, context
        self._runner: Runner = context.runner or Alone()
        self._tally = Tally(thinking.name, thinking.limits)
        self._form = _form(thinking)
        self._messages: list[ModelMessage] = []
        self._wrong = 0
        self._size = 0
        """Characters said so far."""

    async def held(self) -> Any:  # noqa: ANN401 - the step's type
        thinking = self._thinking
        candidates = await candidates_of(thinking, self._context)
        asking = Asking(thinking, candidates, self._runner)
        asking.check_prices()
        tools = await toolbox(thinking.tools_for(self._asked), self._runner)
        definitions = [tool.definition for tool in tools.values()]
        self._size += sum(len(json.dumps(d.parameters_json_schema)) + len(d.description or "") for d in definitions)
        self._open(asking)
        while True:
            response = await self._turn(asking, definitions)
            asking.check_refusal(response)
            found = await self._follow(response, tools)
            if isinstance(found, Answer):
                return found.value
            self._say(found)

    # -- the talk ------------------------------------------------------------------------------------------------

    def _open(self, asking: Asking) -> None:
        thinking = self._thinking
        for example, answer in thinking.examples:
            self._say([UserPromptPart(self._prompt(example))])
            self._messages += self._form.example(answer, asking.first.output)
        self._say([UserPromptPart(self._prompt(self._asked))])

    def _prompt(self, asked: Any) -> str:  # noqa: ANN401 - the step's type
        if self._thinking.prompt is not None:
            return self._thinking.prompt(asked)
        return delimited_json(INPUT, self._thinking.step.write_input(asked).decode())

    @property
    def _instructions(self) -> str:
        thinking = self._thinking
        has_marks = thinking.prompt is None or thinking.tools
        return f"{thinking.instructions}\n\n{DATA_IS_DATA}" if has_marks else thinking.instructions

    def _say(self, parts: list[ModelRequestPart]) -> None:
        self._size += sum(_length(part) for part in parts)
        self._messages.append(ModelRequest(parts=parts, instructions=self._instructions))

    async def _turn(self, asking: Asking, tools: list[Any]) -> ModelResponse:
        tokens = (self._size + len(self._instructions)) // CHARACTERS_A_TOKEN
        self._tally.before_turn(tokens)
        name = f"turn {self._tally.turns}"
        question = Question(
            messages=self._messages,
            tools=tools,
            form=self._form,
            key=f"{self._context.idempotency_key}.{name.replace(' ', '-')}",
            tokens=tokens,
            most_tokens=self._tally.tokens_left - tokens,
        )
        work = partial(asking.ask, question)
        kept = await self._runner.once(name, work, dict[str, Any], kind="model", used=used_of)
        turn = read_turn(kept)
        said = sum(_length(part) for part in turn.response.parts)
        self._size += said
        self._tally.after_turn(turn.used, tokens + said // CHARACTERS_A_TOKEN)
        if turn.response.parts:
            self._messages.append(turn.response)
        return turn.response

    # -- what a model answers ------------------------------------------------------------------------------------

    async def _follow(self, response: ModelResponse, tools: dict[str, Runnable]) -> Answer | list[ModelRequestPart]:
        """The answer, or what is said to the model next."""
        calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
        if not calls:
            return self._text(response)
        wrong: dict[int, str] = {}
        for index, call in enumerate(calls):
            if call.tool_name == OUTPUT_TOOL and not self._form.is_text:
                try:
                    return Answer(self._form.read_call(call))
                except Wrong as problem:
                    wrong[index] = self._refused(str(problem), response)
        parts: list[ModelRequestPart] = []
        for index, call in enumerate(calls):
            if index in wrong:
                self._tally.before_tool()
                parts.append(_returned(call, error(wrong[index]), failed=True))
            else:
                parts.append(await self._call(call, index + 1, tools))
        return parts

    def _text(self, response: ModelResponse) -> Answer | list[ModelRequestPart]:
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        try:
            return Answer(self._form.read_text(text))
        except Wrong as problem:
            words = self._refused(str(problem), response)
        return [UserPromptPart(f"{NOT_USED}\n{error(words)}")]

    def _refused(self, words: str, response: ModelResponse) -> str:
        """What the model is told of a wrong answer.

        Raises:
            InvalidAnswer: it was told often enough.
        """
        if response.finish_reason == "length":
            words = f"The answer was cut off, since it was too long.\n{words}"
        self._wrong += 1
        if self._wrong > self._thinking.wrong_answers:
            name = self._thinking.name
            raise InvalidAnswer(
                f"{name}: the model gave {self._wrong} answers that are not what {name} gives; the last one: {words}"
            )
        return words

    # -- tools ---------------------------------------------------------------------------------------------------

    async def _call(self, call: ToolCallPart, number: int, tools: dict[str, Runnable]) -> ToolReturnPart:
        self._tally.before_tool()
        tool = tools.get(call.tool_name)
        if tool is None:
            known = ", ".join(sorted(tools)) or "none"
            words = f"There is no tool {cut(call.tool_name, 100)!r}; there are: {known}"
            return _returned(call, error(words), failed=True)
        raw = call.args_as_json_str()
        try:
            value = tool.read(raw)
        except WrongArguments as wrong:
            return _returned(call, error(f"The arguments do not fit:\n{wrong}"), failed=True)
        name = f"{tool.name} {self._tally.turns}.{number}"
        if tool.mark.group and (refusal := await self._leave(tool, value, raw, name)) is not None:
            return _returned(call, error(refusal), failed=True)
        calling = Calling(name, self._context, self._runner, self._thinking.step.retry.attempts)
        work = partial(tool.run, value, calling)
        kept = await self._runner.once(name, work, dict[str, Any], kind="tool")
        if "error" in kept:
            return _returned(call, error(str(kept["error"])), failed=True)
        return _returned(call, result(json.dumps(kept["answer"], ensure_ascii=False)))

    async def _leave(self, tool: Runnable, value: Any, raw: str, name: str) -> str | None:  # noqa: ANN401 - its input
        """Ask people; what the model is told when they say no."""
        question = tool.mark.question
        words = question(value) if callable(question) else question
        if not words:
            arguments = cut(raw, LONGEST_QUESTION)
            words = f"{self._thinking.name} asks for leave to run {tool.name} with {arguments}"
        answered = await self._context.ask(tool.mark.group, words, Leave, name=f"leave for {name}")
        if answered.answer.granted:
            return None
        note = answered.answer.note
        return "A person did not give leave for this call." + (f" They say: {note}" if note else "")


class Alone:
    """`Runner` of a step that a test calls by itself: nothing is kept, nobody can be asked."""

    failures, again = 0, False

    async def once(
        self,
        name: str,
        work: Callable[[], Awaitable[T]],
        gives: Any,  # noqa: ANN401 - a type
        *,
        kind: str = "once",
        used: Callable[[T], Used | None] | None = None,
    ) -> T:
        del name, gives, kind, used
        return await work()

    def progress(self, note: str) -> None:
        """Nobody looks."""

    async def ask(self, group: str, question: str, gives: type[A], name: str) -> Answered[A]:
        del gives
        message = f"{name}: a person of {group!r} is asked {question!r} outside an engine; there is nobody"
        raise RuntimeError(message)


@lru_cache(maxsize=256)
def _form(thinking: Thinking) -> OutputForm:
    return OutputForm(thinking.step)


def _length(part: ModelRequestPart | ModelResponsePart) -> int:
    if isinstance(part, ToolCallPart):
        return len(part.tool_name) + len(part.args_as_json_str())
    return len(str(getattr(part, "content", "") or ""))


def _returned(call: ToolCallPart, content: str, *, failed: bool = False) -> ToolReturnPart:
    return ToolReturnPart(
        call.tool_name, content, tool_call_id=call.tool_call_id, outcome="failed" if failed else "success"
    )
