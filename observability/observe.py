"""`make observe`: the demo with a real Jaeger and a real Prometheus beside it, and Grafana where there is one.

With `--check` it compares instead. When the demo is through, its engine runs on: every panel's query and every alert's
expression is put to the Prometheus that has scraped it. Then the engine is stopped, and every span that the log says
there is, is compared with what Jaeger shows.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec

import grafana
from engine import LongwatchError
from engine.core.record import Record, read_record
from engine.journal import Journal
from engine.session import Session
from engine.settings import load
from grafana.shipped import export, rule_file
from observability.expected import Expected
from observability.jaeger import Comparison, JaegerReader, compare
from observability.otlp import resource_of
from observability.place import ExporterFile
from observability.projection import Projection
from observability.servers import bound
from observability.servers.progress import Progress
from observability.servers.prometheus import Prometheus, QueryFailed
from observability.servers.stack import Provide, Stack

FOLDER: Final = Path(".longwatch", "observe")
DEMO: Final = "workflows.insurance_claim.demo"
CAUGHT_UP_WITHIN_S: Final = 300.0
SCRAPED_WITHIN_S: Final = 60.0
_LOOK_SECONDS: Final = 0.5
_NAMED: Final = 10
_EVERY_TRACE: Final = {"LONGWATCH_TRACE_RULE": "all"}
"""Whatever rule this machine has: what is compared is everything."""


class NotSeen(LongwatchError):
    """What was to be looked at did not come about."""


@dataclass
class Seen:
    """What a check has found."""

    runs: int = 0
    episodes: int = 0
    spans: Comparison = field(default_factory=Comparison)
    again: Comparison = field(default_factory=Comparison)
    """From an emptied Jaeger to which all was exported once more."""
    panels: int = 0
    panels_empty: list[str] = field(default_factory=list)
    panels_may_be_empty: int = 0
    """Panels that have nothing to show, and say why a healthy engine may have nothing there."""
    alerts: int = 0
    alerts_in_error: list[str] = field(default_factory=list)
    alerts_firing: list[str] = field(default_factory=list)
    demo: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether all is as the log says, and nothing is empty or in error."""
        equal = self.spans.holds and self.again.holds and self.spans.expected > 0
        return equal and not self.panels_empty and not self.alerts_in_error

    def facts(self) -> dict[str, Any]:
        """One line of JSON."""
        return {
            "holds": self.holds,
            "runs": self.runs,
            "episodes": self.episodes,
            "traces": self.spans.traces,
            "spans_expected": self.spans.expected,
            "spans_in_jaeger": self.spans.found,
            "spans_differing": self.spans.differing,
            "spans_missing": self.spans.missing,
            "spans_unexpected": self.spans.unexpected,
            "duplicates": self.spans.duplicates,
            "orphans": self.spans.orphans,
            "parents_to_come": self.spans.early,
            "warnings": self.spans.warnings,
            "foreign_resources": self.spans.foreign,
            "differing": self.spans.names,
            "again_in_jaeger": self.again.found,
            "again_differing": self.again.differing,
            "panels": self.panels,
            "panels_empty": len(self.panels_empty),
            "panels_may_be_empty": self.panels_may_be_empty,
            "empty": self.panels_empty[:_NAMED],
            "alerts": self.alerts,
            "alerts_in_error": len(self.alerts_in_error),
            "in_error": self.alerts_in_error[:_NAMED],
            "alerts_firing": self.alerts_firing,
            "seconds": round(self.seconds),
            "demo": self.demo,
        }


class DemoProcess:
    """The demo, in a process of its own: what it watches is the engine, not us."""

    def __init__(self, module: str, data: Path, stack: Stack, words: Sequence[str], *, piped: bool) -> None:
        """Start it.

        Args:
            module: what `python -m` runs.
            data: its data folder.
            stack: where its engine sends what it has to tell.
            words: further words for it.
            piped: its last line is for us, and Ctrl-C is not for it.

        """
        wired = ["--data", str(data), "--otlp", stack.otlp, "--metrics", stack.metrics, "--hold"]
        self.process = subprocess.Popen(
            bound.command([sys.executable, "-m", module, *wired, *words]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else None,
            env={**os.environ, **_EVERY_TRACE},
            text=True,
            start_new_session=piped,
        )
        self.said: list[dict[str, Any]] = []

    def until_held(self) -> None:
        """Wait until all is decided.

        Raises:
            NotSeen: it ended before that.
        """
        for line in self.process.stdout or ():
            with contextlib.suppress(ValueError):
                self.said.append(json.loads(line))
                if self.said[-1].get("held"):
                    return
        raise NotSeen(f"the demo ended with exit code {self.process.wait()} before there was anything to compare")

    def end(self) -> dict[str, Any]:
        """Let it end, and hear its figures; nothing when it did not come to them."""
        if self.process.poll() is None:
            self.process.terminate()
        said, _ = self.process.communicate()
        for line in (said or "").splitlines():
            with contextlib.suppress(ValueError):
                self.said.append(json.loads(line))
        last = self.said[-1] if self.said else {}
        return {**({} if last.get("held") else last), "exit_code": self.process.returncode}


def check(stack: Stack, demo: DemoProcess, data: Path, progress: Progress) -> Seen:
    """Compare, from a demo that has just begun to its end.

    Raises:
        NotSeen: it did not come to that.
        ServerFailed: a server ended.
    """
    began = time.monotonic()
    seen = Seen()
    try:
        demo.until_held()
        _until_exported(data, progress)
        _until_scraped(stack.prometheus)
        progress.say("asking Prometheus what the boards and alerts ask")
        see_panels(stack.prometheus, seen)
        see_alerts(stack.prometheus, seen)
    finally:
        seen.demo = demo.end()
    stack.check()
    _export(data, stack)
    progress.say("comparing Jaeger with the log, span for span")
    see_spans(stack, data, seen, progress)
    seen.seconds = time.monotonic() - began
    return seen


def see_panels(prometheus: Prometheus, seen: Seen) -> None:
    """Put every query of every board to it. One that has nothing to show counts, unless its board says why it may."""
    shows: dict[str, str] = {}
    for query in grafana.queries():
        name = f"{query.board}: {query.panel}"
        shows.setdefault(name, "")
        try:
            samples = prometheus.query(grafana.fill(query.expr))
        except QueryFailed as error:
            shows[name] = str(error)
            continue
        if all(math.isnan(sample.value) for sample in samples):
            if query.may_be_empty:
                shows[name] = shows[name] or "may be"
            else:
                shows[name] = f"nothing for {query.expr}"
    seen.panels = len(shows)
    seen.panels_may_be_empty = sum(words == "may be" for words in shows.values())
    seen.panels_empty = [f"{name}: {words}" for name, words in shows.items() if words not in {"", "may be"}]


def see_alerts(prometheus: Prometheus, seen: Seen) -> None:
    """Put every alert's expression to it, and hear how its own rules are."""
    wrong: dict[str, str] = {}
    for alert in grafana.alerts():
        seen.alerts += 1
        try:
            prometheus.query(alert.expr)
        except QueryFailed as error:
            wrong[alert.name] = str(error)
    rules = prometheus.rules()
    wrong |= {rule["name"]: rule["lastError"] for rule in rules if rule["health"] == "err"}
    missing = {alert.name for alert in grafana.alerts()} - {rule["name"] for rule in rules}
    wrong |= dict.fromkeys(missing, "Prometheus does not have it among its rules")
    seen.alerts_in_error = [f"{name}: {words}" for name, words in sorted(wrong.items())]
    seen.alerts_firing = sorted(rule["name"] for rule in rules if rule.get("state") == "firing")


def see_spans(stack: Stack, data: Path, seen: Seen, progress: Progress) -> None:
    """Compare every span of the log with Jaeger's; then once more, when Jaeger has been emptied and filled again."""
    if stack.jaeger is None:
        raise NotSeen("there is no Jaeger of ours to look into: leave out the setting `otlp`")
    with contextlib.closing(_session(data)) as session:
        journal = Journal(session)
        resource = resource_of(journal.header.log_id)
        expected = Expected.of(_records(journal), Projection(journal.header), resource)
    seen.runs, seen.episodes = expected.runs, expected.episodes
    seen.spans = compare(expected, JaegerReader(stack.jaeger.url))
    progress.say("emptying Jaeger, and exporting all of the log again")
    stack.jaeger.restart()
    _export(data, stack, "--from-start")
    seen.again = compare(expected, JaegerReader(stack.jaeger.url))


def _records(journal: Journal) -> Iterable[Record]:
    for partition in range(journal.header.partitions):
        for item in journal.scan(partition):
            yield read_record(item.payload)


def _session(data: Path) -> Session:
    return Session(load({"data": data}).settings)


def _until_exported(data: Path, progress: Progress) -> None:
    """Wait until the exporter has sent all that the journal held when we began to wait."""
    with contextlib.closing(_session(data)) as session:
        journal = Journal(session)
        ends = {
            partition: item.id for partition in range(journal.header.partitions) for item in journal.scan(partition)
        }
    until = time.monotonic() + CAUGHT_UP_WITHIN_S
    while left := _behind(data, ends):
        if time.monotonic() > until:
            raise NotSeen(
                f"the exporter has not sent what {left} partitions hold after {CAUGHT_UP_WITHIN_S:.0f} s;"
                f" look at {data / 'logs'}"
            )
        progress.show(f"waiting for the exporter: {left} partitions to go")
        time.sleep(_LOOK_SECONDS)


def _behind(data: Path, ends: dict[int, str]) -> int:
    """In how many partitions the exporter has not come to these ends."""
    try:
        places = msgspec.json.decode((data / "exporter.json").read_bytes(), type=ExporterFile).places
    except (FileNotFoundError, msgspec.DecodeError):
        places = {}
    return sum(_order(places.get(partition, "0-0")) < _order(end) for partition, end in ends.items())


def _order(place: str) -> tuple[int, ...]:
    """Ids of the journal are two numbers; as texts they would not be in order."""
    return tuple(int(part) for part in place.split("-"))


def _until_scraped(prometheus: Prometheus) -> None:
    """Wait until Prometheus has two samples of how things stand now."""
    since = time.time()
    until = time.monotonic() + SCRAPED_WITHIN_S
    expression = f'count_over_time(up{{job="longwatch"}}[60s]) and timestamp(up{{job="longwatch"}}) > {since:.0f} + 3'
    while not prometheus.query(expression):
        if time.monotonic() > until:
            found = [f"{each['scrapeUrl']}: {each['health']} {each['lastError']}" for each in prometheus.targets()]
            raise NotSeen(f"Prometheus has no metrics of the engine; it scrapes {found}")
        time.sleep(_LOOK_SECONDS)


def _export(data: Path, stack: Stack, *words: str) -> None:
    """Send what was not sent yet, as what was written while the engine stopped; or all, as it is told."""
    environment = {**os.environ, **_EVERY_TRACE, "LONGWATCH_OTLP": stack.otlp}
    command = [sys.executable, "-m", "observability.exporter", "--once", "--data", str(data), *words]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if said.returncode:
        raise NotSeen(f"the exporter ended with code {said.returncode}:\n{said.stderr[-2000:]}")


def look(stack: Stack, demo: DemoProcess, data: Path) -> int:
    """Wait until the demo ends; Ctrl-C is its to obey, SIGTERM is handed on.

    Where the servers are is written into the demo's data folder as soon as its engine has one: it is emptied first.
    """
    began, is_told = time.time(), False

    def hand_on(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGTERM and demo.process.poll() is None:
            demo.process.terminate()

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while demo.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                demo.process.wait(1)
            if demo.process.poll() is None:
                _warn_of_the_dead(stack)
                if not is_told and _is_newer(data / "engine.json", began):
                    stack.tell(data / "servers")
                    is_told = True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return demo.process.returncode


def _warn_of_the_dead(stack: Stack) -> None:
    for words in stack.ended():
        sys.stderr.write(f"longwatch: {words}\n")


def _is_newer(path: Path, than: float) -> bool:
    try:
        return path.stat().st_mtime > than
    except OSError:
        return False


def show(stack: Stack) -> None:
    """Print where to look."""
    rows = stack.rows()
    wide, long = max(len(row.name) for row in rows), max(len(row.address) for row in rows)
    lines = [f"{row.name:{wide}}  {row.address:{long}}  {row.words}".rstrip() for row in rows]
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


def provider(folder: Path) -> Provide:
    """Write what a Grafana reads into this folder."""

    def provide(prometheus: str, jaeger: str) -> Path:
        dashboards = str((folder / "dashboards").absolute())
        export(folder, prometheus=prometheus, jaeger=jaeger, installed=dashboards)
        return folder / "provisioning"

    return provide


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """The folder without the servers' files of an earlier time.

    Raises:
        NotSeen: somebody else looks there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotSeen(f"another `make observe` runs in {folder}; wait for it, or give another --data") from None
        shutil.rmtree(folder / "servers", ignore_errors=True)
        yield folder


def arguments(given: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="make observe", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, and print one JSON object on the last line")
    parser.add_argument("--data", type=Path, default=FOLDER, help="the folder; default %(default)s")
    parser.add_argument("--demo", default=DEMO, metavar="MODULE", help="what is run; default %(default)s")
    return parser.parse_known_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run it; 0 when all that was compared is equal, nothing is empty and nothing in error."""
    options, words = arguments(given)
    progress = Progress()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with own_folder(options.data) as folder:
            data = folder / "demo"
            stack = Stack(
                folder / "servers",
                data / "targets.json",
                rules=rule_file(),
                provide=None if options.check else provider(folder / "servers"),
                protocol=load().settings.otlp_protocol,
                known_ports=not options.check,
            )
            with stack:
                if not options.check:
                    show(stack)
                    return look(stack, DemoProcess(options.demo, data, stack, words, piped=False), data)
                demo = DemoProcess(options.demo, data, stack, ["--json", *words], piped=True)
                seen = check(stack, demo, data, progress)
    except LongwatchError as error:
        progress.say(f"make observe: {error}")
        return 1
    except KeyboardInterrupt:
        progress.say("interrupted; everything was ended")
        return 130
    sys.stdout.write(json.dumps(seen.facts()) + "\n")
    return 0 if seen.holds and not seen.demo.get("exit_code") else 1


if __name__ == "__main__":
    sys.exit(main())
