"""A workflow that wants its content recorded, with secrets in all that it takes and gives."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel

from engine import Event, Final, Retry, Searchable, Secret, State, StepFailed, Workflow, after, on, runs, step

Pin = Annotated[str, Secret]


class Owner(BaseModel, frozen=True):
    name: str
    pin: Pin


class Opened(Event, key="id"):
    id: str
    owner: Owner
    note: str = ""


class Noted(Event):
    text: Annotated[str, Secret]
    number: int = 0


@step(retry=Retry(attempts=2, first_wait=timedelta(seconds=1)))
async def lock(owner: Owner) -> Owner:
    return owner


@step(retry=Retry(attempts=1))
async def code(owner: Owner) -> Annotated[str, Secret]:
    return owner.pin


class Locking(State):
    owner: Owner
    id: Annotated[str, Searchable]

    @runs(lock, code)
    def work(self) -> tuple[Owner, Owner]:
        return self.owner, self.owner

    @work.done
    def done(self, owner: Owner, number: str) -> Closed:
        del number
        return Closed(owner=owner)

    @work.failed
    def failed(self, failure: StepFailed) -> Closed:
        del failure
        return Closed(owner=self.owner)

    @on
    def noted(self, event: Noted) -> Locking:
        del event
        return self


class Closed(State):
    owner: Owner

    @on
    def noted(self, event: Noted) -> Gone:
        del event
        return Gone()

    @after(days=1)
    def left(self) -> Gone:
        return Gone()


class Gone(Final): ...


def begin(event: Opened) -> Locking:
    return Locking(owner=event.owner, id=event.id)


vault = Workflow("vault", start=begin, states=[Locking, Closed, Gone], content=True)
quiet = Workflow("quiet", start=begin, states=[Locking, Closed, Gone])
