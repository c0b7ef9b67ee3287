"""`longwatch status`: what runs, how far it is behind, and how safe it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from engine.cli import options
from engine.cli.gates import gate_facts, gate_words
from engine.cli.output import cell, console, emit, rfc3339, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.data_folder import DataFolder, Pids
    from engine.gauges import Figures
    from engine.instruments import Readings
    from engine.log.lease import Lease
    from engine.log.redis_log import RedisLog
    from engine.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    data: options.Data = None,
    log: options.Log = None,
    *,
    as_json: options.AsJson = False,
) -> None:
    """Tell whether the engine runs, its processes, lag by partition, last checkpoint, and the log's safety.

    Works without a running engine; the embedded Redis is started for the question and ended after it.

    Example: `longwatch status --json | jq .lag_ms`
    """
    from engine.data_folder import DataFolder
    from engine.session import Session

    settings = options.settings(data=data, log=log)
    folder = DataFolder(settings.data)
    if not settings.log and not (settings.data / "redis").exists():
        facts = {"running": False, "data": str(settings.data), "log": None}
        emit(facts) if as_json else console().print(f"nothing was ever run in {cell(settings.data)}")
        return
    with Session(settings) as session:
        found = gather(settings, folder, session.log, session.url)
    emit(found) if as_json else _draw(found)


def gather(settings: Settings, folder: DataFolder, log: RedisLog, url: str) -> dict[str, Any]:
    """Everything that `status` tells, as JSON has it: the numbers are those of the metrics, read in the same way."""
    from engine.gauges import Figures
    from engine.instruments import Instruments
    from engine.log.server import describe

    server, lease = describe(url), log.lease()
    with Instruments(log, url, settings.data, exports=bool(settings.otlp)) as instruments:
        readings = instruments.read_whole()
    note, figures = readings.engine, readings.figures or Figures()
    gates = [gate for gate in readings.gates or () if gate.waiting or gate.is_shut]
    header = log.header
    checkpoint = folder.newest_checkpoint()
    return {
        "running": _runs(lease),
        "app": note.app if note else None,
        "version": note.version if note else None,
        "started": rfc3339(note.started) if note else None,
        "stopped": rfc3339(note.stopped) if note and note.stopped else None,
        "owner": _owner(lease),
        "pids": _pids(note.pids) if note and note.runs else {},
        "rest_port": note.rest_port if note and note.runs else 0,
        "data": str(settings.data),
        "log": {
            "url": url,
            "log_id": header.log_id,
            "partitions": header.partitions,
            "lapse": header.lapse,
            "redis_version": server.version,
            "fsync": server.fsync,
            "acknowledged_is_on_disk": server.acknowledged_is_on_disk,
            "memory": server.memory,
            "memory_limit": server.memory_limit,
        },
        "last_checkpoint": rfc3339(checkpoint) if checkpoint else None,
        "as_of": rfc3339(figures.as_of) if figures.as_of else None,
        "runs": figures.runs,
        "halted": figures.halted,
        "dead_letters": figures.dead_letters,
        "lag_ms": figures.lag_ms,
        "lag": _lags(figures),
        "gates": [gate_facts(gate) for gate in gates],
        **_measured(readings),
    }


def _measured(readings: Readings) -> dict[str, Any]:
    """What the metrics tell besides."""
    vitals, found = readings.vitals, readings.found
    runs = readings.engine is not None and readings.engine.runs
    return {
        "up": readings.is_up,
        "restarts": vitals.restarts if vitals else 0,
        "checkpoints_failed": vitals.checkpoints_failed if vitals else 0,
        "checkpoint_age_ms": readings.checkpoint_age_ms if runs else None,
        "view_lag_ms": readings.view_lag_ms,
        "timers_overdue": found.overdue if found else None,
        "oldest": [
            {"workflow": workflow, "state": state, "since": rfc3339(since)}
            for (workflow, state), since in sorted(found.oldest.items())
        ]
        if found
        else None,
        "budgets": readings.budgets,
        "exporter": _exporter(readings),
        "flink_metrics": list(vitals.flink) if vitals and runs else [],
    }


def _exporter(readings: Readings) -> dict[str, Any] | None:
    signs = readings.exporter
    if signs is None:
        return None
    return {
        "up": readings.exporter_is_up,
        "endpoint": signs.endpoint,
        "lag_ms": readings.exporter_lag_ms,
        "lag_records": signs.lag_records,
        "sent": signs.sent,
        "refused": signs.refused,
        "failures": signs.failures,
        "last_error": signs.last_error or None,
    }


def _runs(lease: Lease | None) -> bool:
    return lease is not None and not (lease.owner.is_local() and lease.owner.is_dead())


def _owner(lease: Lease | None) -> dict[str, Any] | None:
    if lease is None:
        return None
    return {"host": lease.owner.host, "pid": lease.owner.pid, "epoch": lease.epoch, "expires": rfc3339(lease.expires)}


def _pids(pids: Pids) -> dict[str, int]:
    import msgspec

    found: dict[str, int] = msgspec.to_builtins(pids)
    return found


def _lags(figures: Figures) -> list[dict[str, Any]]:
    return [
        {"partition": lag.partition, "tail": lag.tail or None, "passed": lag.passed or None, "behind_ms": lag.behind_ms}
        for lag in figures.partitions
    ]


def _draw(facts: dict[str, Any]) -> None:
    out, log = console(), facts["log"]
    processes = "  ".join(f"{name} {pid}" for name, pid in facts["pids"].items() if pid)
    state = f"[green]runs[/green] {cell(facts['app'] or '')}, since {facts['started']}"
    if not facts["running"]:
        state = f"stopped cleanly at {facts['stopped']}" if facts["stopped"] else "does not run"
        state += ", and did not stop cleanly" if facts["started"] and not facts["stopped"] else ""
    rows = [
        ("engine", state),
        ("processes", processes or "-"),
        ("log", f"{cell(log['url'])}, {log['partitions']} partitions, lapse {log['lapse']:g}"),
        ("redis", f"{log['redis_version']}, {_safety(log)}, {log['memory'] / (1 << 20):,.1f} MB in use"),
        ("checkpoint", _checkpoint(facts)),
        ("view as of", f"{facts['as_of'] or '-'}{_behind(facts['view_lag_ms'])}"),
        ("runs", ", ".join(f"{count:,} {name}" for name, count in facts["runs"].items()) or "none"),
        ("halted", f"{facts['halted']:,}"),
        ("dead letters", f"{facts['dead_letters']:,}"),
        ("lag", f"{facts['lag_ms'] / 1000:.1f} s"),
    ]
    rows += [(name, words) for name, words in _more(facts) if words]
    for name, words in rows:
        out.print(f"{name:13}{words}")
    for gate in facts["gates"]:
        out.print(f"{'limit':13}{cell(gate_words(gate))}")
    behind = [lag for lag in facts["lag"] if lag["behind_ms"]]
    if behind:
        out.print()
        columns = ["partition", "tail", "passed", "behind_ms"]
        table(columns, [[lag[name] for name in columns] for lag in behind])


def _checkpoint(facts: dict[str, Any]) -> str:
    words = facts["last_checkpoint"] or "none yet"
    if facts["checkpoint_age_ms"] is not None:
        words += f", {facts['checkpoint_age_ms'] / 1000:.0f} s ago"
    return words + (f", {facts['checkpoints_failed']:,} failed" if facts["checkpoints_failed"] else "")


def _more(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    overdue = {name: count for name, count in (facts["timers_overdue"] or {}).items() if count}
    yield "restarts", f"{facts['restarts']:,} after a death" if facts["restarts"] else ""
    yield "timers", ", ".join(f"{count:,} overdue in {cell(name)}" for name, count in overdue.items())
    yield "budgets", ", ".join(f"{cell(name)} {ratio:.0%}" for name, ratio in facts["budgets"].items())
    if (exporter := facts["exporter"]) is not None:
        state = f"{exporter['sent']:,} spans to {cell(exporter['endpoint'] or 'nobody yet')}"
        state += f", {exporter['refused']:,} refused" if exporter["refused"] else ""
        state += _behind(exporter["lag_ms"]) if exporter["up"] else "; [red]it does not run[/red]"
        yield "traces", state + (f"; {cell(exporter['last_error'])}" if exporter["last_error"] else "")


def _behind(lag_ms: int | None) -> str:
    return f", {lag_ms / 1000:.1f} s behind" if lag_ms else ""


def _safety(log: dict[str, Any]) -> str:
    if log["acknowledged_is_on_disk"]:
        return "writes through before it acknowledges"
    if log["fsync"] == "everysec":
        return "[yellow]writes through every second: a power cut may lose the last one[/yellow]"
    if log["fsync"] == "unknown":
        return "[yellow]does not say when it writes through[/yellow]"
    return f"[red]appendfsync {cell(log['fsync'])}: a power cut may lose what was acknowledged[/red]"
