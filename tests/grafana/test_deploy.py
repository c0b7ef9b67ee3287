"""What `deploy/` holds, as far as it can be checked without containers."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from ruamel.yaml import YAML

from grafana.alerts import alerts
from grafana.provisioning import JAEGER as TRACES
from grafana.provisioning import providers, sources
from grafana.shipped import BOARDS
from observability.servers.install import ensure
from observability.servers.ports import LOOPBACK, free_ports
from observability.servers.process import Server
from observability.servers.tool import JAEGER
from tests.grafana.test_rules import promtool

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def read(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


COMPOSE: dict[str, Any] = read(DEPLOY / "compose.yaml")
SERVICES = [pytest.param(name, service, id=name) for name, service in COMPOSE["services"].items()]


def test_the_compose_file_is_one() -> None:
    """By the schema of the compose specification, which check-jsonschema carries."""
    pytest.importorskip("check_jsonschema")
    text = files("check_jsonschema").joinpath("builtin_schemas", "vendor", "compose-spec.json").read_text("utf-8")
    schema = json.loads(text)
    found = validator_for(schema, default=Draft202012Validator)(schema).iter_errors(COMPOSE)

    assert [f"{list(error.absolute_path)}: {error.message}" for error in found] == []


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_images_are_pinned(name: str, service: dict[str, Any]) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+", service["image"]) or "build" in service, name


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_ports_are_published_on_loopback_only(name: str, service: dict[str, Any]) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_what_is_mounted_is_there(name: str, service: dict[str, Any]) -> None:
    for mount in service.get("volumes", ()):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / source).exists(), name
        elif not source.startswith("$"):
            assert source in COMPOSE["volumes"], name


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_services_come_back_and_say_whether_they_are_well(name: str, service: dict[str, Any]) -> None:
    """Jaeger's image has nothing that could ask."""
    assert service["restart"] == "unless-stopped"
    assert ("healthcheck" in service) == (name != "jaeger")


def test_what_is_waited_for_is_a_service() -> None:
    waited = {other for service in COMPOSE["services"].values() for other in service.get("depends_on", ())}

    assert waited <= set(COMPOSE["services"])


def test_the_engine_sends_its_traces_by_the_standard_variables() -> None:
    environment = COMPOSE["services"]["engine"]["environment"]

    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://jaeger:4318"
    assert environment["OTEL_SERVICE_NAME"] == "longwatch"


def test_grafana_is_provisioned_with_what_an_export_writes() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (boards,) = [
        mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"] if "generated/boards" in mount
    ]

    assert (folder / "dashboards" / "longwatch.yaml").read_text(encoding="utf-8") == providers(boards)
    assert (folder / "datasources" / "longwatch.yaml").read_text(encoding="utf-8") == sources(
        "http://engine:9090", "http://jaeger:16686"
    )


def test_the_mounted_boards_are_nothing_but_boards() -> None:
    found = {path.name for path in (ROOT / "grafana" / "generated" / "boards").iterdir()}

    assert found == {f"{uid}.json" for uid in BOARDS}


def test_an_exemplar_leads_to_its_trace() -> None:
    (metrics, traces) = read(DEPLOY / "grafana" / "provisioning" / "datasources" / "longwatch.yaml")["datasources"]
    (link,) = metrics["jsonData"]["exemplarTraceIdDestinations"]

    assert (link["name"], link["datasourceUid"]) == ("trace_id", TRACES)
    assert (traces["uid"], traces["type"]) == (TRACES, "jaeger")


def test_promtool_takes_the_configuration_and_its_rules(tmp_path: Path) -> None:
    for source in (DEPLOY / "prometheus.yml", ROOT / "grafana" / "generated" / "alerts.yaml"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    said = subprocess.run(
        [str(promtool()), "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 0, said.stdout + said.stderr
    assert f"{len(alerts())} rules found" in said.stdout + said.stderr


def test_the_image_is_made_of_the_wheels_sources_and_nothing_else() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    needed = {*wheel["packages"], *wheel.get("force-include", {}), "deploy", "pyproject.toml", "README.md", "LICENSE"}

    assert {"**/.*", "**/__pycache__"} <= set(ignored)  # the environment, Git and caches are a gigabyte
    assert not {name.split("/")[0] for name in needed} & set(ignored)


class DeployedJaeger(Server):
    """Jaeger with the file of `deploy/`, on other ports and in another folder."""

    name = "deployed"

    def prepare(self) -> Sequence[str]:
        text = (DEPLOY / "jaeger.yaml").read_text(encoding="utf-8").replace("/badger/", f"{self.folder}/badger/")
        known = sorted(set(re.findall(r"0\.0\.0\.0:(\d+)", text)))
        ports = dict(zip(known, free_ports((0,) * len(known)), strict=True))
        text = re.sub(r"0\.0\.0\.0:(\d+)", lambda found: f"{LOOPBACK}:{ports[found[1]]}", text)
        path = self.folder / "jaeger.yaml"
        # Its own figures stand on a port of their own, which another Jaeger may have.
        path.write_text(
            text.replace("  telemetry:\n", "  telemetry:\n    metrics:\n      level: none\n"), encoding="utf-8"
        )
        self.url = f"http://{LOOPBACK}:{ports['16686']}"
        self._health = f"http://{LOOPBACK}:{ports['13133']}/status"
        return [str(ensure(JAEGER).server), "--config", str(path)]

    def health(self) -> str:
        return self._health


def test_jaeger_starts_with_its_file(tmp_path: Path) -> None:
    with DeployedJaeger(tmp_path) as jaeger:
        assert jaeger.lives
        assert (jaeger.folder / "badger" / "keys").is_dir()


@pytest.mark.parametrize(
    ("text", "well"), [("longwatch_engine_up 1.0\n", True), ("longwatch_engine_up 0.0\n", False), ("", False)]
)
def test_the_engine_is_well_if_its_metrics_say_so(text: str, *, well: bool) -> None:
    spec = importlib.util.spec_from_file_location("healthy", DEPLOY / "healthy.py")
    assert spec is not None
    assert spec.loader is not None
    healthy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(healthy)

    assert healthy.is_up(text) is well
