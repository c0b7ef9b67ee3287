"""Whether other code may go on where an engine was: from a clean stop always, after a crash when somebody says so.

What was folded since the last checkpoint is folded again after a crash. Under changed code it may come out otherwise
than before, although its outputs have been seen; so the engine says how much that is and asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.core.context import moment
from engine.log.janitor import covered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.data_folder import DataFolder, EngineFile
    from engine.log.redis_log import RedisLog


class CodeChanged(Exception):
    """A workflow's code is not what it was when the engine crashed; `workflows` names them, `entries` says how much."""

    def __init__(self, workflows: tuple[str, ...], entries: int, since: str) -> None:
        self.workflows, self.entries, self.since = workflows, entries, since
        names = ", ".join(repr(name) for name in workflows)
        super().__init__(
            f"the code of {names} has changed, and the engine did not stop cleanly: {entries} entries since {since} "
            "were folded by the old code and would be folded again by the new. Changed code starts from a clean stop: "
            "run the old code, stop it with Ctrl-C, then run the new one; or go on as it is with --accept"
        )

    def __reduce__(self) -> tuple[type[CodeChanged], tuple[tuple[str, ...], int, str]]:
        """Survive pickling, which calls the class with its facts."""
        return CodeChanged, (self.workflows, self.entries, self.since)


def check_code(last: EngineFile, code: Mapping[str, str], folder: DataFolder, log: RedisLog) -> None:
    """Refuse other code than the last engine's, unless that one stopped cleanly or nothing would be folded again.

    Raises:
        CodeChanged: with how many entries it is about.

    """
    changed = tuple(sorted(name for name, digest in last.code.items() if code.get(name) != digest))
    if last.stopped or not changed:
        return
    checkpoint = folder.newest_checkpoint()
    entries = _entries_since(log, checkpoint)
    if entries:
        since = f"the checkpoint of {moment(checkpoint):%Y-%m-%d %H:%M:%S} UTC" if checkpoint else "the beginning"
        raise CodeChanged(changed, entries, since)


def _entries_since(log: RedisLog, checkpoint: int) -> int:
    """How many entries an engine passed that a checkpoint made at a wall time does not hold, at most."""
    publications = log.publications()
    held = covered(publications, checkpoint)
    passed = {partition: at for publication in publications for partition, at in publication.positions.items()}
    return sum(sum(1 for _ in log.scan("log", p, held.get(p), until)) for p, until in passed.items())
