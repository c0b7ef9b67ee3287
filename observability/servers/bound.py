"""Become another program that ends when the process that started it ends: `bound.py PARENT PROGRAM WORD...`.

Run as a file of its own (`python -I -S bound.py`), so that nothing is imported that is not needed. The kernel keeps
PR_SET_PDEATHSIG over an exec (prctl(2)), and counts the *thread* that started a process as its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl(2)."""


def command(program: list[str]) -> list[str]:
    """The words that start a program, given by its path, as one that ends with this thread."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *program]  # noqa: PTH100 (see above)


def main() -> None:
    """Bind this process to its parent and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 (no shell is wanted)


if __name__ == "__main__":
    main()
