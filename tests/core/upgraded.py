"""A workflow in two versions: a state was renamed, its field changed, timers and work came and went."""

from __future__ import annotations

from typing import Any

from engine import Call, Event, Final, State, StepFailed, Workflow, after, every, on, runs
from tests.core.zoo import check_item, fetch, tell


class Opened(Event):
    text: str


class Read(Event):
    pass


class Shut(Final):
    pass


class Letter(State):
    text: str

    @runs(fetch)
    def sizes(self) -> str:
        return self.text

    @sizes.done
    def sized(self, size: int) -> Shut:
        return Shut()

    @sizes.failed
    def unsized(self, failure: StepFailed) -> Shut:
        return Shut()

    @on
    def read(self, event: Read) -> Letter:
        return self

    @after(days=20)
    def expire(self) -> Shut:
        return Shut()

    @after(days=19)
    def burn(self) -> Letter | Shut:
        return Shut()


class Message(State):
    words: tuple[str, ...]
    reads: int = 0

    @runs(check_item)
    def counting(self) -> int:
        return len(self.words)

    @counting.done
    def counted(self, count: int) -> Message:
        return self

    @counting.failed
    def uncounted(self, failure: StepFailed) -> Shut:
        return Shut()

    @on
    def read(self, event: Read) -> Message:
        return Message(words=self.words, reads=self.reads + 1)

    @after(days=20)
    def expire(self) -> Shut:
        return Shut()

    @after(days=9)
    def close(self) -> Message | Shut:
        return Shut()

    @every(hours=16)
    def nag(self) -> Call[None]:
        return tell.call("read it")


class Note(State):
    """The same as a letter, by another name."""

    text: str

    @runs(fetch)
    def sizes(self) -> str:
        return self.text

    @sizes.done
    def sized(self, size: int) -> Shut:
        return Shut()

    @sizes.failed
    def unsized(self, failure: StepFailed) -> Shut:
        return Shut()

    @on
    def read(self, event: Read) -> Note:
        return self

    @after(days=20)
    def expire(self) -> Shut:
        return Shut()

    @after(days=19)
    def burn(self) -> Note | Shut:
        return Shut()


def open_note(opened: Opened) -> Note:
    return Note(text=opened.text)


def from_old_letter(stored: dict[str, Any]) -> State:
    return Note(text=stored["text"])


def open_letter(opened: Opened) -> Letter:
    return Letter(text=opened.text)


def open_message(opened: Opened) -> Message:
    return Message(words=(opened.text,))


def from_letter(stored: dict[str, Any]) -> State:
    if stored["text"] == "raise":
        message = "no way"
        raise RuntimeError(message)
    if stored["text"] == "no state":
        return stored["text"]  # type: ignore[no-any-return]  # wrong on purpose
    return Message(words=(stored["text"],))


before = Workflow("desk", start=open_letter, states=[Letter, Shut])
renamed = Workflow("desk", version=3, start=open_note, states=[Note, Shut], migrate={"Letter": from_old_letter})
after_it = Workflow("desk", version=2, start=open_message, states=[Message, Shut], migrate={"Letter": from_letter})
