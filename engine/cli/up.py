"""`longwatch up`: the engine with servers beside it that show what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import options
from engine.cli.output import emit, line, table

if TYPE_CHECKING:
    from engine.settings import Settings
    from observability.servers.stack import Stack


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

    All listen on this machine only. Jaeger keeps its traces in memory: `longwatch trace KEY --export --endpoint URL`
    sends one again, to the address beside *traces to*.

    Example: `longwatch up`, or `longwatch up --data .longwatch/fast --lapse 20000` to live through weeks in minutes.
    """
    from observability.servers.stack import Stack

    settings = options.settings(app=application, data=data, lapse=lapse)
    _check_free(settings)
    from engine.cli.run import run
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
