"""What stands on log and journal after a simulated run, for whoever reads it there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.core.entry import Entry, write_entry
from engine.core.record import write_record
from engine.core.transition import Place, Reaction
from engine.log.protocol import Item, output_id
from engine.testing import RecordedAnswers, Simulation
from engine.testing.run import MemoryRun


class FoldedLog:
    """What stands on log and journal after a simulated run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.items: dict[tuple[str, str], bytes] = {}
        fold = MemoryRun.fold

        def watched(run: MemoryRun, entry: Entry, place: Place) -> Reaction:
            self.items["log", place.position] = write_entry(entry)
            reaction = fold(run, entry, place)
            for record in reaction.records:
                self.items["journal", output_id(place.position, record.index)] = write_record(record)
            return reaction

        monkeypatch.setattr(MemoryRun, "fold", watched)

    def get(self, topic: str, partition: int, item: str) -> Item | None:
        found = self.items.get((topic, item))
        return None if found is None else Item(item, 0, found)

    def row(self, run: Simulation[Any]) -> Any:
        """What of the view's row is looked at."""
        last = run.records[-1]
        place = output_id(last.entry, last.index)
        return SimpleNamespace(workflow=run.workflow.name, key=run.key, partition=0, last=place, data=place)

    def recorded(self, run: Simulation[Any]) -> RecordedAnswers:
        log: Any = self
        return RecordedAnswers.from_records(log, self.row(run))
