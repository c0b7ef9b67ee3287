"""A language model as the application names it, and which one that is on this machine.

    Application(models={"claims-assessor": Model("openai:gpt-5-mini", fallback=["anthropic:claude-haiku-4-5"])})

A workflow says `claims-assessor`. Who that is stands in the application, and whoever runs it may say otherwise without
touching code; later ones win:

1. `Model(...)` of the application;
2. the project file: `[tool.longwatch.models.claims-assessor]` with `model`, `url`, `fallback`, `key`;
3. the environment: `LONGWATCH_MODEL_CLAIMS_ASSESSOR`, and the same with `_URL`, `_FALLBACK` (a list with commas, or
   `none`) and `_KEY` behind it.

A key itself stands in the environment only: `key` of the project file and `key_setting` name a variable of it. Without
them it is the provider's usual one, such as `OPENAI_API_KEY`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from engine.core.steps import Limit

if TYPE_CHECKING:
    from engine.llm.opened import OpenedModel
    from engine.llm.price import Price
    from engine.settings import ModelSettings

EMBEDDED: Final = "embedded"
EMBEDDED_URL_SETTING: Final = "LONGWATCH_MODEL_URL"
EMBEDDED_URL: Final = "http://127.0.0.1:8931/v1"
EMBEDDED_NAME: Final = "smollm2-135m"
PREFIX: Final = "LONGWATCH_MODEL_"
_SPEC: Final = re.compile(r"^(embedded(:\S+)?|[a-z][\w-]*:\S+)$")

Output = Literal["native", "tool", "held"]
"""How a model is made to answer with data: it holds itself to a JSON schema, or calls a tool that takes the answer.

`held` is for a model that knows no tool calling: its tools are in the schema too (see `engine.llm.held`).
"""


class ModelNotInstalledError(ImportError):
    """A step asks a language model, and the packages for that are not here."""

    def __init__(self) -> None:
        super().__init__("language models need the extra: pip install 'longwatch[model]'")


@dataclass(frozen=True)
class Model:
    """A language model at a provider, any compatible server's, or the one that is served on this machine.

    `embedded` is the OpenAI-compatible server at `LONGWATCH_MODEL_URL`. Other names are pydantic-ai's: `openai:...` is
    OpenAI's Responses API, `openai-chat:...` the Chat Completions API, which most compatible servers speak.
    """

    name: str
    """`provider:name`, or `embedded`."""
    fallback: Sequence[str | Model] = ()
    """Asked in this order, each once an attempt, when the one before cannot answer now."""
    limits: Limit | None = None
    """What all workers together keep to."""
    price: Price | None = None
    """None: the published one, if there is one. A fallback by its name alone has its own published one."""
    base_url: str | None = None
    key_setting: str | None = None
    """The environment variable that holds the key; None: the provider's usual one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """pydantic-ai's model settings, such as `temperature` or `max_tokens`."""
    output: Output | None = None
    """None: as it suits the model; the embedded one is `held`."""

    def __post_init__(self) -> None:
        if not _SPEC.match(self.name):
            message = f"Model({self.name!r}): write provider:name such as openai:gpt-5-mini, or {EMBEDDED}"
            raise ValueError(message)
        if isinstance(self.fallback, str | Model):
            message = f"Model({self.name!r}): fallback is a list, such as [{self.fallback!r}]"
            raise TypeError(message)
        object.__setattr__(self, "fallback", tuple(self.fallback))
        self.candidates()

    @property
    def is_embedded(self) -> bool:
        return self.name.partition(":")[0] == EMBEDDED

    def candidates(self) -> tuple[Model, ...]:
        """This one and its fallbacks, in the order of asking."""
        others = (f if isinstance(f, Model) else Model(f, settings=_general(self.settings)) for f in self.fallback)
        return (self, *others)

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[OpenedModel]:
        """What steps ask, made once per worker; its clients are made when the first of them asks."""
        from engine.llm.opened import OpenedModel  # noqa: PLC0415 - it reads the machine

        model = OpenedModel(name, self)
        try:
            yield model
        finally:
            await model.close()


def _general(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that mean the same to every provider; a provider's own begin with its name."""
    return {key: value for key, value in settings.items() if "_" not in key or key in _COMMON}


_COMMON: Final = frozenset({"max_tokens", "top_p", "top_k", "stop_sequences", "presence_penalty", "frequency_penalty"})


def variable(name: str) -> str:
    """The environment variable that says which model `name` is."""
    return PREFIX + name.upper().replace("-", "_")


def key_variable(name: str) -> str:
    """The environment variable that holds the key of the model `name`."""
    return f"{variable(name)}_KEY"


def chosen(name: str, model: Model, table: ModelSettings | None, environment: Mapping[str, str]) -> Model:
    """Which model `name` is on this machine.

    Raises:
        ValueError: what the project file or the environment says is no model.
    """
    if table is not None:
        model = _changed(model, table.model, table.url, table.fallback, table.key)
    own = variable(name)
    fallback = environment.get(f"{own}_FALLBACK", "")
    others = [f.strip() for f in fallback.split(",") if f.strip() not in {"", "none"}] if fallback else None
    return _changed(model, environment.get(own, ""), environment.get(f"{own}_URL", ""), others, "")


def _changed(model: Model, spec: str, url: str, fallback: Sequence[str] | None, key: str) -> Model:
    if spec and spec != model.name:
        # What else was said of the model was said of another one.
        model = replace(
            model,
            name=spec,
            price=None,
            base_url=None,
            key_setting=None,
            output=None,
            settings=_general(model.settings),
        )
    if url:
        model = replace(model, base_url=url)
    if fallback is not None:
        model = replace(model, fallback=tuple(fallback))
    if key:
        model = replace(model, key_setting=key)
    return model
