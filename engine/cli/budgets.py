"""`longwatch budgets`: what is spent, reserved and left, who waits for more, and how they get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.client import As, Timeout, application_if_any, ask, settings_of, who_of
from engine.cli.inbox import Call, print_outcome
from engine.cli.output import cell, console, emit, table
from engine.cli.shape import budget_facts

if TYPE_CHECKING:
    from engine.budgets import Balance, BudgetState
    from engine.client import Client
    from engine.core.account import Bound
    from engine.inbox import Outcome

WORDS = "[NAME | raise NAME]"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("budgets")(budgets)


def budgets(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=WORDS,
            help="An account, a workflow, or WORKFLOW/KEY for one run's own. After `raise`: who gets more.",
            show_default=False,
        ),
    ] = None,
    *,
    eur: Annotated[str | None, typer.Option("--eur", help="With raise: how much money more.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="With raise: how many tokens more.")] = None,
    who: As = "",
    call: Call = "",
    timeout: Timeout = 30,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the budgets: their bounds, what is spent and reserved, and who waits for more.

    `longwatch budgets raise NAME --eur 5` adds to an account (to its whole, and to today's), or to the own budget of a
    run that waits for it. Exit code 3 if nobody takes it, as with `longwatch answer`.

    Example: `longwatch budgets claims --json`
    """
    raising, name = _chosen(words or [])
    if not raising and not (eur is None and tokens is None):
        raise typer.BadParameter("--eur and --tokens go with: budgets raise NAME", param_hint=WORDS)
    settings = settings_of(data, log, application)
    loaded = application_if_any(settings, wanted=application is not None)
    if not raising:
        _print(ask(lambda client: client.budgets(name), settings, loaded), as_json=as_json)
        return
    if not (eur or tokens):
        raise typer.BadParameter("say how much more: --eur, --tokens or both", param_hint="--eur")
    person = who_of(who, settings)
    extra = {"eur": _money(eur), "tokens": tokens or 0}

    async def work(client: Client) -> Outcome:
        (found, *_) = await client.budgets(name)
        if found.kind == "account":
            return await client.raise_budget(name, who=person, eur=_money(eur), tokens=tokens or 0, timeout=timeout)
        return await client.answer(name, extra, who=person, call=call, name="budget", timeout=timeout)

    print_outcome(ask(work, settings, loaded), "raised", as_json=as_json)


def _chosen(words: list[str]) -> tuple[bool, str]:
    """Whether to raise, and which."""
    if len(words) == 2 and words[0] == "raise":  # noqa: PLR2004 - the word and the name
        return True, words[1]
    if len(words) > 1 or words == ["raise"]:
        raise typer.BadParameter("give one name, or: raise NAME", param_hint=WORDS)
    return False, (words[0] if words else "")


def _money(text: str | None) -> str:
    from decimal import Decimal, InvalidOperation

    try:
        amount = Decimal(text or "0")
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise typer.BadParameter(f"{text!r} is no amount of money; write it such as 5 or 0.20", param_hint="--eur")
    return str(amount)


def _print(found: list[BudgetState], *, as_json: bool) -> None:
    if as_json:
        for each in found:
            emit(budget_facts(each))
        return
    if not found:
        console().print("no workflow has a budget")
        return
    rows = [_row(state, balance) for state in found for balance in state.balances]
    table(["budget", "of", "EUR spent", "reserved", "of at most", "tokens spent", "reserved", "of at most"], rows)
    for state in found:
        _print_rest(state)


def _row(state: BudgetState, balance: Balance) -> tuple[str, ...]:
    from engine.core.budget import euros

    of = {"run": "each run" if state.kind == "workflow" else "this run", "total": "all", "day": "today"}
    name = state.name if state.kind != "account" else f"{state.name} (account)"
    if state.kind == "workflow":
        return name, of[balance.period], "", "", _most(balance.bound)[0], "", "", _most(balance.bound)[1]
    spent, reserved = balance.spent, balance.reserved
    eur, tokens = _most(balance.bound)
    money = (euros(spent.cost), euros(reserved.cost), eur)
    return name, of[balance.period], *money, f"{spent.tokens:,}", f"{reserved.tokens:,}", tokens


def _most(bound: Bound) -> tuple[str, str]:
    from engine.core.budget import euros

    eur = "-" if bound.cost is None else euros(bound.cost)
    return eur, "-" if bound.tokens is None else f"{bound.tokens:,}"


def _print_rest(state: BudgetState) -> None:
    out = console()
    if state.unpriced:
        out.print(f"{cell(state.name)}: {state.unpriced:,} model calls have no known price and are not in it")
    if state.waiting:
        more = f" and {state.more_waiting:,} more" if state.more_waiting else ""
        out.print(f"{cell(state.name)}: for more wait {cell(', '.join(state.waiting))}{more}")
