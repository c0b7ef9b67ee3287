"""`longwatch list`, `show` and `history`: which runs there are, where one stands, and how it came there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.client import (
    InState,
    OfWorkflow,
    Target,
    Where,
    application_if_any,
    ask,
    filter_of,
    settings_of,
    time,
)
from engine.cli.gates import gate_facts, gate_words
from engine.cli.output import cell, console, emit, table
from engine.cli.shape import detail_facts, line_facts, run_facts

if TYPE_CHECKING:
    from datetime import datetime

    from engine.budgets import BudgetState
    from engine.client import Client
    from engine.core.entry import Used
    from engine.core.record import PendingCall
    from engine.inbox import InboxItem
    from engine.reports import Detail, Line, Move, Run
    from engine.view.view import After, Count

LONGEST = 160
"""Characters of a foreign text in one cell for people."""
WAITS = {
    "queued": "waits for its turn",
    "asking": "waits for a person",
    "asked": "waits for another run",
    "reserving": "waits for the budget that it shares (longwatch budgets)",
}
"""What a call waits for that does not run."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(list_runs)
    app.command("show")(show)
    app.command("history")(history)


def list_runs(
    workflow: OfWorkflow = "",
    state: InState = "",
    status: Annotated[str, typer.Option("--status", help="running, waiting, halted or finished.")] = "",
    where: Where = None,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many at most.")] = 100,
    after: Annotated[
        str, typer.Option("--after", metavar="RUN", help="Go on behind this run: the last one of the page before.")
    ] = "",
    count: Annotated[bool, typer.Option("--count", help="Only how many runs stand where.")] = False,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """List runs, the newest first. All that is asked for must fit.

    Fields that a workflow marks with `Searchable` are found with `--where`.

    Example: `longwatch list --status waiting --where region=north --limit 20`
    """
    wanted = filter_of(workflow, state, _known_status(status), where)
    settings = settings_of(data, log)
    if count:
        _list_counts(ask(lambda client: client.counts(wanted), settings), as_json=as_json)
        return

    async def work(client: Client) -> tuple[list[Run], datetime | None]:
        return await client.list(wanted, limit=limit, after=_after(after)), await client.as_of()

    runs, as_of = ask(work, settings)
    if as_json:
        for run in runs:
            emit(run_facts(run))
    else:
        _print_runs(runs, as_of, full=len(runs) == limit)


def show(
    target: Target,
    *,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where a run is, since when and why, what it waits for and until when, and which calls are in flight.

    Example: `longwatch show insurance-claim/4711`
    """
    settings = settings_of(data, log, application)
    loaded = application_if_any(settings, wanted=application is not None)
    detail = ask(lambda client: client.show(target), settings, loaded)
    if as_json:
        emit(detail_facts(detail))
    else:
        _print_detail(detail)


def history(
    target: Target,
    *,
    bodies: Annotated[bool, typer.Option("--entries", help="With each entry as it stands on the log (JSON).")] = False,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell every entry and transition of a run in order, with what was ignored and why; finished runs too.

    Example: `longwatch history 4711 --json | jq 'select(.ignored)'`
    """
    lines = ask(lambda client: client.history(target, bodies=bodies), settings_of(data, log))
    if as_json or bodies:
        for line in lines:
            emit(line_facts(line, body=bodies))
        return
    rows = [(line.seq, time(line.at), line.entry, _arrow(line), _result(line)) for line in lines]
    table(["seq", "at", "entry", "transition", "result"], rows)


def _known_status(status: str) -> str:
    known = ("running", "waiting", "halted", "finished")
    if status and status not in known:
        raise typer.BadParameter(f"{status!r} is none of {', '.join(known)}", param_hint="--status")
    return status


def _after(text: str) -> After | None:
    """`WORKFLOW/KEY`, with `#RUN_ID` behind it where the page before said so."""
    if not text:
        return None
    workflow, slash, rest = text.partition("/")
    key, sign, run_id = rest.rpartition("#")
    if not slash:
        raise typer.BadParameter(f"{text!r} must be WORKFLOW/KEY", param_hint="--after")
    return (workflow, key, run_id) if sign else (workflow, rest, "")


def _list_counts(counts: list[Count], *, as_json: bool) -> None:
    if as_json:
        for each in counts:
            emit({"workflow": each.workflow, "state": each.state, "status": each.status, "runs": each.runs})
    else:
        rows = [(each.workflow, each.state, each.status, f"{each.runs:,}") for each in counts]
        table(["workflow", "state", "status", "runs"], rows)


def _print_runs(runs: list[Run], as_of: datetime | None, *, full: bool) -> None:
    if runs:
        rows = [(r.workflow, r.key, r.state, r.status, time(r.since), time(r.wakes_at), _short(r.error)) for r in runs]
        columns = ["workflow", "key", "state", "status", "since", "wakes at"]
        if any(run.error for run in runs):
            columns.append("error")
        table(columns, (row[: len(columns)] for row in rows))
    out = console()
    shown = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    out.print(f"[dim]{shown}{f', as of {time(as_of)}' if as_of else ''}[/dim]")
    if full:
        last = runs[-1]
        out.print(f"[dim]the next ones: --after {cell(_quoted(f'{last.address}#{last.run_id}'))}[/dim]")


def _print_detail(detail: Detail) -> None:
    out, run = console(), detail.run
    out.print(f"[bold]{cell(run.address)}[/bold]  run {cell(run.run_id)}, version {run.version}")
    out.print(f"state    [bold]{cell(run.state)}[/bold] ({run.status}) since {time(run.since)}")
    if detail.because:
        out.print(f"because  {cell(_told(detail.because))}")
    _print_halt(detail)
    if detail.last and detail.last != detail.because:
        out.print(f"last     {cell(_told(detail.last))}")
    _print_asks(detail)
    for move in detail.moves:
        out.print(f"{'then   ' if detail.halted else 'waits  '}  {cell(_move(move))}")
    _print_calls(detail)
    if not detail.moves:
        for timer in detail.timers:
            out.print(f"timer    {cell(timer.handler)} at {time(_when(timer.due))}")
    if detail.budget:
        out.print(f"budget   {cell(_spent(detail.budget))}")
    if detail.data is not None:
        out.print(f"data     {cell(json.dumps(detail.data, ensure_ascii=False))}")
    out.print(f"[dim]as of {time(detail.as_of)}; more: longwatch history {cell(_quoted(run.address))}[/dim]")


def _print_halt(detail: Detail) -> None:
    out, run = console(), detail.run
    if detail.halted:
        halted = detail.halted
        where = f" at {halted.where}" if halted.where else ""
        out.print(f"[red]halted[/red]   {cell(halted.error)}{cell(where)}, applying {cell(halted.cause)}")
        out.print(
            f"         go on with: longwatch resume {cell(_quoted(run.address))} (--skip leaves out what halted it)"
        )


def _print_asks(detail: Detail) -> None:
    out, run = console(), detail.run
    for item in detail.asks:
        out.print(f"asks     {cell(_asked(item))}")
    if detail.asks:
        taken = f", taken by {cell(detail.taken)}" if detail.taken else ""
        out.print(f"         to answer: longwatch inbox show {cell(_quoted(run.address))}{taken}")


def _print_calls(detail: Detail) -> None:
    out = console()
    for call in detail.calls:
        again = f", again at {time(_when(call.due))}" if call.due else ""
        error = f": {_short(call.error)}" if call.error else ""
        out.print(
            f"call     {cell(call.step)} ({cell(call.id)}) {_status(call)}, attempt {call.attempt}{again}{cell(error)}"
        )
        if progress := _progress(call):
            out.print(f"         {cell(progress)}")
    if detail.more_calls:
        out.print(f"         and {detail.more_calls:,} more")
    for gate in detail.gates:
        out.print(f"limit    {cell(gate_words(gate_facts(gate)))}")


def _when(ms: int) -> datetime | None:
    from engine.reports import when

    return when(ms)


def _told(line: Line) -> str:
    by = f" by {line.who}" if line.who else ""
    why = f" ({line.why})" if line.why else ""
    ignored = f", {_idle(line)}" if line.ignored else ""
    return f"{line.entry}{by}{why} at {time(line.at)}{ignored}"


def _status(call: PendingCall) -> str:
    return WAITS.get(call.status, call.status)


def _progress(call: PendingCall) -> str:
    """How far a call is."""
    kept = f"{call.kept} result{'' if call.kept == 1 else 's'} kept" if call.kept else ""
    return "; ".join(part for part in (kept, _short(call.note)) if part)


def _asked(item: InboxItem) -> str:
    until = f", until {time(item.until)}" if item.until else ""
    return f"{item.group}: {_short(item.question or item.what)} since {time(item.since)}{until}"


def _spent(budget: BudgetState) -> str:
    from engine.core.budget import euros

    (balance,) = budget.balances
    spent, held, bound = balance.spent, balance.reserved, balance.bound
    of_eur = f" of {euros(bound.cost)}" if bound.cost is not None else ""
    of_tokens = f" of {bound.tokens:,}" if bound.tokens is not None else ""
    reserved = f", reserved {euros(held.cost)} EUR and {held.tokens:,} tokens" if held.cost or held.tokens else ""
    unpriced = f", {budget.unpriced:,} calls without a known price" if budget.unpriced else ""
    return f"{euros(spent.cost)}{of_eur} EUR and {spent.tokens:,}{of_tokens} tokens spent{reserved}{unpriced}"


def _move(move: Move) -> str:
    due = f" (at {time(move.due)})" if move.due else ""
    return f"{move.trigger}{due} -> {' or '.join(move.targets) or '(stays)'}"


def _arrow(line: Line) -> str:
    if line.from_ == line.to:
        return line.to
    return f"{line.from_} -> {line.to}" if line.from_ else f"-> {line.to}"


def _result(line: Line) -> str:
    parts = [
        _idle(line),
        f"by {line.who}" if line.who else "",
        f"from {line.asker}" if line.asker else "",
        line.inner,
        line.note,
        line.why,
        _used(line.used) if line.used else "",
        "what an earlier attempt of it came to is not known" if line.again else "",
        f"attempt {line.attempt}" if line.attempt > 1 else "",
        line.error,
        f"halted: {line.halted.error}" if line.halted and not line.ignored else "",
        f"published {', '.join(line.published)}" if line.published else "",
    ]
    return _short("; ".join(part for part in parts if part))


def _used(used: Used) -> str:
    from engine.core.budget import euros

    price = "price not known" if used.cost is None else f"{euros(used.cost)} EUR"
    finish = f", {used.finish}" if used.finish else ""
    return f"{used.answered or used.model}: {used.tokens:,} tokens, {price}{finish}"


def _idle(line: Line) -> str:
    """Why the entry moved nothing. What is only put off says so by itself, and is not called ignored."""
    put_off = not line.ignored or line.ignored.startswith(("held: ", "kept for "))
    return line.ignored if put_off else f"ignored: {line.ignored}"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
