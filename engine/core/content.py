"""What came in, as a record tells it in a workflow that wants that: events' data, results, and what calls keep.

Never with what is marked `Secret`. The type of what a call keeps is not known here, so there the names of all secret
fields of the workflow are looked for, and the secret texts of the call's input, which are taken out of results too.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from engine.core.entry import EventEntry, FailureEntry, KeptEntry, QuestionEntry, ResultEntry
from engine.core.record import NOTHING
from engine.core.secret import WORD, hide, hide_everywhere, hides, names_of, shapes_of, texts_of, without

if TYPE_CHECKING:
    from engine.core.definition import Workflow
    from engine.core.entry import Entry
    from engine.core.secret import Shapes
    from engine.core.snapshot import Pending, Snapshot
    from engine.core.steps import Step

MAX_CONTENT: Final = 16 << 10
"""Bytes of a record's content."""
_HIDDEN: Final = Raw(json.dumps(WORD).encode())


class Contents:
    """What a workflow's records may tell of what comes in."""

    def __init__(self, workflow: Workflow[Any]) -> None:
        self.workflow = workflow
        self._shapes: dict[Any, Shapes] = {}

    def of(self, entry: Entry | None, before: Snapshot) -> Raw:
        """Of an entry to a run as it was before; no JSON where there is nothing to tell."""
        try:
            found = self._of(entry, before)
        except Exception:  # noqa: BLE001 - what cannot be looked into is not told, and halts nothing
            return _HIDDEN
        return found if len(found) <= MAX_CONTENT else _cut(bytes(found))

    def error(self, entry: FailureEntry, before: Snapshot) -> str:
        """What a failure says, without the secret texts of its call's input: all workflows export it."""
        try:
            call = _call(before, entry)
            step = self.workflow.steps.get(call.step) if call is not None else None
            texts = self._texts(call, step) if call is not None and step is not None else ()
        except Exception:  # noqa: BLE001 - as above
            return f"{entry.error}: {WORD}"
        return without(f"{entry.error}: {entry.message}", texts)

    def _of(self, entry: Entry | None, before: Snapshot) -> Raw:
        match entry:
            case EventEntry() | QuestionEntry():
                kind = self.workflow.events.get(entry.type) or self.workflow.questions.get(entry.type)
                return _told(entry.data, self._of_type(kind), frozenset()) if kind is not None else NOTHING
            case ResultEntry():
                call = _call(before, entry)
                step = self.workflow.steps.get(call.step) if call is not None else None
                if call is None or step is None:
                    return NOTHING
                return _told(entry.output, self._of_type(step.annotations[1]), self._texts(call, step))
            case KeptEntry() if entry.kind != "progress":
                call = _call(before, entry)
                step = self.workflow.steps.get(call.step) if call is not None else None
                texts = self._texts(call, step) if call is not None and step is not None else frozenset()
                if not (texts or self._names):
                    return entry.output
                return _written(hide_everywhere(json.loads(bytes(entry.output)), self._names, texts))
        return NOTHING

    def _of_type(self, annotation: Any) -> Shapes:
        try:
            known = self._shapes.get(annotation)
        except TypeError:  # no hash: Annotated with what has none
            return shapes_of(annotation)
        if known is None:
            known = self._shapes[annotation] = shapes_of(annotation)
        return known

    def _texts(self, call: Pending, step: Step[Any, Any]) -> frozenset[str]:
        """What is secret in the input of a call."""
        shapes = self._of_type(step.annotations[0])
        return frozenset(texts_of(json.loads(bytes(call.input)), shapes)) if hides(shapes) else frozenset()

    @cached_property
    def _names(self) -> frozenset[str]:
        workflow = self.workflow
        named: list[Any] = [spec.type for spec in workflow.specs.values()]
        named += [*workflow.events.values(), *workflow.questions.values()]
        for step in workflow.steps.values():
            named += step.annotations
        return frozenset(name for each in named for name in names_of(self._of_type(each)))


def _call(before: Snapshot, entry: ResultEntry | FailureEntry | KeptEntry) -> Pending | None:
    return next((c for c in before.calls if c.id == entry.call and before.run == entry.run), None)


def _told(raw: Raw, shapes: Shapes, texts: frozenset[str]) -> Raw:
    if not (texts or hides(shapes)):
        return raw
    return _written(hide_everywhere(hide(json.loads(bytes(raw)), shapes), (), texts))


def _written(value: Any) -> Raw:
    return Raw(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _cut(raw: bytes) -> Raw:
    """The beginning of JSON that is too long, as a text, with what is missing."""
    text, kept = raw.decode(), MAX_CONTENT - 64
    while True:
        found = _written(f"{text[:kept]}... [cut: {len(raw)} bytes]")
        if len(found) <= MAX_CONTENT:
            return found
        kept = kept * MAX_CONTENT // len(found) - 1
