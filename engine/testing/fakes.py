"""What a test says in the place of the world: answers of steps and models, and which steps run for real."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Fakes:
    """Answers by the step's name."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.real: dict[str, Mapping[str, Any]] = {}
        """Steps that run as they are written, each with its resources."""
        self.models: dict[str, Any] = {}
        """What answers for a model, by the model's name."""

    def resources(self) -> dict[str, Any]:
        """What every step that runs for real finds beside its own."""
        return {}


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, also where the test itself is async."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _in_a_thread(work)


def _in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            errors.append(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="simulated-step")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]
