"""What is compared whenever somebody who knows a log comes to it again."""

from __future__ import annotations

from typing import Final

from engine.log.errors import LogLost, LogMismatch
from engine.log.protocol import Header, Position, order_of


def check_partition(header: Header, partition: int) -> None:
    """Refuse a partition that the log does not have.

    Raises:
        LogMismatch: there is no such partition.
    """
    if not 0 <= partition < header.partitions:
        count = header.partitions
        msg = f"partition {partition}: log {header.log_id} has {count}, fixed when it was made; use 0 to {count - 1}"
        raise LogMismatch(msg)


def check_settings(header: Header, partitions: int | None, lapse: float | None, where: object) -> None:
    """Refuse settings that differ from those that the log was made with; None takes any.

    Raises:
        LogMismatch: one differs.
    """
    wanted = {"partitions": (partitions, header.partitions), "lapse": (lapse, header.lapse)}
    for name, (asked, fixed) in wanted.items():
        if asked is not None and asked != fixed:
            msg = (
                f"log {where}: {name} {asked} was asked for and the log was made with {fixed}; "
                "it is fixed for the log's life: leave the setting out, or start a new data folder"
            )
            raise LogMismatch(msg)


def check_same_log(header: Header, log_id: str | None, where: object) -> None:
    """Refuse another log than the one that is known.

    Raises:
        LogLost: `log_id` is given and is not the header's.
    """
    if log_id is not None and header.log_id != log_id:
        msg = (
            f"log {where}: it is log {header.log_id}, and the positions at hand are of log {log_id}; "
            "point the engine at the old log, or give it a new data folder"
        )
        raise LogLost(msg)


END_LOST: Final = "its end is lost"
"""In the words of a log that ends before, or has a gap at, a position that was read: an older checkpoint may help."""


def check_end(header: Header, partition: int, position: Position, tail: Position | None) -> None:
    """Refuse a position that the log has not reached.

    Raises:
        LogMismatch: there is no such partition.
        LogLost: the position is ahead of the log's end.
    """
    check_partition(header, partition)
    if order_of(position) > order_of(tail or "0-0"):
        raise _end_lost(header, partition, position, f"the log ends at {tail or 'nothing'}")


def check_entry(header: Header, partition: int, position: Position, trimmed: Position, *, held: bool) -> None:
    """Refuse a position whose entry is gone: the log lost its end and was then written on, so its tail says nothing.

    Args:
        header: of the log.
        partition: which.
        position: that was read.
        trimmed: up to here the archive has the entries.
        held: whether the server holds the entry at `position`.

    Raises:
        LogLost: the log neither holds the entry nor trimmed it.
    """
    if not held and order_of(position) > order_of(trimmed):
        raise _end_lost(header, partition, position, "the log has no such entry any more")


def _end_lost(header: Header, partition: int, position: Position, found: str) -> LogLost:
    return LogLost(
        f"log {header.log_id}, partition {partition}: position {position} was read once and {found}: {END_LOST}; "
        "`longwatch run` goes back to the newest checkpoint that the log still covers, or give the log its files back"
    )
