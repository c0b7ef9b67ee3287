"""What a test says in the place of the world: answers of steps and models, and which steps run for real."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from engine.core.steps import Step

if TYPE_CHECKING:
    from engine.testing.model import FakedModel
    from engine.testing.recorded import Played

T = TypeVar("T")


class Fakes:
    """Answers by the step's name."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.real: set[str] = set()
        """Steps that run as they are written."""
        self.shared: dict[str, Any] = {}
        """The resources of steps that run."""
        self.models: dict[str, FakedModel] = {}
        self.recorded: dict[str, Played] = {}
        """What is played, by step."""

    def fake(self, step: str, answer: Callable[[Any], Any]) -> None:
        """The last word on a step counts."""
        self.real.discard(step)
        self.answers[step] = answer

    def make_real(self, step: str) -> None:
        """Likewise."""
        self.answers.pop(step, None)
        self.real.add(step)

    def is_real(self, step: Step[Any, Any]) -> bool:
        """Whether it runs, since the test said so or has said what is needed for it."""
        return step.name in self.real or step.name in self.recorded or (bool(step.model) and step.model in self.models)

    def resources(self) -> dict[str, Any]:
        """What every step that runs finds in its context."""
        return {**self.shared, **{f"model:{name}": model for name, model in self.models.items()}}

    def settled(self) -> None:
        """What the models said last is on the log."""
        for model in self.models.values():
            model.settled()

    def crashed(self) -> None:
        """What the models said last is lost."""
        for model in self.models.values():
            model.crashed()


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
