"""Stands for a process beside the engine: notes that it was started, and does what `FAKE_COMPANION` says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

data = Path(sys.argv[sys.argv.index("--data") + 1])
with (data / "companions").open("a", encoding="utf-8") as starts:
    starts.write(f"{os.getpid()} {os.environ.get('LONGWATCH_OTLP', '')} {' '.join(sys.argv[1:])}\n")
match os.environ["FAKE_COMPANION"]:
    case "fails":
        sys.exit("no such thing")
    case "talks":
        print("the port is taken", flush=True)  # noqa: T201 - that is how it speaks
    case "ends well":

        def end(*_: object) -> None:
            (data / "ended").touch()
            sys.exit(0)

        signal.signal(signal.SIGTERM, end)
    case "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    case _:
        pass
(data / "ready").touch()
while True:
    time.sleep(0.05)
