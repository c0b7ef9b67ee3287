"""What all tests share: how hypothesis searches."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline for one example: two cores may be shared with a Flink and a Redis. On CI the same examples every time, so
# that a red build is about the change; at home new ones, so that somebody finds what nobody thought of.
settings.register_profile(
    "longwatch",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("longwatch")
