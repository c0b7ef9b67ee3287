"""`longwatch up`: the engine with servers beside it that show what it does."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from engine.cli import options
from engine.cli.output import emit, line, rfc3339, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.settings import Settings
    from observability.servers.stack import Stack

_LOOK_SECONDS: Final = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    application: options.App = None,
    data: options.Data = None,
    lapse: Annotated[
        float | None,
        typer.Option(min=1, help="Log seconds in a second of the wall, fixed when the log is made. [default: 1]"),
    ] = None,
    *,
    accept: Annotated[
        bool, typer.Option("--accept", help="Go on with changed code after a crash, not only after a clean stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what goes wrong.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Run the engine with Jaeger and Prometheus beside it, and Grafana where there is one; Ctrl-C ends all.

    Their addresses are printed first. A `jaeger`, `prometheus` with `promtool`, or `grafana` on PATH is taken; else
    Jaeger and Prometheus are built once into `~/.cache/longwatch`, which takes about ten minutes.

    All listen on this machine only. Jaeger keeps its traces in memory: `longwatch trace KEY --export` sends one again.

    Example: `longwatch up`, or `longwatch up --data .longwatch/fast --lapse 20000` to live through weeks in minutes.
    """
    from engine.cli.run import prepare, run
    from observability.servers.stack import Stack

    given = {"app": application, "data": data, "lapse": lapse}
    loaded, _, _ = prepare({name: value for name, value in given.items() if value is not None})
    settings = loaded.settings
    _check_free(settings)
    from grafana.shipped import export, rule_file

    folder = settings.data / "servers"

    def provide(prometheus: str, jaeger: str) -> Path:
        from engine.cli.grafana import _machines

        machines = _machines(application, data)
        dashboards = str((folder / "dashboards").absolute())
        export(folder, machines, prometheus=prometheus, jaeger=jaeger, installed=dashboards)
        return folder / "provisioning"

    stack = Stack(
        folder,
        settings.data / "targets.json",
        rules=rule_file(),
        provide=provide,
        otlp=settings.otlp,
        protocol=settings.otlp_protocol,
        metrics=settings.metrics,
    )
    with stack:
        _tell(stack, as_json=as_json)
        with _watched(stack, as_json=as_json):
            run(
                application,
                data,
                lapse=lapse,
                otlp=stack.otlp,
                metrics=stack.metrics,
                accept=accept,
                quiet=quiet,
                as_json=as_json,
            )


@contextmanager
def _watched(stack: Stack, *, as_json: bool) -> Iterator[None]:
    """Say of each server that ends by itself that it did, while the engine goes on."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            for words in stack.ended():
                _warn(words, as_json=as_json)

    watching = threading.Thread(target=watch, name="servers", daemon=True)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def _warn(words: str, *, as_json: bool) -> None:
    if as_json:
        emit({"at": rfc3339(time.time_ns() // 1_000_000), "event": "server", "message": words})
    else:
        sys.stderr.write(f"longwatch: {words}\n")
        sys.stderr.flush()


def _check_free(settings: Settings) -> None:
    """See that no engine runs there, before servers are started for nothing.

    Raises:
        LogBusy: one does.

    """
    from engine.data_folder import DataFolder
    from engine.log.errors import LogBusy

    last = DataFolder(settings.data).read_engine()
    if last is not None and last.runs:
        raise LogBusy(
            f"an engine runs on {settings.data} already (process {last.owner.pid}); stop it, or take another data"
            " folder (--data)"
        )


def _tell(stack: Stack, *, as_json: bool) -> None:
    if as_json:
        emit({"event": "servers", **stack.facts()})
        return
    table(("", "address", "what to do there"), stack.rows())
    line("")
