"""What stands around an attempt and its parts, so that what libraries do inside is seen: the engine's side of it.

Telemetry is not known here. What an installed package gives under the entry point `longwatch.inside` is asked to stand
around each attempt: it makes the attempt's place in the trace the current one, so that HTTP clients hand it on, and
collects the spans that are made meanwhile. They travel in the entry of the attempt or of the part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from importlib.metadata import entry_points
from typing import Any, Final, Protocol, Self

from msgspec import Raw

from engine.core.entry import NO_SPANS
from engine.core.reaction import StartCall
from engine.core.secret import Shapes, hides, shapes_of, texts_of
from engine.core.steps import Step

logger = logging.getLogger(__name__)

GROUP: Final = "longwatch.inside"


Secrets = Callable[[], Collection[str]]


class Around(Protocol):
    """A context manager around an attempt or a part of it, entered and left once, by the same task."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def part(self, trace: str, *, model: bool) -> Around:
        """What stands around a part of this attempt: the kept part's `traceparent`, and whether a model is asked."""

    def drain(self) -> bytes:
        """The spans that have ended inside, a JSON array; empty: none. Asked once at most, and the last of it."""


class Inside(Protocol):
    """One a process. Made without arguments."""

    def start(self) -> None:
        """Get ready: before the first attempt of each worker."""

    def around(self, trace: str, tracestate: str, baggage: str, *, content: bool, secrets: Secrets) -> Around:
        """What stands around an attempt.

        Args:
            trace: its `traceparent`; empty: it has no place in a trace.
            tracestate: of the event that set it off; `baggage` likewise.
            baggage: W3C baggage.
            content: whether prompts and answers may be told.
            secrets: the texts that may not be told in any case; asked when there is something to tell.
        """


class _Nothing:
    """Nobody looks."""

    def start(self) -> None:
        """There is nothing to get ready."""

    def around(self, trace: str, tracestate: str, baggage: str, *, content: bool, secrets: Secrets) -> Around:
        del trace, tracestate, baggage, content, secrets
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """There is nothing to leave."""

    def part(self, trace: str, *, model: bool) -> Around:
        del trace, model
        return self

    def drain(self) -> bytes:
        return b""


NOTHING: Final = _Nothing()


def load_inside() -> Inside:
    """What is installed; one that cannot be loaded is told of, and steps run without it."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            inside: Inside = point.load()()
            inside.start()
        except Exception:
            logger.exception("steps are not traced inside: %s = %s cannot be used", point.name, point.value)
        else:
            return inside
    return NOTHING


def around(inside: Inside, call: StartCall, step: Step[Any, Any], *, content: bool) -> Around:
    """What stands around an attempt. Telemetry that fails costs no step."""
    secrets = partial(secret_texts, step, call.input)
    try:
        return inside.around(call.trace, call.tracestate, call.baggage, content=content, secrets=secrets)
    except Exception:
        logger.exception("an attempt of %s is not traced", step.name)
        return NOTHING


def spans_of(around: Around) -> Raw:
    """What goes into an entry. Telemetry that fails costs no result."""
    try:
        found = around.drain()
    except Exception:
        logger.exception("the spans inside a step are lost")
        return NO_SPANS
    return Raw(found) if found else NO_SPANS


def secret_texts(step: Step[Any, Any], input: Raw) -> frozenset[str]:
    """What is secret in the input of an attempt, where the step's type marks it."""
    shapes = _secret_shapes(step)
    return frozenset(texts_of(json.loads(bytes(input)), shapes)) if shapes else frozenset()


@lru_cache(maxsize=1024)
def _secret_shapes(step: Step[Any, Any]) -> Shapes:
    """Of its input; empty: there is nothing secret in it."""
    shapes = shapes_of(step.annotations[0])
    return shapes if hides(shapes) else ()
