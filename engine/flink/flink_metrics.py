"""Flink's own metrics for Prometheus, on this machine only.

Flink's reporter for Prometheus listens on every interface and cannot be told otherwise. So the one for a push gateway
is switched on, which fills the same registry under the same names, with an interval that never comes; and the registry
is served by the server that the other one would have used, on a free port of localhost. Both are in the wheel, in a
folder that an embedded cluster does not look into: the jar is put on the class path (`engine.flink.jvm.class_path`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from py4j.protocol import Py4JError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

JAR: Final = "plugins/metrics-prometheus/flink-metrics-prometheus-*.jar"
"""Inside Flink's home."""
HOST: Final = "127.0.0.1"

_FACTORY: Final = "org.apache.flink.metrics.prometheus.PrometheusPushGatewayReporterFactory"
_REPORTER: Final = _FACTORY.removesuffix("Factory")
_CHANGING: Final = "job_id;task_id;task_attempt_id;task_attempt_num;operator_id;tm_id;host"
"""Labels whose values are others after each start: Prometheus would keep every one of them."""


def reporter_jar(home: Path) -> Path | None:
    """The reporter in the wheel; None: this build of Flink has none."""
    return next(iter(sorted(home.glob(JAR))), None)


def reporter_options() -> dict[str, str]:
    """Flink's options that fill the registry."""
    options = {
        "factory.class": _FACTORY,
        "hostUrl": "http://127.0.0.1:9",  # nobody is asked: see `interval`
        "interval": "3650 d",
        "deleteOnShutdown": "false",
        "scope.variables.excludes": _CHANGING,
    }
    return {f"metrics.reporter.prom.{name}": value for name, value in options.items()}


def serve(java: Any, cluster: Any) -> list[str]:  # noqa: ANN401 (py4j has no types)
    """Serve the registry of a mini cluster that runs; where, as `host:port`, or nothing if that was not possible."""
    try:
        registry = _registry(cluster)
        if registry is None:
            logger.warning("Flink has started no reporter for Prometheus: there are no metrics of its own")
            return []
        address = java.java.net.InetSocketAddress(HOST, 0)
        server = java.io.prometheus.client.exporter.HTTPServer(address, registry, True)
        return [f"{HOST}:{server.getPort()}"]
    except (Py4JError, TypeError) as error:
        logger.warning("Flink's own metrics cannot be served: %s", error)
        return []


def _registry(cluster: Any) -> Any:  # noqa: ANN401
    """What the reporter fills, as of Flink 2.3: `MiniCluster.metricRegistry`, `AbstractPrometheusReporter.registry`."""
    for reporter in _field(cluster, cluster.getClass(), "metricRegistry").getReporters():
        kind = reporter.getClass()
        if kind.getName() == _REPORTER:
            return _field(reporter, kind.getSuperclass(), "registry")
    return None


def _field(thing: Any, kind: Any, name: str) -> Any:  # noqa: ANN401
    field = kind.getDeclaredField(name)
    field.setAccessible(True)
    return field.get(thing)
