"""The spans that a log says there are, all of them at once: what a server is compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from engine.core.trace import episode_trace, run_trace

if TYPE_CHECKING:
    from engine.core.record import Record
    from observability.projection import Projection
    from observability.span import Attributes, Span


class Expected:
    """Spans by trace, and which traces are not at their end."""

    def __init__(self, projection: Projection, resource: Attributes = ()) -> None:
        self.resource = resource
        """What all spans say of where they come from."""
        self.traces: defaultdict[str, list[Span]] = defaultdict(list)
        self.episodes = 0
        """Those that have ended."""
        self._projection = projection
        self._finished: dict[str, bool] = {}
        self._begun: dict[tuple[str, int], str] = {}

    @classmethod
    def of(cls, records: Iterable[Record], projection: Projection, resource: Attributes = ()) -> Self:
        """All that these records say."""
        made = cls(projection, resource)
        for record in records:
            made.add(record)
        return made

    def add(self, record: Record) -> None:
        """Take in one record; those of a run come in their order."""
        for span in self._projection.spans(record):
            self.traces[span.trace].append(span)
        if record.run:
            self._finished[record.run] = self._finished.get(record.run, False) or bool(record.began)
        if record.episode is None:
            return
        self.episodes += record.ends
        name = (record.run, record.episode.seq)
        if record.ends:
            self._begun.pop(name, None)
        else:
            self._begun[name] = episode_trace(record.run, record.episode)

    @property
    def runs(self) -> int:
        return len(self._finished)

    @property
    def open(self) -> set[str]:
        """Traces that have spans whose parent is still to come: of runs that go on, and of episodes under way."""
        going_on = {run_trace(run) for run, finished in self._finished.items() if not finished}
        return going_on | set(self._begun.values())
