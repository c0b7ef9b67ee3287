"""`longwatch record`: what a run's calls kept, as a file that tests play again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import options
from engine.cli.client import Target, settings_of
from engine.cli.output import emit, line


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("record")(record)


def record(
    run: Target,
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it.", show_default=False)] = Path(
        "answers.json"
    ),
    data: options.Data = None,
    log: options.Log = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the answers that the models and tools of a run gave into a file, for `run.play(FILE)` in a test.

    They are read from log and archive. Look through the file before you share it: it holds what was said.

    Example: `longwatch record insurance-claim/4711 --out answers.json`
    """
    from engine.client import find_row
    from engine.session import Session
    from engine.testing.recorded import RecordedAnswers

    with Session(settings_of(data, log)) as session:
        recorded = RecordedAnswers.from_records(session.log, find_row(session.view, run))
    recorded.write(out)
    results = sum(len(call.kept) for call in recorded.calls)
    if as_json:
        emit({"file": str(out), "calls": len(recorded.calls), "results": results})
    else:
        line(f"{out}: {results} results of {len(recorded.calls)} calls ({', '.join(recorded.steps)})")
