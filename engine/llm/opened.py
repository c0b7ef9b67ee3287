"""A named model in a worker: who it is on this machine, and its clients once the first step asks it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import TYPE_CHECKING

from engine.core.steps import StepHalts
from engine.llm.model import Model, ModelNotInstalledError, chosen
from engine.settings import SettingsError, load

if TYPE_CHECKING:
    from engine.llm.connections import Candidate


class OpenedModel:
    """What a step finds in its resources as `model:NAME`. Nothing is read, imported or connected before it is asked."""

    def __init__(self, name: str, model: Model) -> None:
        self.name = name
        self._model = model
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._candidates: tuple[Candidate, ...] = ()

    async def candidates(self) -> tuple[Candidate, ...]:
        """The model and its fallbacks, ready to be asked.

        Raises:
            StepHalts: the machine's settings, or a key, or the packages are not as they must be.
        """
        if not self._candidates:
            async with self._connecting:
                if not self._candidates:
                    self._candidates = await self._connect()
        return self._candidates

    async def close(self) -> None:
        """Close the clients, the last one made first."""
        self._candidates = ()
        await self._stack.aclose()

    async def _connect(self) -> tuple[Candidate, ...]:
        """The client's imports take seconds: beside the loop, so that other steps go on meanwhile."""
        try:
            await asyncio.to_thread(_import_clients)
            settings = load().settings
            model = chosen(self.name, self._model, settings.models.get(self.name), os.environ)
        except (ModelNotInstalledError, SettingsError, ValueError) as error:
            raise StepHalts(f"model {self.name!r}: {error}") from error
        from engine.llm.connections import connected  # noqa: PLC0415 - an extra

        return await connected(self.name, model, self._stack, Decimal(str(settings.eur_per_usd)))


def _import_clients() -> None:
    try:
        import engine.llm.connections  # noqa: PLC0415, F401 - an extra
    except ImportError as missing:
        raise ModelNotInstalledError from missing
