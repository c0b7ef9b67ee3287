"""Stands in for the demo: says what its words tell it, holds until SIGTERM, and says how it went."""

from __future__ import annotations

import json
import signal
import sys


def main() -> int:
    words = sys.argv[1:]
    if "--fail" in words:
        return 3
    enough = signal.sigwait if "--hold" in words else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sys.stdout.write("no JSON\n" + json.dumps({"held": True}) + "\n")
    sys.stdout.flush()
    if enough:
        enough({signal.SIGTERM})
    sys.stdout.write(json.dumps({"claims": 3, "words": words}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
