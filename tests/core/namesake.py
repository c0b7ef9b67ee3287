"""A step that has the name of another."""

from __future__ import annotations

from engine import State, StepFailed, runs, step
from tests.core.broken import Over, work


@step(name="work")
async def other_work(number: int) -> int:
    return number


class Working(State):
    @runs(work)
    def job(self) -> int:
        return 1

    @job.done
    def worked(self, number: int) -> OtherWorking:
        return OtherWorking()

    @job.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()


class OtherWorking(State):
    @runs(other_work)
    def job(self) -> int:
        return 1

    @job.done
    def worked(self, number: int) -> Over:
        return Over()

    @job.failed
    def broke(self, failure: StepFailed) -> Over:
        return Over()
