"""Work that asks a language model: one question, and an agent of ten turns. The model is a server on this machine."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from engine import Application, Event, Final, Limits, Model, State, StepFailed, Workflow, llm_step, runs, step

MODEL = "bench"
TURNS = 10


class Verdict(BaseModel, frozen=True):
    """What the model gives."""

    score: int


class Asked(Event, key="id"):
    """Starts a run with one question."""

    id: str


class Sought(Event, key="id"):
    """Starts an agent."""

    id: str


@step()
async def look_up(what: str) -> str:
    """Look something up."""
    return f"{what}: nothing"


judge = llm_step("judge", model=MODEL, instructions="Judge.", takes=str, gives=Verdict, timeout=timedelta(minutes=2))
seek = llm_step(
    "seek", model=MODEL, instructions="Seek.", takes=str, gives=Verdict, tools=[look_up], limits=Limits(turns=TURNS + 1)
)


class Over(Final):
    """It has answered."""

    score: int


class Failed(Final):
    """A step was given up."""

    reason: str


class Judging(State):
    """One question."""

    id: str

    @runs(judge)
    def question(self) -> str:
        return self.id

    @question.done
    def judged(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score)

    @question.failed
    def unjudged(self, failure: StepFailed) -> Failed:
        return Failed(reason=failure.error)


class Seeking(State):
    """An agent."""

    id: str

    @runs(seek)
    def search(self) -> str:
        return self.id

    @search.done
    def found(self, verdict: Verdict) -> Over:
        return Over(score=verdict.score)

    @search.failed
    def lost(self, failure: StepFailed) -> Failed:
        return Failed(reason=failure.error)


def ask(event: Asked) -> Judging:
    return Judging(id=event.id)


def begin(event: Sought) -> Seeking:
    return Seeking(id=event.id)


application = Application(
    workflows=[
        Workflow("judge", start=ask, states=[Judging, Over, Failed]),
        Workflow("seek", start=begin, states=[Seeking, Over, Failed]),
    ],
    models={MODEL: Model("openai-chat:bench")},
)
