"""What `longwatch trace` does with spans beside showing them: a file, or a collector."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from engine.cli.output import complain, emit, line
from engine.core.errors import LongwatchError
from observability.delivery import Delivery, Tally
from observability.sampling import MS_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO

    from engine.core.record import Record
    from engine.journal import Header, Journal
    from engine.settings import Settings
    from observability.sender import Answer

_DURATION = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_PLAIN = re.compile(r"https?://[^\s@*?]+")
"""A URL as an exporter's file holds it: what was secret in it is gone or masked, and without that it is of no use."""
_ROWS = 1_000
_LAST_SEQ = (1 << 64) - 1


class NotSent(LongwatchError):
    """A collector that does not take spans."""

    exit_code = 8


def export_run(
    settings: Settings, header: Header, records: Sequence[Record], file: Path | None, *, export: bool, as_json: bool
) -> None:
    """Write and send the spans of these records, whatever the rule for traces says."""
    from observability.otlp import Encoder, resource_of, to_json
    from observability.projection import Projection

    projection, resource = Projection(header), resource_of(header.log_id)
    encoder = Encoder(projection, resource)
    spans = [raw for record in records for raw in encoder.spans(record)]
    told: dict[str, Any] = {"spans": len(spans)}
    if file is not None:
        with _opened(file) as out:
            if file.suffix == ".json":
                out.write(to_json([span for record in records for span in projection.spans(record)], resource))
            else:
                out.write(encoder.request(spans))
        told["file"] = str(file)
    if export:
        with _collector(settings, header.log_id, encoder.request) as (send, facts):
            for start in range(0, len(spans), _ROWS):
                send(spans[start : start + _ROWS])
            told |= facts
    _tell(told, as_json=as_json)


def export_all(
    settings: Settings, since: str, until: str, file: Path | None, *, workflow: str, export: bool, as_json: bool
) -> None:
    """Write and send the spans of all records of a stretch of time, by the rule for traces."""
    from engine.journal import Journal
    from engine.session import Session
    from observability.batch import Batcher
    from observability.otlp import Encoder, resource_of
    from observability.projection import Projection
    from observability.sampling import Rule, Sampler

    rule = Rule.read(settings.trace_rule)
    if file is not None and file.suffix == ".json":
        raise typer.BadParameter("all runs are written as protobuf only: another suffix", param_hint="--otlp")
    with contextlib.ExitStack() as stack:
        journal = Journal(stack.enter_context(Session(settings)))
        header = journal.header
        encoder = Encoder(Projection(header), resource_of(header.log_id))
        sampler = Sampler(rule, journal, encoder.spans)
        out = stack.enter_context(_opened(file)) if file is not None else None
        collector = _collector(settings, header.log_id, encoder.request)
        send, facts = stack.enter_context(collector) if export else (None, {})
        told: dict[str, Any] = {"records": 0, "spans": 0}

        def hand_on(spans: Sequence[bytes]) -> None:
            told["spans"] += len(spans)
            if out is not None and spans:
                out.write(encoder.request(spans))
            if send is not None:
                send(spans)

        batcher = Batcher()
        now = header.log_time(int(time.time() * 1000))
        stretch = _stretch(journal, _moment(since, now, "--since"), _moment(until, now, "--until"))
        for record in (each for each in stretch if workflow in ("", each.workflow)):
            told["records"] += 1
            for batch in batcher.add(0, "", 0, 0, sampler.spans(record)):
                hand_on(batch.spans)
            _say_how_far(told)
        hand_on(batcher.take().spans)
    _tell(told | facts | ({} if file is None else {"file": str(file)}), as_json=as_json)


def _say_how_far(told: dict[str, Any]) -> None:
    if told["records"] % 20_000 == 0 and sys.stderr.isatty():
        complain(f"{told['records']:,} records, {told['spans']:,} spans so far")


def _stretch(journal: Journal, since: int | None, until: int | None) -> Iterator[Record]:
    """Records made from `since` on and before `until` (log ms), partition by partition."""
    from engine.core.record import read_record

    header = journal.header
    after = None if since is None else f"{header.wall_time(since) - 1}-{_LAST_SEQ}"
    last = None if until is None else f"{header.wall_time(until) - 1}-{_LAST_SEQ}"
    for partition in range(header.partitions):
        for item in journal.scan(partition, after, last):
            yield read_record(item.payload)


def _moment(text: str, now: int, option: str) -> int | None:
    """Log ms of a date, a time, or so long ago.

    Raises:
        BadParameter: it is none of these.
    """
    from datetime import UTC, datetime

    if not text:
        return None
    if found := _DURATION.fullmatch(text.strip()):
        return now - int(found[1]) * MS_OF[found[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} must be a time like 2026-03-01 or 2026-03-01T09:00, or so long ago, like 30d"
        raise typer.BadParameter(message, param_hint=option) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _opened(file: Path) -> BinaryIO:
    """A file to write.

    Raises:
        BadParameter: it cannot be written, and why.
    """
    if not file.parent.is_dir():
        message = f"there is no folder {file.parent}: make it first, or name a file in one that there is"
        raise typer.BadParameter(message, param_hint="--otlp")
    try:
        return file.open("wb")
    except OSError as error:
        message = f"{file} cannot be written ({error.strerror}): name another file"
        raise typer.BadParameter(message, param_hint="--otlp") from None


def _endpoint(settings: Settings, log_id: str) -> str:
    """The collector that is set, else the one to which this log's engine last sent.

    Raises:
        BadParameter: there is neither.
    """
    import os

    import msgspec

    from observability.place import ExporterFile

    if settings.otlp:
        return settings.otlp
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise typer.BadParameter("OTEL_SDK_DISABLED is true, so nothing is sent: unset it", param_hint="--export")
    with contextlib.suppress(OSError, msgspec.DecodeError):
        told = msgspec.json.decode((settings.data / "exporter.json").read_bytes(), type=ExporterFile)
        if told.log_id == log_id and _PLAIN.fullmatch(told.endpoint):
            return told.endpoint
    message = "there is no collector, and the engine sends to none: give --endpoint URL, or set `otlp`"
    raise typer.BadParameter(message, param_hint="--export")


class _Once(Delivery):
    """Delivers without waiting, and so does not promise to send again."""

    def _tell(self, answer: Answer) -> None:
        self.tally.trouble = f"{answer.reason}: {answer.words}" if answer.words else answer.reason


@contextlib.contextmanager
def _collector(
    settings: Settings, log_id: str, request: Callable[[Sequence[bytes]], bytes]
) -> Iterator[tuple[Callable[[Sequence[bytes]], None], dict[str, Any]]]:
    """How to send, and what became of it in the end; a collector that is away is not waited for.

    Raises:
        NotSent: it takes nothing.
    """
    import os
    from threading import Event

    from observability.sender import Collector, open_sender

    collector = replace(Collector.of(settings, os.environ), url=_endpoint(settings, log_id))
    tally, stopping = Tally(), Event()
    stopping.set()
    sender = open_sender(collector)
    delivery = _Once(sender, request, tally, stopping, where=collector.shown)
    facts: dict[str, Any] = {"endpoint": collector.shown}

    def send(spans: Sequence[bytes]) -> None:
        if spans and not delivery.deliver(spans):
            why = tally.trouble or "it refuses them"
            raise NotSent(f"{collector.shown} takes no spans: {why}; nothing is lost, --endpoint URL names another one")
        facts["sent"] = tally.sent
        facts["refused"] = tally.refused

    try:
        yield send, facts
    finally:
        sender.close()


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(told)
        return
    parts = [f"{told['spans']:,} spans"]
    if "records" in told:
        parts.append(f"of {told['records']:,} records")
    if "file" in told:
        parts.append(f"in {told['file']}")
    if "endpoint" in told:
        refused = f", {told['refused']:,} refused" if told.get("refused") else ""
        parts.append(f"sent to {told['endpoint']}: {told.get('sent', 0):,} taken{refused}")
    line(" ".join(parts))
