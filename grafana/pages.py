"""The boards' uids, by which links and alerts find them."""

from __future__ import annotations

from typing import Final

FLEET: Final = "longwatch-fleet"
WORKFLOW: Final = "longwatch-workflow"
STEPS: Final = "longwatch-steps"
ENGINE: Final = "longwatch-engine"
SHADOW: Final = "longwatch-shadow"
