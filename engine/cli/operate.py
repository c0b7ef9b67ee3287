"""`longwatch halted`, `resume`, `cancel` and `retry`, and who sees to what waits for people: `take` and `release`.

Each order is an entry on the log with who gave it and why, and stands in the run's history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import exits, options
from engine.cli.client import (
    As,
    InState,
    MaybeTarget,
    OfWorkflow,
    Target,
    Timeout,
    Wait,
    Where,
    Who,
    Why,
    ask,
    filter_of,
    settings_of,
    time,
    who_of,
)
from engine.cli.output import cell, console, emit, table
from engine.cli.shape import run_facts, sent_facts

if TYPE_CHECKING:
    from pathlib import Path

    from engine.client import Client
    from engine.core.entry import Order
    from engine.inbox import Outcome
    from engine.reports import Sent
    from engine.view.view import Filter

All = Annotated[bool, typer.Option("--all", help="Every run that fits the filters and can take the order.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("halted")(halted)
    app.command("resume")(resume)
    app.command("cancel")(cancel)
    app.command("retry")(retry)
    app.command("take")(take)
    app.command("release")(release)


def halted(
    workflow: OfWorkflow = "",
    state: InState = "",
    where: Where = None,
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many at most.")] = 1000,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """List the runs that stand still, and why. Exit code 0 also when there is none.

    A run halts when its own code fails. Its later entries wait in order: mend the code, then `longwatch resume`.

    Example: `longwatch halted --workflow insurance-claim --json`
    """
    wanted = filter_of(workflow, state, "", where)
    runs = ask(lambda client: client.halted(wanted, limit=limit), settings_of(data, log))
    if as_json:
        for run in runs:
            emit(run_facts(run))
    elif runs:
        rows = [(run.workflow, run.key, run.state, time(run.updated_at), run.error) for run in runs]
        table(["workflow", "key", "state", "last record", "error"], rows)
    else:
        console().print("no run is halted")


def resume(
    target: MaybeTarget = None,
    *,
    skip: Annotated[bool, typer.Option("--skip", help="Leave out the entry or timer that halted it.")] = False,
    everything: All = False,
    workflow: OfWorkflow = "",
    state: InState = "",
    where: Where = None,
    who: Who = "",
    why: Why = "",
    wait: Wait = False,
    timeout: Timeout = 30,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Have halted runs go on: what halted them is folded again, then what came after, in order, nothing lost.

    Exit code 1 if --all finds none, 3 if the run is not halted.

    Example: `longwatch resume --all --workflow insurance-claim --why "mended in 1.2.1"`
    """
    chosen = _chosen(target, filter_of(workflow, state, "", where), everything=everything)
    order: Order = "skip" if skip else "resume"
    _order(chosen, order, who, why, data, log, timeout if wait else None, as_json=as_json)


def cancel(
    target: MaybeTarget = None,
    *,
    everything: All = False,
    workflow: OfWorkflow = "",
    state: InState = "",
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before all that fit are ended.")] = False,
    who: Who = "",
    why: Why = "",
    wait: Wait = False,
    timeout: Timeout = 30,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """End runs where they stand: timers and calls end with them, later events are ignored.

    A cancelled run is listed as finished, in the state that it had; its history names the order.

    Exit code 1 if --all finds none, 3 if the run is finished.

    Example: `longwatch cancel insurance-claim/4711 --why "filed twice"`
    """
    chosen = _chosen(target, filter_of(workflow, state, "", where), everything=everything)
    if everything and not yes:
        typer.confirm("End all runs that fit?", abort=True)
    _order(chosen, "cancel", who, why, data, log, timeout if wait else None, as_json=as_json)


def retry(
    target: MaybeTarget = None,
    *,
    everything: All = False,
    workflow: OfWorkflow = "",
    state: InState = "",
    where: Where = None,
    who: Who = "",
    why: Why = "",
    wait: Wait = False,
    timeout: Timeout = 30,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Try failed calls again, and at once those that wait for their next attempt.

    Exit code 1 if --all finds none, 3 if no call of the run can be tried again.

    Example: `longwatch retry --all --state Assessing --why "the provider is back"`
    """
    chosen = _chosen(target, filter_of(workflow, state, "", where), everything=everything)
    _order(chosen, "retry", who, why, data, log, timeout if wait else None, as_json=as_json)


def take(
    target: Target,
    *,
    who: As = "",
    why: Why = "",
    timeout: Timeout = 30,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Take what a run asks upon yourself: until it is released nobody else can answer.

    Exit code 3 if somebody else has it, or if nothing is asked.

    Example: `longwatch take insurance-claim/4711 --as ann`
    """
    _take("take", target, who, why, timeout, data, log, as_json=as_json)


def release(
    target: Target,
    *,
    who: As = "",
    why: Why = "",
    timeout: Timeout = 30,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Give back what was taken, your own or another's: anybody may answer again.

    Exit code 3 if nobody has taken it.

    Example: `longwatch release insurance-claim/4711 --why "ann is ill"`
    """
    _take("release", target, who, why, timeout, data, log, as_json=as_json)


def _take(
    order: str,
    target: str,
    who: str,
    why: str,
    timeout: float,
    data: Path | None,
    log: str | None,
    *,
    as_json: bool,
) -> None:
    from engine.cli.inbox import print_outcome

    settings = settings_of(data, log)
    person = who_of(who, settings)

    async def work(client: Client) -> Outcome:
        chosen = client.take if order == "take" else client.release
        return await chosen(target, person, why=why, timeout=timeout)

    print_outcome(ask(work, settings), "taken" if order == "take" else "released", as_json=as_json)


def _chosen(target: str | None, wanted: Filter, *, everything: bool) -> str | Filter:
    filters = wanted.workflow or wanted.state or wanted.where
    if target is not None and (everything or filters):
        raise typer.BadParameter("name one run, or give --all and filters, not both", param_hint="[WORKFLOW/]KEY")
    if target is None and not everything:
        raise typer.BadParameter("name a run, or give --all (with filters)", param_hint="[WORKFLOW/]KEY")
    return wanted if target is None else target


def _order(
    chosen: str | Filter,
    order: Order,
    who: str,
    why: str,
    data: Path | None,
    log: str | None,
    timeout: float | None,
    *,
    as_json: bool,
) -> None:
    async def work(client: Client) -> list[Sent]:
        sent: list[Sent] = await getattr(client, order)(chosen, who=who_of(who), why=why)
        if timeout is not None:
            await client.wait_for(sent, timeout=timeout)
        return sent

    sent = ask(work, settings_of(data, log))
    for each in sent:
        if as_json:
            emit({"order": order, **sent_facts(each)})
        elif isinstance(chosen, str):
            console().print(f"{order}: {cell(each.workflow)}/{cell(each.key)}")
    if not as_json and not isinstance(chosen, str):
        console().print(f"{order}: {len(sent):,} run{'' if len(sent) == 1 else 's'}")
    if not sent:
        raise typer.Exit(exits.DIFFERS)
