"""`longwatch send`: events from files or a pipe, checked and appended to the log."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from engine.carrier import NAMES
from engine.cli import exits, options
from engine.cli.client import Timeout, application_of, ask, settings_of, time
from engine.cli.output import cell, complain, console, emit
from engine.cli.shape import run_facts, sent_facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from engine.client import Client
    from engine.reports import Run, Sent

CHUNK = 1 << 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("send")(send)


def send(
    files: Annotated[
        list[str],
        typer.Argument(metavar="EVENT.json ...", help="Files, or - for standard input.", show_default=False),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the events' records are in the view.")] = False,
    until_rest: Annotated[
        bool, typer.Option("--until-rest", help="Wait until the runs wait again, are halted or finished.")
    ] = False,
    timeout: Timeout = 30,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header",
            metavar="NAME:VALUE",
            help="The trace that the events come from: traceparent, tracestate, baggage or uber-trace-id.",
        ),
    ] = None,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Send CloudEvents 1.0: each is checked against its event's schema, appended to the log, and its receipt printed.

    A file holds one event, an array of them, or one a line; a pipe is sent as it comes. Works before `longwatch run`
    too: what is sent waits on the log. An event with an id that its run has taken before changes nothing.

    What is refused is named on standard error with its field and reason; the others are sent; exit code 3. Exit code 5
    if the time ran out while waiting: the events stand on the log all the same.

    Example: `longwatch events ClaimFiled --example | longwatch send - --until-rest`
    """
    settings = settings_of(data, log, application)
    post = _Post(as_json=as_json, headers=_headers(header or []))

    async def work(client: Client) -> list[Run]:
        for name in files:
            for batch in read_events(name):
                await post.send(client, batch)
        if until_rest and post.sent:
            return await client.until_rest(post.sent, timeout=timeout)
        if wait:
            await client.wait_for(post.sent, timeout=timeout)
        return []

    _check_files(files)
    for run in ask(work, settings, application_of(settings)):
        if as_json:
            emit(run_facts(run))
        else:
            since = f" since {time(run.since)}" if run.since else ""
            why = f": {cell(run.error)}" if run.error else ""
            console().print(f"{cell(run.address)} is in [bold]{cell(run.state)}[/bold] ({run.status}){since}{why}")
    if post.refused:
        raise typer.Exit(exits.REFUSED)


@dataclass
class _Post:
    """What was sent in one call, told as it goes."""

    as_json: bool
    headers: dict[str, str]
    sent: list[Sent] = field(default_factory=list)
    refused: int = 0

    async def send(self, client: Client, batch: list[tuple[str, bytes]]) -> None:
        from engine.core.errors import EventRefused

        good: list[bytes] = []
        for where, raw in batch:
            try:
                client.check(raw)
            except EventRefused as error:
                self.refused += 1
                complain(f"{where}: refused: {error}")
            else:
                good.append(raw)
        for each in await client.send(*good, headers=self.headers) if good else ():
            self.sent.append(each)
            self._tell(each)

    def _tell(self, each: Sent) -> None:
        if self.as_json:
            emit(sent_facts(each))
        else:
            place = f"partition {each.receipt.partition}, position {each.receipt.position}"
            console().print(f"{cell(each.id)} -> {cell(each.workflow)}/{cell(each.key)}  [dim]{place}[/dim]")


def _headers(lines: list[str]) -> dict[str, str]:
    found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    for name in found:
        if name not in NAMES:
            known = ", ".join(sorted(NAMES))
            message = f"{name!r} is no header of a trace; write NAME:VALUE with one of {known}"
            raise typer.BadParameter(message, param_hint="--header")
    return found


def read_events(name: str) -> Iterator[list[tuple[str, bytes]]]:
    """Batches of (where it stood, JSON): one document, one array, or lines as they come."""
    if name == "-":
        yield from _stream(sys.stdin.buffer, "standard input")
        return
    from pathlib import Path

    with Path(name).open("rb") as file:
        yield from _stream(file, name)


def _stream(file: BinaryIO, name: str) -> Iterator[list[tuple[str, bytes]]]:
    """The first line tells: if it is JSON by itself, each line is an event; else the whole is one document."""
    head = file.readline()
    while head and not head.strip():
        head = file.readline()
    if not _is_whole(head):
        yield _documents(head + file.read(), name)
        return
    number, rest = 1, head
    while rest or (rest := _next_chunk(file)):
        if not rest.endswith(b"\n"):
            more = file.readline()
            rest += more
        batch = [(f"{name}:{number + i}", raw) for i, raw in enumerate(rest.splitlines()) if raw.strip()]
        number += rest.count(b"\n")
        if batch:
            yield _opened(batch)
        rest = b""


def _next_chunk(file: BinaryIO) -> bytes:
    """What is there to read, without waiting for more than something."""
    read = getattr(file, "read1", file.read)
    chunk: bytes = read(CHUNK)
    return chunk


def _is_whole(line: bytes) -> bool:
    import msgspec

    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def _opened(batch: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """A line that holds an array is as many events."""
    return [
        each
        for where, raw in batch
        for each in (_documents(raw, where) if raw.lstrip()[:1] == b"[" else [(where, raw)])
    ]


def _documents(raw: bytes, where: str) -> list[tuple[str, bytes]]:
    import msgspec

    if raw.lstrip()[:1] != b"[":
        return [(where, raw)]
    try:
        parts = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return [(where, raw)]
    return [(f"{where}[{index}]", bytes(part)) for index, part in enumerate(parts)]


def _check_files(files: list[str]) -> None:
    """All files are there before the first event is sent."""
    from pathlib import Path

    # A pipe is as good as a file: `send <(make-events)`.
    missing = [name for name in files if name != "-" and (not Path(name).exists() or Path(name).is_dir())]
    if missing:
        raise typer.BadParameter(f"there is no file {', '.join(missing)}", param_hint="EVENT.json")
