"""Ask the engine's metrics whether it is up; for the container's health check."""  # noqa: INP001 (no package)

from __future__ import annotations

import sys
from urllib.request import urlopen

URL = "http://127.0.0.1:9464/metrics"


def is_up(text: str) -> bool:
    return any(line.startswith("longwatch_engine_up ") and float(line.split()[1]) == 1 for line in text.splitlines())


if __name__ == "__main__":
    with urlopen(URL, timeout=4) as answer:
        sys.exit(0 if is_up(answer.read().decode()) else 1)
