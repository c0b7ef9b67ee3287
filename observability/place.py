"""How far the exporter has come in each partition, and its figures, in one small file: `<data>/exporter.json`.

The place moves over what the collector has acknowledged, and is written whole or not at all after each batch. So an
exporter that is killed sends the one batch again that was under way, and nothing else.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)


class ExporterFile(Struct, omit_defaults=False):
    """What the file holds; the metrics are made of it."""

    log_id: str = ""
    at: int = 0
    """When it was written, wall ms: an exporter that lives writes every few seconds."""
    places: dict[int, str] = {}
    """The id of the last record of a partition whose spans are all acknowledged."""
    records: dict[int, int] = {}
    """How many records of a partition stand up to its place."""
    sent: int = 0
    refused: int = 0
    refusals: dict[str, int] = {}
    failures: dict[str, int] = {}
    lag_ms: int = 0
    """Age of the oldest record that was read and is not sent yet (wall time); 0: there is none."""
    lag_records: int = 0
    """How many records were read and are not sent yet; behind them there may be more."""
    endpoint: str = ""
    last_error: str = ""
    """Why nothing gets through now; empty: it does."""


class Place:
    """The file of one exporter."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, log_id: str) -> ExporterFile:
        """Where an exporter of this log stands; at its beginning if the file is missing, damaged or of another log."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=ExporterFile)
        except FileNotFoundError:
            return ExporterFile(log_id)
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("%s cannot be read (%s): all is sent again from the log's beginning", self._path, error)
            return ExporterFile(log_id)
        if found.log_id != log_id:
            if found.log_id:
                _log.warning("%s is of another log: all of this one is sent", self._path)
            return ExporterFile(log_id, sent=found.sent, refusals=found.refusals, failures=found.failures)
        return found

    def write(self, file: ExporterFile) -> None:
        """Write it whole or not at all."""
        file.at = time.time_ns() // 1_000_000
        aside = self._path.with_name(self._path.name + ".new")
        aside.write_bytes(msgspec.json.encode(file) + b"\n")
        aside.replace(self._path)


def behind(places: Mapping[int, str], partitions: int) -> dict[int, str | None]:
    """The same for all partitions, as a journal is followed."""
    return {partition: places.get(partition) for partition in range(partitions)}
