"""Keeps the log bounded: what the oldest retained checkpoint has passed goes to the archive and leaves the server.

Which positions a checkpoint holds is known by time: cursors publish the positions that they have passed, and a
checkpoint that was triggered after a publication holds those positions or later ones. Should a clock have lied, no
entry is lost: a cursor that comes back to an older position finds what is missing in the archive.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from engine.log.archive import DAY_MS, Archive
from engine.log.protocol import START, Position, Publication, order_of
from engine.log.redis_log import TRIMMED_TOPICS, RedisLog, end_of_trim


@dataclass(frozen=True)
class Tidying:
    """What one round of the janitor did."""

    trimmed: dict[int, Position]
    segments: int
    """Files that the archive has gained."""
    forgotten: int
    """Files of dead letters whose retention is over."""


class Janitor:
    """The one who archives and trims a log; one a log, in the process that holds the lease."""

    def __init__(
        self,
        log: RedisLog,
        archive: Archive,
        *,
        most_entries: int = 10_000,
        longest_ms: int = 3_600_000,
        dead_days: int = 30,
    ) -> None:
        """Remove what a crash left in the archive, and be ready.

        Args:
            log: which; its lease fences the trimming.
            archive: where to.
            most_entries: a partition is archived when it holds so many entries,
            longest_ms: or when its oldest is as old: both keep the archive's files from being many and small.
            dead_days: dead letters are kept so long in the archive.
        """
        self.log = log
        self.archive = archive
        self.most_entries = most_entries
        self.longest_ms = longest_ms
        self.dead_days = dead_days
        archive.clean()

    def tidy(self, triggered: int, *, everything: bool = False) -> Tidying:
        """Archive and trim what a checkpoint has passed.

        Args:
            triggered: when the oldest retained completed checkpoint was triggered, wall ms.
            everything: small and young parts too.

        Raises:
            LogUnavailable: the server is away; what was not trimmed is found at the next round.
            Fenced: another engine has taken the log.
        """
        publications = self.log.publications()
        segments, trimmed = 0, {}
        for partition, through in covered(publications, triggered).items():
            if everything or self._is_due(partition):
                segments += archive_through(self.log, self.archive, partition, through)
                trimmed[partition] = through
        self.log.forget_publications(spent(publications, triggered))
        kept_since = _now() - self.dead_days * DAY_MS
        return Tidying(trimmed, segments, self.archive.forget("dead", kept_since))

    def _is_due(self, partition: int) -> bool:
        count, oldest = self.log.held("log", partition)
        return oldest is not None and (count >= self.most_entries or _now() - oldest >= self.longest_ms)


def archive_through(log: RedisLog, archive: Archive, partition: int, through: Position) -> int:
    """Move a partition's entries up to a position, and what was made of them, to the archive; how many files it gave.

    Verdicts are dropped: the journal's record of a halt holds its verdict.
    """
    segments = 0
    for topic in TRIMMED_TOPICS:
        held = log.scan_held(topic, partition, archive.end(topic, partition), end_of_trim(topic, through))
        segments += sum(1 for _ in archive.write(topic, partition, held))
    log.trim(partition, through)
    return segments


def covered(publications: Sequence[Publication], triggered: int) -> dict[int, Position]:
    """The positions that a checkpoint triggered at a wall time holds at least.

    A publication after it counts when it is lower: then a cursor went back, and the checkpoint may be of that time.
    """
    known = _before(publications, triggered)
    found: dict[int, Position] = {}
    for publication in publications[:known]:
        found.update(publication.positions)
    for publication in publications[known:]:
        for partition in publication.positions.keys() & found.keys():
            found[partition] = min(found[partition], publication.positions[partition], key=order_of)
    return {partition: position for partition, position in sorted(found.items()) if position != START}


def spent(publications: Sequence[Publication], triggered: int) -> int:
    """How many of the first publications say nothing any more: later ones, before the checkpoint too, replace them."""
    known = _before(publications, triggered)
    newest = {partition: i for i, publication in enumerate(publications[:known]) for partition in publication.positions}
    return min(newest.values(), default=0)


def _before(publications: Sequence[Publication], triggered: int) -> int:
    """How many were made before a wall time, up to the first that was not: then the clock may have been set back."""
    return next((i for i, publication in enumerate(publications) if publication.at >= triggered), len(publications))


def _now() -> int:
    return int(time.time() * 1000)
