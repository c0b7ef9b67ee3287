"""`longwatch lineage`: what an event caused, and what led to a decision."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.output import cell, complain, console, emit

if TYPE_CHECKING:
    from engine.session import Session
    from observability.lineage import Happening, Lineage


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("lineage")(lineage)


def lineage(
    target: Annotated[
        str,
        typer.Argument(metavar="[WORKFLOW/]KEY|EVENT", help="A run, or the id of an event.", show_default=False),
    ],
    *,
    up: Annotated[bool, typer.Option("--up", help="Only what led to it.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what came of it.")] = False,
    depth: Annotated[int, typer.Option("--depth", min=0, help="Through so many runs.")] = 20,
    scan: Annotated[
        bool, typer.Option("--scan", help="Look through the whole journal for what keys and ids do not tell.")
    ] = False,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what led to where a run is, or to an event, and what came of it, through all workflows.

    An event that a run published is found by its id; one from outside is looked for in the whole journal.

    Example: `longwatch lineage 4711 --up`, or `longwatch lineage 1f2e3d4c5b6a7988.12.0`
    """
    from engine.journal import Journal
    from engine.session import Session
    from observability.lineage import Lineage

    settings = options.settings(data=data, log=log)
    with Session(settings) as session:
        session.refresh(start=True)
        view = session.view
        follow = Lineage(Journal(session), view.of_run, depth, scans=scan, progress=_looked)
        upwards, downwards = _trees(session, follow, target, up=up, down=down)
    if as_json:
        emit(_facts(target, upwards, downwards))
        return
    if upwards is not None:
        _draw("what led to it", upwards)
    if downwards is not None:
        _draw("what came of it", downwards)


def _trees(
    session: Session, follow: Lineage, target: str, *, up: bool, down: bool
) -> tuple[Happening | None, Happening | None]:
    """Upwards and downwards; both, unless one is asked for.

    Raises:
        UnknownRun, AmbiguousKey: there is neither a run nor an event of this name, or several runs.
    """
    from engine.cli.trace import find
    from engine.journal import Journal
    from engine.reports import UnknownRun
    from observability.lineage import PUBLISHED

    both = up == down
    if not PUBLISHED.fullmatch(target):
        with contextlib.suppress(UnknownRun):  # then it may be an event's id
            row, _ = find(session, target)
            records = Journal(session).records(row)
            if records:
                return (
                    follow.up_from_run(records) if up or both else None,
                    follow.down_from_run(records) if down or both else None,
                )
    taken = follow.taken(target, _sent_to(session, target))
    if not taken and not PUBLISHED.fullmatch(target):
        raise UnknownRun(f"there is neither a run nor an event {target!r} here; `longwatch list` shows the runs")
    return (
        follow.up_from_event(target, taken) if up or both else None,
        follow.down_from_event(target, taken) if down or both else None,
    )


def _sent_to(session: Session, id_: str) -> str:
    """The key that a published event was sent to; empty: it has to be looked for.

    Raises:
        UnknownRun: its id says which run published it, and there is none.
    """
    from engine.journal import Journal
    from engine.reports import UnknownRun
    from observability.lineage import PUBLISHED

    found = PUBLISHED.fullmatch(id_)
    if found is None:
        return ""
    row = session.view.of_run(found[1])
    if row is None:
        raise UnknownRun(f"there is no run {found[1]}, which would have published {id_}")
    published = (each for record in Journal(session).records(row) for each in record.published if each.id == id_)
    event = next(published, None)
    if event is None:
        raise UnknownRun(f"{row.workflow}/{row.key} has published no event {id_}")
    return event.key


def _looked(count: int) -> None:
    if sys.stderr.isatty():
        complain(f"looked through {count:,} records so far")


def _facts(target: str, upwards: Happening | None, downwards: Happening | None) -> dict[str, Any]:
    import msgspec

    found = {"up": upwards, "down": downwards}
    return {"target": target, **{name: msgspec.to_builtins(each) for name, each in found.items() if each is not None}}


def _draw(title: str, top: Happening) -> None:
    from rich.tree import Tree

    tree = Tree(f"[bold]{title}[/bold]")
    _add(tree, top)
    out = console()
    if not out.is_terminal:
        out.width = 1000
    out.print(tree)


def _add(tree: Any, happening: Happening) -> None:  # noqa: ANN401 - rich's tree, which is imported late
    from engine.cli.trace_shape import moment, short

    run = f"{happening.workflow}/{happening.key} " if happening.workflow else f"for {happening.key} "
    number = f"#{happening.seq}" if happening.seq else happening.id
    moves = f" -> {' -> '.join(happening.moves)}" if happening.moves else ""
    by = f" by {happening.who}" if happening.who else ""
    source = f" from {happening.source}" if happening.source else ""
    when = moment(happening.at) if happening.at else ""
    note = f"  [yellow]{cell(short(happening.note))}[/yellow]" if happening.note else ""
    where = f"[dim]{cell(run if happening.key else '')}{cell(number)}  {when}[/dim]"
    branch = tree.add(f"[cyan]{cell(happening.what)}[/cyan]{cell(by)}{cell(source)}{cell(moves)}  {where}{note}")
    for each in happening.below:
        _add(branch, each)
