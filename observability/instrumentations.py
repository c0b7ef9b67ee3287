"""The instrumentations that are installed beside the steps, activated once in a process.

As OpenTelemetry's own agent does it, with the same variable to leave some out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from os import environ
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts
from opentelemetry.instrumentation.environment_variables import OTEL_PYTHON_DISABLED_INSTRUMENTATIONS
from opentelemetry.util._importlib_metadata import EntryPoint, entry_points
from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from pydantic_ai.models.instrumented import InstrumentationSettings

logger = logging.getLogger(__name__)

GROUP: Final = "opentelemetry_instrumentor"
PYDANTIC_AI: Final = "pydantic-ai"


def instrument(content: Callable[[], bool]) -> list[str]:
    """Have libraries traced; one whose instrumentation fails is told of and left out.

    Args:
        content: says of the code that runs whether prompts and answers may be told.

    Returns:
        The names of the instrumentations that are active.
    """
    disabled = {name.strip() for name in environ.get(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS, "").split(",")}
    if "*" in disabled:
        return []
    if not disabled & {PYDANTIC_AI, PYDANTIC_AI.replace("-", "_")}:
        register_post_import_hook(lambda module: _trace_agents(module, content), "pydantic_ai")
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return [point.name for point in points if point.name not in disabled and _activated(point)]


def _activated(point: EntryPoint) -> bool:
    try:
        if point.dist is not None and (conflict := get_dist_dependency_conflicts(point.dist)) is not None:
            logger.debug("instrumentation %s: %s", point.name, conflict)
            return False
        instrumentor = point.load()()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(skip_dep_check=True)
    except ModuleNotFoundError as missing:  # it is made for several libraries, and this one is not here
        logger.debug("instrumentation %s: %s", point.name, missing)
        return False
    except Exception:
        logger.exception("instrumentation %s fails and is left out", point.name)
        return False
    return True


def _trace_agents(module: ModuleType, content: Callable[[], bool]) -> None:
    """pydantic-ai brings its own instrumentation. Whoever has said how its agents are traced is not overruled."""
    try:
        agent: Any = module.Agent
        if agent._instrument_default is False:  # noqa: SLF001 - it can be set, but not be asked for
            agent.instrument_all(_settings(content))
    except Exception:
        logger.exception("agents of pydantic-ai are not traced")


def _settings(content: Callable[[], bool]) -> InstrumentationSettings:
    from pydantic_ai.models.instrumented import InstrumentationSettings  # noqa: PLC0415 - an extra

    class Told(InstrumentationSettings):
        """pydantic-ai's default is to tell what is said: here the workflow whose step runs decides, span by span."""

        @property
        def include_content(self) -> bool:
            return content()

        @include_content.setter
        def include_content(self, value: bool) -> None:
            """It is not for the settings to say."""

    return Told(include_binary_content=False, include_model_request_parameters=False)
