"""How a run's trace is drawn in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cli.output import cell, console, rfc3339
from observability import waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.tree import Tree

    from observability.span import Span, Value
    from observability.trace_tree import AttemptNode, CallNode, EpisodeNode, Inner, Part, RunNode, Sums, VisitNode

LONGEST = 160
DAY = 86_400_000
MICROSECOND = 0.001
"""In milliseconds."""
HIDDEN = ("workflow.name", "workflow.key", "workflow.run_id", "workflow.version", "workflow.state", "workflow.seq")
"""What is the same on every span of an episode, or nearly."""
WAITS = {**waits.WAITS, "asking": "waits for a person"}
BAD = ("failed",)


def draw_run(node: RunNode, now: int) -> None:
    """The run, its visits, and what happened in them; `now` is log time."""
    from rich.tree import Tree

    lasts = (node.finished or now) - node.began
    over = f"{node.status} in {node.state}" if node.state else node.status
    tree = Tree(
        f"[bold]{cell(node.workflow)}/{cell(node.key)}[/bold]  run {cell(node.run_id)}, version {node.version}: "
        f"{cell(over)}, {'after' if node.finished else 'for'} {lasting(lasts)}{_sums(node.sums)}\n"
        f"[dim]trace {node.trace}, {node.records} records[/dim]"
    )
    for episode in node.start:
        _episode(tree, episode)
    for visit in node.visits:
        _visit(tree, visit, node, now)
    _print(tree)


def _visit(tree: Tree, visit: VisitNode, node: RunNode, now: int) -> None:
    is_last = not visit.left and node.status != "finished"
    if visit.left or is_last:
        long = lasting((visit.left or now) - visit.entered)
        by = f", left by {visit.left_by}" if visit.left_by else " so far" if is_last else ""
        branch = tree.add(f"[bold]{cell(visit.state)}[/bold]  {long}{cell(by)}  [dim]{moment(visit.entered)}[/dim]")
    else:
        branch = tree.add(f"[bold]{cell(visit.state)}[/bold]  the end  [dim]{moment(visit.entered)}[/dim]")
    for episode in visit.episodes:
        _episode(branch, episode)
    if is_last and visit is node.visits[-1]:
        branch.add(_waits(node, now))


def _waits(node: RunNode, now: int) -> str:
    """`waits in HumanReview until 2026-03-04 09:00 for: people: adjusters (3 d left)`."""
    word = "halted" if node.status == "halted" else "runs" if node.status == "running" else "waits"
    until = f" until {moment(node.wakes)}" if node.wakes else ""
    left = f" ({lasting(node.wakes - now)} left)" if node.wakes > now else " (now due)" if node.wakes else ""
    colour = "red" if word == "halted" else "yellow"
    what = "; ".join(node.waits_for)
    return f"[{colour}]{word} in {cell(node.state)}[/{colour}]{until} for: {cell(short(what, 3 * LONGEST))}{left}"


def _episode(tree: Tree, episode: EpisodeNode) -> None:
    took = f"  {lasting(episode.last - episode.at)}" if episode.last > episode.at else ""
    colour = "red" if episode.halted else "cyan"
    by = f" by {episode.who}" if episode.who else ""
    going = "" if episode.ended else ", goes on"
    branch = tree.add(
        f"[{colour}]{cell(episode.cause)}[/{colour}]{cell(by)}{took}{going}{_sums(episode.sums)}"
        f"  [dim]{moment(episode.at)}  #{episode.seq}  {episode.trace}[/dim]"
    )
    if episode.why:
        branch.add(cell(f"why: {short(episode.why)}"))
    if episode.goes_on:
        branch.add(cell(f"goes on with the trace of {episode.source or 'another run'}"))
    if episode.ignored:
        branch.add(f"[dim]{cell(short(episode.ignored))}[/dim]")
    for call in episode.calls:
        _call(branch, call)
    for note in episode.notes:
        branch.add(f"[dim]{cell(short(note))}[/dim]")
    for id_, type_, key in episode.published:
        branch.add(f"publishes [bold]{cell(type_)}[/bold] for {cell(key)}  [dim]{cell(id_)}[/dim]")
    if episode.moves:
        branch.add(f"-> {cell(' -> '.join(episode.moves))}")
    if episode.halted:
        branch.add(f"[red]halted[/red]: {cell(short(episode.halted))}")


def _call(tree: Tree, call: CallNode) -> None:
    waits = f"  [yellow]{WAITS.get(call.waits, call.waits)}[/yellow]" if call.waits else ""
    if len(call.attempts) == 1:
        number = call.attempts[0].number
        which = f", attempt {number}" if number > 1 else ""
        _attempt(tree, call.attempts[0], f"{cell(call.step)} [dim]({cell(call.id)})[/dim]{which}", waits)
        return
    branch = tree.add(f"{cell(call.step)} [dim]({cell(call.id)})[/dim]{waits}")
    for attempt in call.attempts:
        _attempt(branch, attempt, f"attempt {attempt.number}", "")


def _attempt(tree: Tree, attempt: AttemptNode, name: str, more: str) -> None:
    colour = "red" if attempt.result in BAD else "green" if attempt.result in ("ok", "answered") else "yellow"
    took = _took(attempt.took_ms, " ")
    error = f": {cell(short(attempt.error))}" if attempt.error else ""
    asks = f": {cell(short(attempt.asks))}" if attempt.asks else ""
    branch = tree.add(f"{name}  [{colour}]{attempt.result}[/{colour}]{took}{error}{asks}{more}")
    for part in attempt.parts:
        _part(branch, part)
    for inner in attempt.inner:
        _inner(branch, inner)


def _part(tree: Tree, part: Part) -> None:
    model = f" {cell(part.model)}, {part.input_tokens:,} in, {part.output_tokens:,} out" if part.model else ""
    price = f", {_euros(part.cost)}" if part.cost is not None else ", price not known" if part.model else ""
    again = ", may have run before" if part.again else ""
    branch = tree.add(f"{cell(part.name)}{_took(part.took_ms)}{model}{price}{again}")
    for inner in part.inner:
        _inner(branch, inner)


def _inner(tree: Tree, inner: Inner) -> None:
    error = f" [red]{cell(short(inner.error))}[/red]" if inner.error else ""
    branch = tree.add(f"[dim]{cell(short(inner.name))}{_took(inner.took_ms)}[/dim]{error}")
    for each in inner.inner:
        _inner(branch, each)


# -- one episode -------------------------------------------------------------------------------------------------------


def draw_episode(node: RunNode, one: EpisodeNode, spans: Sequence[Span]) -> None:
    """Every span of an episode with its attributes."""
    from rich.tree import Tree

    tree = Tree(
        f"[bold]{cell(node.workflow)}/{cell(node.key)}[/bold]  [cyan]{cell(one.cause)}[/cyan]  {moment(one.at)}  "
        f"#{one.seq}\n[dim]trace {one.trace}[/dim]"
    )
    ids = {span.id for span in spans}
    ordered = sorted(spans, key=lambda span: (span.start_ns, span.end_ns))
    begun = min((span.start_ns for span in spans), default=0)

    def below(parent: Span | None, branch: Tree) -> None:
        for span in ordered:
            if span.parent == parent.id if parent else span.parent not in ids:
                below(span, _span(branch, span, begun, parent))

    below(None, tree)
    if not one.ended:
        tree.add("[yellow]goes on: its first span is made when it ends[/yellow]")
    _print(tree)


def _span(tree: Tree, span: Span, begun: int, parent: Span | None) -> Tree:
    """A span with those attributes that it does not share with its parent."""
    after, took = (span.start_ns - begun) / 1e6, (span.end_ns - span.start_ns) / 1e6
    error = f"  [red]{cell(short(span.message or 'error'))}[/red]" if span.message else ""
    branch = tree.add(f"{cell(short(span.name))}{_took(took)}  [dim]+{wall(after)}  {span.id}[/dim]{error}")
    known = parent.named if parent else {}
    for key, value in span.attributes:
        if key not in HIDDEN and value != "" and known.get(key) != value:
            branch.add(f"[dim]{cell(key)} = {cell(short(_value(value)))}[/dim]")
    return branch


def _value(value: Value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


# -- words -------------------------------------------------------------------------------------------------------------


def _print(tree: Tree) -> None:
    out: Console = console()
    if not out.is_terminal:
        out.width = 1000
    out.print(tree)


def lasting(ms: float) -> str:
    """A stretch of time in its two largest units."""
    if ms < 1000:  # noqa: PLR2004 (a second)
        return f"{max(ms, 0):.0f} ms"
    if ms < 60_000:  # noqa: PLR2004 (a minute)
        return f"{ms / 1000:.3g} s"
    rest = round(ms / 1000)
    found: list[str] = []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, seconds)
        if count:
            found.append(f"{count} {unit}")
        if len(found) == 2 or (found and not count):  # noqa: PLR2004 (two units)
            break
    return " ".join(found)


def wall(ms: float) -> str:
    """The same for what was measured closely, to the microsecond."""
    if ms < MICROSECOND:
        return "0 ms"
    return f"{ms:.3g} ms" if ms < 1000 else lasting(ms)  # noqa: PLR2004 (a second)


def _took(ms: float, before: str = "  ") -> str:
    """A length behind a name; nothing where there is none, as of a transition, whose span is a nanosecond."""
    return f"{before}{wall(ms)}" if ms >= MICROSECOND else ""


def moment(ms: int) -> str:
    """A log time, to the second."""
    return rfc3339(ms).replace("T", " ").partition(".")[0]


def short(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _euros(cost: int) -> str:
    from engine.core.budget import euros

    return f"{euros(cost)} EUR"


def _sums(sums: Sums) -> str:
    if not sums.calls:
        return ""
    unpriced = f", {sums.unpriced} without a known price" if sums.unpriced else ""
    return f"  [magenta]{sums.tokens:,} tokens, {_euros(sums.cost)}{unpriced}[/magenta]"
