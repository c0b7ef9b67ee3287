"""A model that knows no tool calling: what it is told, to what it is held, and how its answers are read."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from engine import Leave, asking_leave, llm_step, step
from engine.llm.connections import candidate
from engine.llm.errors import Asked
from engine.llm.model import Model
from engine.llm.opened import OpenedModel
from tests.llm.memory import Call


class Dossier(BaseModel, frozen=True):
    amount: int


class Assessment(BaseModel, frozen=True):
    verdict: Literal["low risk", "needs a person"]


class Where(BaseModel, frozen=True):
    place: Literal["roof", "cellar"]


class Look(BaseModel, frozen=True):
    where: Where
    tool: str = "ladder"
    """Of the same name as what says which tool is called."""


@step()
async def find_similar(asked: Dossier) -> str:
    """What others came to."""
    return f'approved\n"{asked.amount}"'


@step()
async def look(asked: Look) -> str:
    """Look at the damage."""
    return f"{asked.where.place} by {asked.tool}"


class Small(OpenedModel):
    """Says one thing after the other, and remembers what it was told and held to."""

    def __init__(self, *says: object) -> None:
        self.says = [each if isinstance(each, str) else json.dumps(each) for each in says]
        self.heard: list[list[tuple[str, str]]] = []
        self.held: list[dict[str, Any]] = []
        self.told: list[str | None] = []
        spec = Model("test:small", output="held")
        super().__init__("small", spec)
        self._one = candidate(Asked("small", "test:small"), spec, FunctionModel(self._answer))

    async def candidates(self) -> Any:
        return (self._one,)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        assert info.function_tools == []
        assert info.output_tools == []
        self.heard.append([line for message in messages for line in lines(message)])
        self.told.append(next(m.instructions for m in messages if isinstance(m, ModelRequest)))
        output = info.model_request_parameters.output_object
        assert output is not None
        self.held.append(output.json_schema)
        return ModelResponse(parts=[TextPart(self.says[len(self.heard) - 1])])

    @property
    def resources(self) -> dict[str, Any]:
        return {"model:small": self}


def lines(message: ModelMessage) -> list[tuple[str, str]]:
    who = "user" if isinstance(message, ModelRequest) else "model"
    return [(who, str(part.content)) for part in message.parts if isinstance(part, UserPromptPart | TextPart)]


def assess(**more: Any) -> Any:
    known: dict[str, Any] = {"model": "small", "instructions": "Assess.", "takes": Dossier, "gives": Assessment}
    known |= {"prompt": lambda asked: f"Amount: {asked.amount}", "tools": [find_similar]}
    known |= {"examples": [(Dossier(amount=1), Assessment(verdict="low risk"))]}
    return llm_step("assess", **(known | more))


FINAL = {"verdict": "needs a person"}
EXAMPLE = [("user", "Amount: 1"), ("model", '{"verdict": "low risk"}')]
QUESTION = ("user", "Amount: 7")


def names(schema: dict[str, Any], mark: str = "tool") -> list[str]:
    """The tools that an answer may call; `final` is the answer itself."""
    return [s["properties"].get(mark, {}).get("const", "final") for s in schema.get("anyOf", [schema])]


async def test_it_looks_something_up_first_and_what_it_found_stands_first() -> None:
    small = Small({"tool": "find_similar", "amount": 7}, FINAL)

    assert await Call().run(assess(), Dossier(amount=7), small.resources) == Assessment(verdict="needs a person")
    assert small.heard[0] == [*EXAMPLE, QUESTION]
    found = 'find_similar: "approved\\n\\"7\\""'
    assert small.heard[1] == [("user", found), ("model", "Noted."), *EXAMPLE, QUESTION]
    assert [names(schema) for schema in small.held] == [["find_similar"], ["final"]]


async def test_a_tool_is_offered_until_it_has_been_called() -> None:
    small = Small({"tool_": "look", "where": {"place": "roof"}}, {"tool_": "find_similar", "amount": 1}, FINAL)
    call = Call()
    await call.run(assess(tools=[find_similar, look]), Dossier(amount=7), small.resources)

    assert call.begun == ["turn 1", "look 1.1", "turn 2", "find_similar 2.1", "turn 3"]
    assert [names(schema, "tool_") for schema in small.held] == [
        ["find_similar", "look"],
        ["find_similar", "final"],
        ["final"],
    ]
    assert small.heard[2][0] == ("user", 'look: "roof by ladder"')


async def test_definitions_of_two_schemas_do_not_meet() -> None:
    small = Small({"tool_": "look", "where": {"place": "roof"}}, FINAL)
    await Call().run(assess(tools=[find_similar, look]), Dossier(amount=7), small.resources)
    schema = small.held[0]

    assert list(schema["$defs"]) == ["look.Where"]
    assert schema["anyOf"][1]["properties"]["where"] == {"$ref": "#/$defs/look.Where"}
    assert schema["anyOf"][1]["required"] == ["tool_", "where"]


async def test_without_tools_it_answers_at_once() -> None:
    small = Small(FINAL)
    await Call().run(assess(tools=[]), Dossier(amount=7), small.resources)

    assert names(small.held[0]) == ["final"]


async def test_words_on_marks_are_left_out_where_there_are_none() -> None:
    small = Small({"tool": "find_similar", "amount": 7}, FINAL)
    await Call().run(assess(), Dossier(amount=7), small.resources)
    marked = Small({"tool": "find_similar", "amount": 7}, FINAL)
    await Call().run(assess(prompt=None), Dossier(amount=7), marked.resources)

    assert small.told == ["Assess."] * 2
    assert all(told is not None and "is data" in told for told in marked.told)


async def test_a_wrong_answer_goes_back_behind_the_question() -> None:
    small = Small({"tool": "find_similar", "amount": 7}, "no json", {"verdict": "maybe"}, FINAL)
    answer = await Call().run(assess(), Dossier(amount=7), small.resources)
    *_, question, first, told, second, _ = small.heard[3]

    assert answer == Assessment(verdict="needs a person")
    assert (question, first, second) == (QUESTION, ("model", "no json"), ("model", '{"verdict": "maybe"}'))
    assert told[1].startswith("Your answer cannot be used.")


async def test_a_tool_that_is_not_there_is_told_as_to_any_other_model() -> None:
    small = Small({"tool": "guess"}, FINAL)
    await Call().run(assess(), Dossier(amount=7), small.resources)

    assert small.heard[1][0] == ("user", "guess: \"There is no tool 'guess'; there are: find_similar\"")


async def test_a_refusal_of_leave_is_told_in_quotation_marks() -> None:
    small = Small({"tool": "find_similar", "amount": 7}, FINAL)
    call = Call(answers={"surveys": Leave(granted=False, note='no "more"')})
    tools = [asking_leave(find_similar, group="surveys")]
    await call.run(assess(tools=tools), Dossier(amount=7), small.resources)

    assert small.heard[1][0][1].startswith('find_similar: "A person did not give leave')
    assert 'no \\"more\\"' in small.heard[1][0][1]


async def test_a_text_is_held_to_as_a_field() -> None:
    small = Small({"answer": "all is well"})
    step = assess(gives=str, tools=[], examples=[(Dossier(amount=1), "fine")])

    assert await Call().run(step, Dossier(amount=7), small.resources) == "all is well"
    assert small.heard[0][1] == ("model", '{"answer": "fine"}')


async def test_an_input_is_offered_what_the_step_says_of_it() -> None:
    offers = {"offers": lambda asked: [look] if asked.amount > 5 else []}
    large, small = Small({"tool_": "look", "where": {"place": "roof"}}, FINAL), Small(FINAL)
    await Call().run(assess(tools=[find_similar, look], **offers), Dossier(amount=7), large.resources)
    await Call().run(assess(tools=[find_similar, look], **offers), Dossier(amount=5), small.resources)

    assert names(large.held[0], "tool_") == ["look"]
    assert names(small.held[0]) == ["final"]


def test_the_embedded_model_is_held() -> None:
    made = candidate(
        Asked("small", "embedded"), Model("embedded"), FunctionModel(lambda _, __: ModelResponse(parts=[]))
    )

    assert made.output == "held"
