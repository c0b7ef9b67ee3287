"""Stands for `engine.flink.driver`: says the same lines, without Java. `FAKE_DRIVER` names what it does."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def say(driver: str, **facts: object) -> None:
    print(json.dumps({"driver": driver, **facts}), flush=True)  # noqa: T201 - that is how it speaks


def stop(*_: object) -> None:
    say("stopping")
    say("stopped", savepoint="/somewhere", error=None)
    os._exit(0)


def die_with_supervisor() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    threading.Thread(target=die_with_supervisor, daemon=True).start()
    plan = Path(sys.argv[sys.argv.index("--plan") + 1])
    starts = plan.with_name("starts")
    starts.open("a").write(f"{json.loads(plan.read_text())['epoch']}\n")
    manner = os.environ["FAKE_DRIVER"]
    if manner == "dies" or (manner == "dies once" and len(starts.read_text().splitlines()) == 1):
        say("failed", error="ValueError: nothing will come of this")
        sys.exit(1)
    looks_back = json.loads(plan.read_text())["look_back"]
    if manner == "another" or (manner in {"lost", "lost for good"} and not looks_back):
        why = "it is log y" if manner == "another" else "its end is lost"
        say("failed", error=f"LogLost: log x, partition 3: {why}")
        sys.exit(1)
    if manner == "lost for good":
        say("failed", error="LogLost: the log has lost its end, and none of the 2 checkpoints stands on it")
        sys.exit(1)
    if looks_back:
        ahead = [{"path": "/x/job/chk-9", "why": "its entries are gone"}]
        say("went_back", path="/x/job/chk-8", ahead=ahead)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if manner == "does not stop" else stop)
    say("starting", jvm_pid=os.getpid())
    say("running", job_id="j", rest_port=4711, jvm_pid=os.getpid(), restored_from=None)
    now = time.time_ns() // 1_000_000
    say("checkpoint", oldest_trigger=now - 1000, newest_trigger=now, count=3, newest_path="/x")
    while True:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
