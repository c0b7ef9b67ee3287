"""`longwatch run`: the engine in the foreground, and how it is shown."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.cli import options
from engine.cli.output import console, emit, line, plain, rfc3339

if TYPE_CHECKING:
    from rich.live import Live

    from engine import Application
    from engine.settings import Loaded
    from engine.supervisor import Progress

_PLAIN_SECONDS = 5.0
_CALM = frozenset({"starting", "running", "stopping", "stopped"})
"""What happens in the course of things."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    application: options.App = None,
    data: options.Data = None,
    log: options.Log = None,
    lapse: Annotated[
        float | None,
        typer.Option(min=1, help="Log seconds in a second of the wall, fixed when the log is made. [default: 1]"),
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="A power of two, fixed when the log is made. [default: 16]")
    ] = None,
    parallelism: Annotated[int | None, typer.Option(min=1, help="Divides the partitions. [default: 1]")] = None,
    cluster: Annotated[Literal["mini", "standalone"] | None, typer.Option(help="[default: mini]")] = None,
    backend: Annotated[Literal["rocksdb", "heap"] | None, typer.Option(help="[default: rocksdb]")] = None,
    fsync: Annotated[Literal["always", "everysec"] | None, typer.Option(help="[default: always]")] = None,
    checkpoint_interval: Annotated[str | None, typer.Option(metavar="TIME", help="[default: 2s]")] = None,
    restore: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="FOLDER",
            help="Go on from this checkpoint or savepoint, not from the newest: for a log that lost its end.",
        ),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send traces to this OTLP collector, such as http://localhost:4318."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="PORT", help="Serve metrics to Prometheus at this port of this machine, or host:port."),
    ] = None,
    *,
    accept: Annotated[
        bool, typer.Option("--accept", help="Go on with changed code after a crash, not only after a clean stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what goes wrong.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the engine here, until Ctrl-C or SIGTERM: then a savepoint is taken, and the next start goes on from it.

    A second Ctrl-C ends at once; then the next start goes on from the last checkpoint. Nothing is lost either way.

    Every setting can stand in `[tool.longwatch]` or the environment too: see `longwatch settings`.

    Example: `longwatch run`, or `longwatch run --data .longwatch/fast --lapse 20000` to live through weeks in minutes.
    """
    given = {
        "app": application,
        "data": data,
        "log": log,
        "lapse": lapse,
        "partitions": partitions,
        "parallelism": parallelism,
        "cluster": cluster,
        "backend": backend,
        "fsync": fsync,
        "checkpoint_interval": checkpoint_interval,
        "otlp": otlp,
        "metrics": metrics,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    _supervise(flags, accept, restore, quiet, as_json)


def _supervise(flags: dict[str, Any], accept: bool, restore: Path | None, quiet: bool, as_json: bool) -> None:
    from engine.supervisor import Supervisor

    loaded, app, application = prepare(flags)
    settings = loaded.settings
    observer = _observer(quiet, as_json, settings.log_format)
    with observer:
        observer.say(
            "starting", f"{app} on {_short(settings.data)}" + (f", log {settings.log}" if settings.log else "")
        )
        Supervisor(loaded, app, application, observer, accept=accept, restore=restore).run()


def prepare(flags: dict[str, Any]) -> tuple[Loaded, str, Application]:
    """Settings, the application's name and the application, before anything is started.

    Raises:
        SettingsError: also for a rule for traces that is none, whether there is a collector yet or not.
        AppError: there is no application, or none that can be imported.
    """
    from engine.loader import find_application, import_application
    from engine.settings import SettingsError, load
    from observability.sampling import Rule, WrongRule

    loaded = load(flags)
    settings = loaded.settings
    try:
        Rule.read(settings.trace_rule)
    except WrongRule as error:
        where = loaded.origin["trace_rule"]
        raise SettingsError((f"{where}: trace_rule = {settings.trace_rule!r} is not allowed: {error}",)) from None
    app = settings.app or find_application(settings.app_path)
    return loaded, app, import_application(app, settings.app_path)


def _observer(quiet: bool, as_json: bool, log_format: str) -> _Screen | _Lines | _Json:
    if as_json:
        return _Json()
    if sys.stdout.isatty() and not quiet:
        return _Screen()
    return _Logged(quiet=quiet) if log_format == "json" else _Lines(quiet=quiet)


class _Lines:
    """For a file or a pipe: what happens, and a line of figures every few seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._shown = 0.0

    def say(self, what: str, words: str, **facts: object) -> None:
        if not self._quiet or what not in _CALM:
            self._write(what, words, facts)

    def show(self, progress: Progress) -> None:
        if not self._quiet and time.monotonic() - self._shown >= _PLAIN_SECONDS:
            self._shown = time.monotonic()
            self._write("figures", figures(progress), facts_of(progress))

    def _write(self, what: str, words: str, facts: dict[str, Any]) -> None:
        del what, facts
        line(f"{time.strftime('%H:%M:%S')} {words}")

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Logged(_Lines):
    """The same as lines of a log in JSON, for who gathers logs."""

    def _write(self, what: str, words: str, facts: dict[str, Any]) -> None:
        from engine import logs

        level: logs.Level = "info" if what in {*_CALM, "figures"} else "warning"
        line(logs.line("longwatch", level, words, "json", what=what, **facts))


class _Json:
    """For a program: one object a happening, and one for the figures every two seconds."""

    def say(self, what: str, words: str, **facts: object) -> None:
        emit({"at": rfc3339(time.time_ns() // 1_000_000), "event": what, "message": words, **facts})

    def show(self, progress: Progress) -> None:
        emit({"at": rfc3339(time.time_ns() // 1_000_000), "event": "figures", **facts_of(progress)})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Screen:
    """For a terminal: what happens scrolls by above one live line."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live: Live = Live("", console=console(), auto_refresh=False, transient=True)

    def say(self, what: str, words: str, **_facts: object) -> None:
        from rich.text import Text

        calm = what in _CALM
        self._live.console.print(Text(f"{time.strftime('%H:%M:%S')} {plain(words)}", style="" if calm else "yellow"))

    def show(self, progress: Progress) -> None:
        from rich.text import Text

        style = "bold red" if progress.figures.halted else "cyan"
        self._live.update(Text(figures(progress), style=style, no_wrap=True, overflow="ellipsis"), refresh=True)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def figures(progress: Progress) -> str:
    """The line of figures."""
    runs, found = progress.figures.runs, progress.figures
    counts = "  ".join(f"{runs.get(status, 0):,} {status}" for status in ("running", "waiting", "finished"))
    age = "none yet" if progress.checkpoint_age_ms is None else f"{progress.checkpoint_age_ms / 1000:.0f} s ago"
    parts = [
        progress.driver,
        counts,
        f"{progress.records_per_second:,.0f} records/s",
        f"lag {found.lag_ms / 1000:.1f} s",
        f"checkpoint {age}",
    ]
    if found.halted:
        parts.append(f"{found.halted:,} HALTED")
    if found.dead_letters:
        parts.append(f"{found.dead_letters:,} dead letter{'' if found.dead_letters == 1 else 's'}")
    return " · ".join(parts)


def facts_of(progress: Progress) -> dict[str, Any]:
    """The same for a program."""
    found = progress.figures
    return {
        "state": progress.driver,
        "runs": found.runs,
        "records_per_s": round(progress.records_per_second, 1),
        "lag_ms": found.lag_ms,
        "checkpoint_age_ms": progress.checkpoint_age_ms,
        "dead_letters": found.dead_letters,
        "halted": found.halted,
        "as_of": rfc3339(found.as_of) if found.as_of else None,
    }


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
