"""Jaeger, Prometheus and Grafana beside one engine: started together, wired, ended together."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from observability import names
from observability.sender import Collector
from observability.servers.errors import ServerFailed
from observability.servers.grafana import Grafana, find_grafana
from observability.servers.jaeger import Jaeger, Protocol
from observability.servers.ports import LOOPBACK, free_ports
from observability.servers.process import Server
from observability.servers.prometheus import Prometheus

WISHED_METRICS: Final = 9464
"""OpenTelemetry's port for what Prometheus scrapes."""
ADDRESSES: Final = "addresses.json"
FIRST_BOARD: Final = "longwatch-fleet"


Provide = Callable[[str, str], Path]
"""Writes what a Grafana reads, given the URLs of Prometheus and Jaeger; the folder of its provisioning files."""


class Row(NamedTuple):
    """A line of what is printed."""

    name: str
    address: str
    words: str
    """What to do there."""


class Stack:
    """The servers of one engine. What the user has already (a collector, a place for metrics) is left to him."""

    def __init__(
        self,
        folder: Path,
        targets: Path,
        *,
        rules: str = "",
        provide: Provide | None = None,
        otlp: str = "",
        protocol: Protocol = "http/protobuf",
        metrics: str = "",
        known_ports: bool = True,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            folder: of the servers' files; Prometheus finds its data again there.
            targets: the list that the engine writes of what is to be scraped.
            rules: a file of alerts for Prometheus, its text.
            provide: called when there is a Grafana, before it is started; without it none is.
            otlp: a collector of the user's own: then no Jaeger is started.
            protocol: how the engine sends traces.
            metrics: where the user wants the metrics; empty: on a free port.
            known_ports: take the ports that everybody knows where they are free.

        """
        self._folder, self._targets, self._rules, self._provide = folder, targets, rules, provide
        self._collector, self._protocol, self._place, self._known = otlp, protocol, metrics, known_ports
        self._started = ExitStack()
        self._told = set[Path]()
        self._mourned = set[int]()
        self.jaeger: Jaeger | None = None
        self.prometheus: Prometheus
        self.grafana: Grafana | None = None

    @property
    def otlp(self) -> str:
        """Where the engine sends its traces."""
        return self.jaeger.otlp(self._protocol) if self.jaeger else self._collector

    @property
    def metrics(self) -> str:
        """Where the engine shows its metrics, as host:port."""
        return self._place

    def __enter__(self) -> Self:
        """Start them; what is not on this machine is built first.

        Raises:
            ServerMissing, ServerFailed: then nothing is left running.
        """
        (self._folder / ADDRESSES).unlink(missing_ok=True)  # of one that was killed
        with ExitStack() as starting:
            if not self._collector:
                self.jaeger = starting.enter_context(Jaeger(self._folder, known_ports=self._known))
            if not self._place:
                (port,) = free_ports((WISHED_METRICS if self._known else 0,))
                self._place = f"{LOOPBACK}:{port}"
            self.prometheus = starting.enter_context(self._make_prometheus())
            if self._provide and (program := find_grafana()):
                provisioning = self._provide(self.prometheus.url, self.jaeger.url if self.jaeger else "")
                self.grafana = starting.enter_context(
                    Grafana(self._folder, program, provisioning, known_port=self._known)
                )
            self.tell(self._folder)
            self._started = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for path in self._told:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._started.close()

    def tell(self, folder: Path) -> None:
        """Write into a folder where the pages and query APIs are, for other commands; gone when the servers end."""
        path = folder / ADDRESSES
        aside = path.with_suffix(".new")
        folder.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(self.addresses(), indent=2) + "\n", encoding="utf-8")
        aside.replace(path)
        self._told.add(path)

    def addresses(self) -> dict[str, str]:
        """URLs of those servers that were started here, by name."""
        return {server.name: server.url for server in self._servers()}

    def ended(self) -> list[str]:
        """What to say of servers that have ended by themselves, once of each."""
        found = []
        for server in self._servers():
            try:
                server.check()
            except ServerFailed as error:
                if server.pid not in self._mourned:
                    self._mourned.add(server.pid)
                    found.append(str(error))
        return found

    def check(self) -> None:
        """See that all run.

        Raises:
            ServerFailed: one has ended.
        """
        for server in self._servers():
            server.check()

    def facts(self) -> dict[str, str]:
        """The addresses, for a program."""
        found = {
            "otlp": Collector(self.otlp).shown,
            "metrics": f"http://{_host(self.metrics)}/metrics",
            "prometheus": self.prometheus.url,
        }
        if self.jaeger:
            found["jaeger"] = self.jaeger.url
        if self.grafana:
            found["grafana"] = self.grafana.url
        return found

    def rows(self) -> list[Row]:
        """The addresses, for people."""
        made = []
        if self.grafana:
            made.append(Row("Grafana", f"{self.grafana.url}/d/{FIRST_BOARD}", "the boards; begin with Fleet"))
        if self.jaeger and self.jaeger.installed.has_page:
            words = f"traces; search for the tag {names.KEY}=4711"
            made.append(Row("Jaeger", f"{self.jaeger.url}/search?service={names.SERVICE}", words))
        elif self.jaeger:
            words = "its API (one that was built here has no page); `longwatch trace KEY` shows a trace"
            made.append(Row("Jaeger", f"{self.jaeger.url}/api/v3/services", words))
        if self.prometheus.installed.has_page:
            made.append(Row("Prometheus", f"{self.prometheus.url}/alerts", "alerts; /query asks for metrics"))
        else:
            words = "its API (one that was built here has no page): alerts; .../api/v1/query?query=longwatch_runs"
            made.append(Row("Prometheus", f"{self.prometheus.url}/api/v1/alerts", words))
        made.append(Row("metrics", f"http://{_host(self.metrics)}/metrics", "what Prometheus scrapes"))
        made.append(Row("traces to", Collector(self.otlp).shown, "OTLP; your own services may send theirs there too"))
        if not self.grafana:
            words = "none on PATH; `longwatch grafana push` takes the boards to one of yours"
            made.append(Row("Grafana", "-", words))
        return made

    def _servers(self) -> list[Server]:
        return [each for each in (self.jaeger, self.prometheus, self.grafana) if each is not None]

    def _make_prometheus(self) -> Prometheus:
        own = {"jaeger": [self.jaeger.metrics]} if self.jaeger else {}
        return Prometheus(
            self._folder,
            target_files=[self._targets],
            targets=own,
            rules=[self._write_rules()] if self._rules else [],
            known_port=self._known,
        )

    def _write_rules(self) -> Path:
        path = self._folder / "alerts.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._rules, encoding="utf-8")
        return path


def _host(place: str) -> str:
    """`9464` and `:9464` are ports of this machine."""
    host, _, port = place.rpartition(":")
    return f"{LOOPBACK if host in {'', '0.0.0.0', '[::]'} else host}:{port}"  # noqa: S104 (a place to look at, not to listen on)
