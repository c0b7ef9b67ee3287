"""Classes that have the names of others."""

from __future__ import annotations

from engine import Call, Event, State, Workflow, after, every, on
from tests.core import zoo
from tests.core.broken import Over, Start, Unaware
from tests.core.broken import Ping as FirstPing


class Ping(Event):
    pass


class Astray(State):
    @after(days=1)
    def end(self) -> Over:
        return Over()


class Listening(State):
    @on
    def pinged(self, event: FirstPing) -> Unaware:
        return Unaware()

    @on
    def pinged_again(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


class Hearing(State):
    @on
    def pinged(self, event: Ping) -> Over:
        return Over()

    @after(days=1)
    def end(self) -> Over:
        return Over()


def hear(event: Start) -> Hearing:
    return Hearing()


other = Workflow("other", start=hear, states=[Hearing, Over])


class Nagging(State):
    @every(hours=1)
    def nag(self) -> Call[None]:
        return zoo.tell.call("do it")

    @after(days=1)
    def end(self) -> Over:
        return Over()


def nag(event: Start) -> Nagging:
    return Nagging()


by_module = Workflow("by-module", start=nag, states=[Nagging, Over])
