"""`longwatch trace`: where a run spent its time, what it asked and what that cost, told from the log alone."""

from __future__ import annotations

import contextlib
import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.output import cell, complain, console, emit, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.core.record import Record
    from engine.journal import Journal
    from engine.session import Session
    from engine.settings import Settings
    from engine.view.view import RunRow
    from observability.projection import Projection
    from observability.span import Span
    from observability.trace_tree import EpisodeNode, RunNode

JAEGER = "http://127.0.0.1:16686"
PLACEHOLDER = b"This is not the Jaeger UI"
"""What a Jaeger says that was built without its page."""
PATIENCE = 2.0
"""Seconds for asking whether there is a page."""
HEX = set("0123456789abcdef")
TRACE_DIGITS = 32
FEW = 20
"""Numbers that an error lists."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("trace")(trace)


def trace(
    target: Annotated[
        str,
        typer.Argument(
            metavar="[WORKFLOW/]KEY|TRACE", help="The run, or the 32 digits of a trace.", show_default=False
        ),
    ] = "",
    *,
    workflow: Annotated[str, typer.Option("--workflow", metavar="NAME", help="The run of this workflow.")] = "",
    run: Annotated[
        str, typer.Option("--run", metavar="RUN_ID", help="An earlier run of the key; its first digits are enough.")
    ] = "",
    episode: Annotated[
        str,
        typer.Option(
            "--episode", metavar="SEQ|TRACE", help="One episode span by span: a number of `longwatch history`."
        ),
    ] = "",
    otlp: Annotated[
        Path | None,
        typer.Option(
            "--otlp", metavar="FILE", help="Write the spans as OTLP: JSON if it ends in .json, else protobuf."
        ),
    ] = None,
    export: Annotated[
        bool, typer.Option("--export", help="Send the spans to the collector, again if need be.")
    ] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL",
            help="The collector. [default: the setting `otlp`, else where the engine last sent its traces]",
        ),
    ] = None,
    opens: Annotated[
        bool, typer.Option("--open", help="Print the trace's address in Jaeger, and open it if there is a browser.")
    ] = False,
    jaeger: Annotated[
        str | None,
        typer.Option(
            "--jaeger", metavar="URL", help=f"Jaeger's page. [default: where `longwatch up` put it, else {JAEGER}]"
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs, by the rule; with --export or --otlp.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help="With --all: records from then on, as 2026-03-01 or 30d.")
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="With --all: records before then.")] = "",
    rule: Annotated[
        str | None, typer.Option("--rule", help="With --all: which runs. [default: the setting `trace_rule`]")
    ] = None,
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Show where a run spent its time, what it called and what that cost: from the log alone, without a server.

    Under the run stand its visits of states, under these the episodes (what one event, timer or order set off), with
    calls, attempts, turns of models, tools. `--export` sends the trace of one run whatever the rule for traces says;
    `--all` sends a stretch of time again, by the rule.

    Example: `longwatch trace 4711`, or `longwatch trace --all --since 30d --export`
    """
    _check_url(endpoint, "--endpoint", "http://127.0.0.1:4318")
    _check_url(jaeger, "--jaeger", JAEGER)
    settings = options.settings(data=data, log=log, otlp=endpoint, trace_rule=rule)
    if every:
        from engine.cli.trace_export import export_all

        if target or run or episode or opens or not (export or otlp):
            raise typer.BadParameter("--all goes without a run, and with --export or --otlp FILE", param_hint="--all")
        export_all(settings, since, until, otlp, workflow=workflow, export=export, as_json=as_json)
        return
    for given, option in ((since, "--since"), (until, "--until"), (rule, "--rule")):
        if given:
            raise typer.BadParameter("goes with --all only; one run is shown and sent whole", param_hint=option)
    if not target:
        raise typer.BadParameter("say which run, or --all", param_hint="[WORKFLOW/]KEY|TRACE")
    with _opened(settings) as (session, journal):
        row, found = find(session, target, workflow, run)
        records = journal.records(row)
        now = journal.header.log_time(int(clock.time() * 1000))
        shown = episode or found
        node, one = _told(records, row, shown)
        address = f"{jaeger_of(settings, jaeger)}/trace/{one.trace if one else node.trace}"
        if export or otlp:
            from engine.cli.trace_export import export_run

            export_run(settings, journal.header, _of(records, one), otlp, export=export, as_json=as_json)
        elif not opens:
            _show(journal, records, node, one, now, as_json=as_json)
    if opens:
        _open(address, as_json=as_json)


def _check_url(text: str | None, option: str, example: str) -> None:
    """See that it is a URL.

    Raises:
        BadParameter: it is none.
    """
    from urllib.parse import urlsplit

    if text is None:
        return
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
        if parts.scheme in ("http", "https") and parts.hostname and has_port and not set(text) & set(" \t\r\n"):
            return
    raise typer.BadParameter(f"{text!r} must be a URL such as {example}", param_hint=option)


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Session, Journal]]:
    from engine.journal import Journal
    from engine.session import Session

    with Session(settings) as session:
        session.refresh(start=True)
        yield session, Journal(session)


def find(session: Session, target: str, workflow: str = "", run: str = "") -> tuple[RunRow, str]:
    """The run that is meant, and the first record of the episode if a trace's name said so.

    Raises:
        UnknownRun, AmbiguousKey: there is none, or several.
    """
    from engine.reports import AmbiguousKey, UnknownRun

    view = session.view
    head, slash, rest = target.partition("/")
    if run:
        rows = view.all_of_key(target, workflow) + (view.all_of_key(rest, head) if slash else [])
        rows = [row for row in rows if row.run_id.startswith(run)]
    else:
        rows = view.of_key(target, workflow) + (view.of_key(rest, head) if slash else [])
    if len(rows) > 1:
        names = ", ".join(f"{row.workflow}/{row.key}" for row in rows)
        raise AmbiguousKey(f"{target!r} names {len(rows)} runs: {names}; write one of these")
    if rows:
        return rows[0], ""
    if not run and len(target) == TRACE_DIGITS and set(target.lower()) <= HEX:
        return _by_trace(session, target.lower())
    which = f" whose id begins with {run!r}" if run else ""
    raise UnknownRun(f"there is no run {target!r}{which}; `longwatch list` shows those there are")


def _by_trace(session: Session, name: str) -> tuple[RunRow, str]:
    """The run whose trace has this name.

    Raises:
        UnknownRun: none has.
    """
    from engine.reports import UnknownRun
    from observability.trace_tree import runs_of_trace

    rows: dict[str, RunRow] = {}

    def runs() -> Iterator[tuple[str, int]]:
        for row in session.view.every():
            rows.clear()
            rows[row.run_id] = row
            yield row.run_id, row.seq

    found = runs_of_trace(name, runs())
    if found is None:
        raise UnknownRun(
            f"no run of this log has begun the trace {name}; one that came with an event goes by the name that its "
            "sender gave it: its spans say workflow.key"
        )
    return rows[found[0]], str(found[1]) if found[1] else ""


def _told(records: list[Record], row: RunRow, wanted: str) -> tuple[RunNode, EpisodeNode | None]:
    """The run's tree, and the episode that is wanted.

    Raises:
        UnknownRun: its records are gone, or it has no such episode.
    """
    from engine.reports import UnknownRun
    from observability.trace_tree import episode_in, tree_of

    if not records:
        raise UnknownRun(f"the journal has no record of {row.workflow}/{row.key} any more")
    node = tree_of(records)
    one = episode_in(node, wanted) if wanted else None
    if wanted and one is None:
        raise UnknownRun(f"{row.workflow}/{row.key} has no episode {wanted!r}: {_numbers(node)}")
    return node, one


def _numbers(node: RunNode) -> str:
    """`episodes begin at 1, 3; its records are 1 to 5`."""
    begun = [str(each.seq) for each in node.episodes]
    told = begun if len(begun) <= FEW else [*begun[: FEW // 2], "...", *begun[-FEW // 2 :]]
    return f"episodes begin at {', '.join(told)}; its records are {node.missing + 1} to {node.missing + node.records}"


def _of(records: list[Record], one: EpisodeNode | None) -> list[Record]:
    """The records of an episode, or all."""
    return records if one is None else [r for r in records if (r.episode.seq if r.episode else r.seq) == one.seq]


def _show(
    journal: Journal, records: list[Record], node: RunNode, one: EpisodeNode | None, now: int, *, as_json: bool
) -> None:
    import msgspec

    from engine.cli.trace_shape import draw_episode, draw_run
    from observability.projection import Projection

    spans = _spans(Projection(journal.header), _of(records, one), one) if one is not None else []
    if as_json:
        told = msgspec.to_builtins(one if one is not None else node)
        emit({**told, "spans": msgspec.to_builtins(spans)} if one is not None else told)
    elif one is not None:
        draw_episode(node, one, spans)
    else:
        draw_run(node, now)
    if node.missing and not as_json:
        complain(f"{node.missing} records before these are not in the journal any more")


def _spans(projection: Projection, records: list[Record], one: EpisodeNode) -> list[Span]:
    return [span for record in records for span in projection.spans(record) if span.trace == one.trace]


def jaeger_of(settings: Settings, given: str | None) -> str:
    """Where Jaeger's page is: what was given, else where `longwatch up` put it, else its usual place."""
    import msgspec

    found: object = given
    if not given:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            told = msgspec.json.decode((settings.data / "servers" / "addresses.json").read_bytes())
            found = told.get("jaeger") if isinstance(told, dict) else None
    return (found if found and isinstance(found, str) else JAEGER).rstrip("/")


def _open(address: str, *, as_json: bool) -> None:
    """Print an address, and open it where there is a browser and a page."""
    import os
    import webbrowser

    if not as_json:
        line(address)
    trouble = _no_page(address)
    if as_json:
        emit({"url": address, "trouble": trouble} if trouble else {"url": address})
    elif trouble:
        line(trouble)
    if trouble:
        return
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER"):
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)
    elif not as_json:
        console().print(f"[dim]{cell('no browser here: open it on your own machine')}[/dim]")


def _no_page(address: str) -> str:
    """Why a browser shows no trace there; empty: it does, or nobody can tell from here."""
    import urllib3

    timeout = urllib3.Timeout(total=PATIENCE)
    try:
        with urllib3.PoolManager(timeout=timeout, retries=False) as pool:
            body = pool.request("GET", address).data
    except urllib3.exceptions.NewConnectionError:
        return "nothing answers there now: `longwatch up` starts a Jaeger, and --jaeger URL names another one"
    except urllib3.exceptions.HTTPError:
        return ""
    if PLACEHOLDER in body:
        return "the Jaeger there was built without its page; put a `jaeger` of its download page on PATH to see traces"
    return ""
