"""Ports on loopback for servers that are started here."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Final

LOOPBACK: Final = "127.0.0.1"


def free_ports(wanted: tuple[int, ...]) -> list[int]:
    """A free port for each wish: the wished one where it is free, else any; 0 wishes none.

    Another program may take one before it is used: who starts a server tries again then.
    """
    with ExitStack() as held:  # until all are found, so that none is given twice
        return [_take(held, wish) for wish in wanted]


def _take(held: ExitStack, wish: int) -> int:
    for port in (wish, 0) if wish else (0,):
        place = held.enter_context(socket.socket())
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no obstacle
        try:
            place.bind((LOOPBACK, port))
            place.listen()
        except OSError:
            continue
        return int(place.getsockname()[1])
    raise OSError(f"no port is free on {LOOPBACK}")
