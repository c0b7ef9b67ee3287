"""`longwatch inbox` and `longwatch answer`: what waits for whom, and the answers that people give.

What a customer, a model or a colleague wrote is data: it is shown with everything escaped that a terminal obeys.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.client import (
    As,
    OfWorkflow,
    Target,
    Timeout,
    application_if_any,
    ask,
    settings_of,
    time,
    who_of,
)
from engine.cli.output import cell, console, emit, table
from engine.cli.shape import item_facts, outcome_facts
from engine.cli.words import example_words, meant, quoted, read_answer, short

if TYPE_CHECKING:
    from engine.client import Client
    from engine.inbox import Choice, InboxItem, Outcome
    from engine.view.inbox import InboxCount, Place

CALL_HELP = "Which, where the run asks several things: the call's id, or `state`."
Call = Annotated[str, typer.Option("--call", metavar="ID", help=CALL_HELP)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("inbox")(inbox)
    app.command("answer")(answer)


def inbox(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GROUP | show RUN]", help="A group's only; or all of one run.", show_default=False),
    ] = None,
    *,
    mine: Annotated[str, typer.Option("--mine", metavar="WHO", help="Only what this person has taken.")] = "",
    workflow: OfWorkflow = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many at most.")] = 100,
    after: Annotated[str, typer.Option("--after", metavar="PLACE", help="Go on behind the page before.")] = "",
    newest: Annotated[bool, typer.Option("--newest", help="The newest first, not the one that waits longest.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only how much waits for each group.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="The whole: with schema, and a command to copy.")
    ] = False,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """List what waits for people, the longest first: who is asked what, until when, and who has taken it.

    Exit code 0 also when nothing waits. With `show RUN` all that one run asks, its answers with their JSON schema, and
    a command to copy for each.

    Example: `longwatch inbox claims-reviewers --mine ann`
    """
    group, run = _chosen(words or [])
    settings = settings_of(data, log, application)
    if count:
        counts = ask(lambda client: client.inbox_counts(mine=mine, workflow=workflow), settings)
        _print_counts([each for each in counts if not group or each.group == group], as_json=as_json)
        return
    loaded = application_if_any(settings, wanted=application is not None)

    async def work(client: Client) -> list[InboxItem]:
        if run:
            return await client.asked(run)
        place = _place(after)
        return await client.inbox(group or None, mine=mine, workflow=workflow, limit=limit, after=place, newest=newest)

    items = ask(work, settings, loaded)
    if as_json:
        for item in items:
            emit(item_facts(item))
    elif verbose or run:
        for item in items:
            _print_item(item)
    else:
        _print_list(items)
    if not as_json:
        _print_foot(items, full=len(items) == limit and not run)


def answer(
    target: Target,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ANSWER] [JSON | FIELD=VALUE ...]",
            help="The event or model, where there are several, then its fields. `yes` or `no` where leave is asked; "
            "`raise` where a budget is spent.",
            show_default=False,
        ),
    ] = None,
    *,
    who: As = "",
    note: Annotated[str | None, typer.Option("--note", help="The answer's field `note`.")] = None,
    eur: Annotated[str | None, typer.Option("--eur", help="The answer's field `eur`: to raise a budget by.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", help="The answer's field `tokens`.")] = None,
    call: Call = "",
    visit: Annotated[
        int, typer.Option("--visit", help="Only if the run has not left its state since, as `inbox show` told it.")
    ] = 0,
    timeout: Timeout = 30,
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Answer what a run asks: checked against the answer's schema, then told whether it was the first.

    Exit code 3 if it does not fit, if somebody else was first or has taken it, or if the run has moved on; 5 if no
    engine took it in time: then it stands on the log.

    Example: `longwatch answer insurance-claim/4711 ReviewDecided approve=true --as ann`
    """
    settings = settings_of(data, log, application)
    loaded = application_if_any(settings, wanted=application is not None)
    person = who_of(who, settings)
    extra = {name: value for name, value in {"note": note, "eur": eur, "tokens": tokens}.items() if value is not None}

    async def work(client: Client) -> tuple[str, Outcome]:
        item = await _asked(client, target, person, words or [], call, visit)
        kind, value = read_answer(item, words or [], extra)
        asked = item.call or "state"
        seen = visit or item.visit
        return kind, await client.answer(
            item.address, value, who=person, type=kind, call=asked, name=item.name, visit=seen, timeout=timeout
        )

    kind, outcome = ask(work, settings, loaded)
    print_outcome(outcome, f"answered with {kind}", as_json=as_json, answer=kind)


async def _asked(client: Client, target: str, who: str, words: list[str], call: str, visit: int) -> InboxItem:
    """What is answered; where it is not asked any more, the client says who was first."""
    from engine.inbox import NothingAsked, chosen, narrowed

    items = await client.asked(target)
    try:
        asked = narrowed(items, call) if call else meant(items, words)
        item = chosen(asked, target, "" if call == "state" else call)
    except NothingAsked:
        await client.answer(target, {}, who=who, call=call, visit=visit)
        raise
    if visit and item.of_state and visit != item.visit:
        await client.answer(item.address, {}, who=who, call="state", visit=visit)
    return item


def print_outcome(outcome: Outcome, done: str, *, as_json: bool, answer: str = "") -> None:
    """Say what came of it."""
    if as_json:
        emit(outcome_facts(outcome, answer))
        return
    run = f"{outcome.sent.workflow}/{outcome.sent.key}"
    then = f"; {outcome.held}" if outcome.held else f"; the run is in {outcome.state} ({outcome.status})"
    console().print(f"{cell(run)}: {cell(done)} by {cell(outcome.who)}{cell(then)}")


def _chosen(words: list[str]) -> tuple[str, str]:
    """A group, or a run to show."""
    if len(words) == 2 and words[0] == "show":  # noqa: PLR2004 - the word and the run
        return "", words[1]
    if len(words) > 1 or words == ["show"]:
        raise typer.BadParameter("give one group, or: show RUN", param_hint="[GROUP | show RUN]")
    return (words[0] if words else ""), ""


def _place(text: str) -> Place | None:
    if not text:
        return None
    try:
        since, run, place = (int(part) for part in text.split("."))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no place; take it from the foot of the page before") from None
    return since, run, place


def _print_list(items: list[InboxItem]) -> None:
    if items:
        rows = [
            (
                item.address,
                item.group,
                short(item.question or item.what, 80),
                time(item.since),
                time(item.until),
                item.taken,
                " or ".join(choice.name for choice in item.choices),
            )
            for item in items
        ]
        table(["run", "group", "asked", "since", "until", "taken by", "answers"], rows)


def _print_foot(items: list[InboxItem], *, full: bool) -> None:
    out = console()
    out.print(f"[dim]{len(items):,} thing{'' if len(items) == 1 else 's'} waiting{' or more' if full else ''}[/dim]")
    if full:
        out.print(f"[dim]the next ones: --after {'.'.join(str(part) for part in items[-1].place)}[/dim]")


def _print_counts(counts: list[InboxCount], *, as_json: bool) -> None:
    from engine.reports import when

    if as_json:
        for each in counts:
            emit({"group": each.group, "waiting": each.waiting, "taken": each.taken, "oldest": when(each.oldest)})
    else:
        rows = [(each.group, f"{each.waiting:,}", f"{each.taken:,}", time(when(each.oldest))) for each in counts]
        table(["group", "waiting", "taken", "oldest"], rows)


def _print_item(item: InboxItem) -> None:
    out = console()
    out.print(f"[bold]{cell(item.address)}[/bold]  {cell(item.what)}")
    out.print(f"asks      [bold]{cell(item.group)}[/bold]: {cell(item.question or item.what)}")
    until = f", until {time(item.until)}" if item.until else ""
    out.print(f"since     {time(item.since)}{until}")
    if item.taken:
        out.print(f"taken by  {cell(item.taken)}; to give it back: longwatch release {cell(quoted(item.address))}")
    for choice in item.choices:
        _print_choice(item, choice)
    if not item.choices:
        out.print("answers   are events of the application; name it with --app")
    out.print()


def _print_choice(item: InboxItem, choice: Choice) -> None:
    out = console()
    out.print(f"answer    [bold]{cell(choice.name)}[/bold]  {cell(_summary(choice))}")
    out.print(f"          {cell(json.dumps(_shown(choice), ensure_ascii=False))}", soft_wrap=True)
    out.print(f"          [green]{cell(example_words(item, choice))}[/green]", soft_wrap=True)


def _summary(choice: Choice) -> str:
    return str(choice.schema.get("description", "")).partition("\n")[0]


def _shown(choice: Choice) -> dict[str, Any]:
    return {name: value for name, value in choice.schema.items() if name not in ("title", "description")}
