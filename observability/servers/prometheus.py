"""Prometheus on loopback: what it scrapes, its rules, and what it answers."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from observability.servers.errors import ServerFailed
from observability.servers.install import ensure
from observability.servers.ports import LOOPBACK, free_ports
from observability.servers.process import Server
from observability.servers.tool import PROMETHEUS, Installed

WISHED: Final = 9090
_EXEMPLARS: Final = 100_000


@dataclass(frozen=True)
class Sample:
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float


class QueryFailed(ServerFailed):
    """Prometheus refused an expression, or could not work it out."""


class Prometheus(Server):
    """One Prometheus, with exemplars stored."""

    name = "prometheus"

    def __init__(
        self,
        folder: Path,
        *,
        target_files: Sequence[Path] = (),
        targets: Mapping[str, Sequence[str]] | None = None,
        rules: Sequence[Path] = (),
        interval: str = "2s",
        known_port: bool = False,
        installed: Installed | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            folder: its configuration, data and log are written to a folder in there.
            target_files: lists of what is scraped, looked at again when they change (`file_sd`); the engine writes one.
            targets: further ones that do not change: host:port by the job's name.
            rules: files of alerts.
            interval: between scrapes.
            known_port: take 9090 where it is free.
            installed: its programs; None: found or built.

        """
        super().__init__(folder)
        self._files = [path.absolute() for path in target_files]
        self._targets, self._rules = dict(targets or {}), [path.absolute() for path in rules]
        self._interval, self._wished = interval, WISHED if known_port else 0
        self._installed = installed

    @property
    def installed(self) -> Installed:
        self._installed = self._installed or ensure(PROMETHEUS)
        return self._installed

    def prepare(self) -> Sequence[str]:
        programs = self.installed.paths
        (port,) = free_ports((self._wished,))
        self.url = f"http://{LOOPBACK}:{port}"
        path = self.folder / "prometheus.yml"  # JSON is YAML
        path.write_text(json.dumps(self._configuration(), indent=2), encoding="utf-8")
        self._check(programs["promtool"], path)
        return [
            str(programs["prometheus"]),
            f"--config.file={path}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        ]

    def health(self) -> str:
        return f"{self.url}/-/ready"

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The instant value of an expression, now or at `at` (seconds since the epoch).

        Raises:
            QueryFailed: with Prometheus's word.
        """
        fields = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        data = self._ask("query", fields)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expression: str) -> float:
        """The sum of what an expression answers with; not a number if that is nothing."""
        samples = self.query(expression)
        return sum(sample.value for sample in samples) if samples else math.nan

    def exemplars(self, expression: str, begin: float, end: float) -> list[dict[str, Any]]:
        """Exemplars of an expression's series between two times (seconds since the epoch)."""
        found: list[dict[str, Any]] = self._ask(
            "query_exemplars", {"query": expression, "start": f"{begin:.3f}", "end": f"{end:.3f}"}
        )
        return found

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with `scrapePool`, `health` (up, down, unknown) and `lastError`."""
        found: list[dict[str, Any]] = self._ask("targets", {"state": "active"}, "GET")["activeTargets"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Its rules, with `name`, `query`, `health` (ok, err, unknown), `lastError`, and `state` of alerts."""
        return [rule for group in self._ask("rules", {}, "GET")["groups"] for rule in group["rules"]]

    def _ask(self, what: str, fields: Mapping[str, str], method: str = "POST") -> Any:  # noqa: ANN401 (JSON)
        answer = self._http.request_encode_url if method == "GET" else self._http.request_encode_body
        options: dict[str, Any] = {} if method == "GET" else {"encode_multipart": False}
        said = answer(method, f"{self.url}/api/v1/{what}", fields=dict(fields), **options)
        body = said.json()
        if body.get("status") != "success":
            raise QueryFailed(
                f"prometheus refused {what} {fields.get('query', '')!r}: {body.get('error', said.status)}"
            )
        return body["data"]

    def _configuration(self) -> Mapping[str, Any]:
        found = {"file_sd_configs": [{"files": [str(path) for path in self._files], "refresh_interval": "2s"}]}
        jobs: list[dict[str, Any]] = [{"job_name": "longwatch", **found}] if self._files else []
        jobs += [
            {"job_name": name, "static_configs": [{"targets": list(places)}]} for name, places in self._targets.items()
        ]
        return {
            "global": {
                "scrape_interval": self._interval,
                "scrape_timeout": self._interval,
                "evaluation_interval": self._interval,
            },
            "rule_files": [str(path) for path in self._rules],
            "storage": {"exemplars": {"max_exemplars": _EXEMPLARS}},
            "scrape_configs": jobs,
        }

    @staticmethod
    def _check(promtool: Path, path: Path) -> None:
        said = subprocess.run(
            [str(promtool), "check", "config", str(path)], capture_output=True, text=True, check=False
        )
        if said.returncode:
            raise ServerFailed(f"promtool refuses {path}:\n{(said.stdout + said.stderr).strip()}")
