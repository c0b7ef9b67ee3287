"""Serve from a process of its own, until stdin closes or SIGTERM comes: `python -m engine.testing.providers --delay 1`.

Prints one line of JSON when it serves, `{"url": ..., "openai_url": ..., "pid": ...}`; `GET /stats` of that url says how
much was asked. At its end it prints the same sums as a second line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys

from engine.testing.providers import Plausible, Provider


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.testing.providers", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0, help="seconds that each answer takes")
    parser.add_argument("--turns", type=int, default=None, help="tool calls before an agent gets its answer")
    parser.add_argument("--keep-requests", action="store_true", help="remember each, so that /stats knows the minutes")
    chosen = parser.parse_args()
    _allow_many_connections()
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    default = Plausible(turns=chosen.turns, delay=chosen.delay)
    with Provider(default=default, port=chosen.port, keep_requests=chosen.keep_requests) as provider:
        with contextlib.suppress(_Ended):
            _say({"url": provider.url, "openai_url": provider.openai_url, "pid": os.getpid()})
            sys.stdin.read()
        _say(provider.stats())


class _Ended(BaseException):
    pass


def _end(*_: object) -> None:
    raise _Ended


def _allow_many_connections() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 (who started this reads it)


if __name__ == "__main__":
    main()
