"""`longwatch replay`: does folding everything again give the same bytes?"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import exits, options
from engine.cli.client import application_of, settings_of
from engine.cli.output import cell, console, emit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from engine.replay import Difference, Replay
    from engine.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    *,
    run: Annotated[str, typer.Option("--run", metavar="[WORKFLOW/]KEY", help="Only this run.")] = "",
    until: Annotated[
        str, typer.Option("--until", metavar="TIME", help="Only what came up to this log time (RFC 3339).")
    ] = "",
    most: Annotated[int, typer.Option("--most", min=1, help="Show so many differences, then end.")] = 1,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Fold archive and log again, without running steps, and compare every record and snapshot with what stands.

    What other code folded than the one that is loaded is taken on trust, and counted. Exit code 1 if anything differs;
    the first difference is shown.

    Example: `longwatch replay --run insurance-claim/4711`
    """
    from engine.core.transition import Rules
    from engine.replay import Replayer
    from engine.session import Session

    settings = settings_of(data, log, application)
    loaded = application_of(settings)
    rules = Rules(_ms(settings.early_hold), _ms(settings.retention))
    with Session(settings) as session:
        only = _only(session, run) if run else None
        replayer = Replayer(loaded, session.log, rules=rules, only=only, until=_until(until), most=most)
        with _progress(session, quiet=as_json) as tell:
            result = replayer.run(tell)
    if as_json:
        emit(facts_of(result))
    else:
        _print(result)
    if not result.identical:
        raise typer.Exit(exits.DIFFERS)


def facts_of(result: Replay) -> dict[str, Any]:
    """The result for a program."""
    facts = asdict(result)
    return {"identical": result.identical, **facts, "seconds": round(result.seconds, 3)}


def _only(session: Session, run: str) -> tuple[str, str]:
    from engine.client import find_row

    row = find_row(session.view, run)
    return row.workflow, row.key


def _until(text: str) -> int | None:
    if not text:
        return None
    from datetime import datetime

    from engine.core.context import milliseconds

    try:
        return milliseconds(datetime.fromisoformat(text))
    except ValueError:
        message = f"{text!r} must be RFC 3339 with a zone, such as 2026-01-05T09:00:00Z"
        raise typer.BadParameter(message, param_hint="--until") from None


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


@contextmanager
def _progress(session: Session, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; nothing for programs."""
    if quiet or not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("folding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("folding", total=_held(session) or None)
        yield lambda count: bar.advance(task, count)


def _held(session: Session) -> int:
    """Entries in the log; with an archive the whole is more, and not known."""
    log = session.log
    if session.archive.segments("log", 0):
        return 0
    return sum(log.held("log", partition)[0] for partition in range(log.header.partitions))


def _print(result: Replay) -> None:
    out = console()
    for difference in result.differences:
        _print_difference(difference)
    verdict = "[green]identical[/green]" if result.identical else "[red]different[/red]"
    if result.identical and result.on_trust and not result.records:
        verdict = "[yellow]nothing to compare[/yellow]"
    out.print(
        f"{verdict}: {result.entries:,} entries of {result.runs:,} runs, {result.records:,} records compared "
        f"in {result.seconds:.1f} s"
    )
    if result.on_trust:
        out.print(f"{result.on_trust:,} entries were folded by other code and taken on trust")
    if result.not_yet:
        out.print(f"{result.not_yet:,} entries are not folded by the engine yet")
    if result.unreadable:
        out.print(f"{result.unreadable:,} entries are dead letters")


def _print_difference(difference: Difference) -> None:
    import json

    out = console()
    place = f"partition {difference.partition}, position {difference.position}, record {difference.index}"
    out.print(f"[bold]{cell(difference.workflow)}/{cell(difference.key)}[/bold]  {place}")
    out.print(f"  {cell(difference.reason)}")
    for name, found in (("stands", difference.stands), ("folded", difference.folded)):
        if found is not None:
            out.print(f"  {name}  {cell(json.dumps(found, ensure_ascii=False))}")
