"""Fold tapes again in an interpreter of its own: `python -m tests.core.refold < tapes`, one digest a line."""

from __future__ import annotations

import sys

import msgspec

from tests.core.engine_model import Tape, batch, digest
from tests.core.machine import machine


def main() -> None:
    for tape in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Tape]):
        sys.stdout.write(digest(*batch(machine, tape)) + "\n")


if __name__ == "__main__":
    main()
