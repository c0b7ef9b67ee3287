"""Jaeger 2 with its store in memory, on loopback."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from observability.servers.install import ensure
from observability.servers.ports import LOOPBACK, free_ports
from observability.servers.process import Server
from observability.servers.tool import JAEGER, Installed

Protocol = Literal["http/protobuf", "grpc"]

WISHED: Final = (16686, 4318, 4317)
"""The ports that everybody knows: page and query API, OTLP by HTTP, OTLP by gRPC."""
_ANY: Final = (0, 0, 0)
_LARGEST_MIB: Final = 64
"""The largest OTLP message that it takes."""


class Jaeger(Server):
    """One Jaeger. What it holds is gone when it ends; a log sends it again."""

    name = "jaeger"

    def __init__(
        self,
        folder: Path,
        *,
        max_traces: int = 200_000,
        known_ports: bool = False,
        installed: Installed | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            folder: its configuration and log are written to a folder in there.
            max_traces: the oldest trace is dropped for one more.
            known_ports: take the ports that everybody knows where they are free.
            installed: its program; None: found or built.

        """
        super().__init__(folder)
        self._max_traces, self._wished = max_traces, WISHED if known_ports else _ANY
        self._installed = installed
        self._query = self._http_port = self._grpc_port = self._health = self._metrics = 0

    @property
    def installed(self) -> Installed:
        self._installed = self._installed or ensure(JAEGER)
        return self._installed

    def otlp(self, protocol: Protocol = "http/protobuf") -> str:
        """The endpoint that spans are sent to."""
        return f"http://{LOOPBACK}:{self._grpc_port if protocol == 'grpc' else self._http_port}"

    @property
    def metrics(self) -> str:
        """Where Prometheus finds Jaeger's own metrics, as host:port."""
        return f"{LOOPBACK}:{self._metrics}"

    def prepare(self) -> Sequence[str]:
        program = self.installed.server
        before = (self._query, self._http_port, self._grpc_port)
        ports = free_ports((*(before if all(before) else self._wished), 0, 0, 0))
        self._query, self._http_port, self._grpc_port, self._health, self._metrics, query_grpc = ports
        self.url = f"http://{LOOPBACK}:{self._query}"
        path = self.folder / "jaeger.yaml"  # JSON is YAML
        path.write_text(json.dumps(self._configuration(query_grpc), indent=2), encoding="utf-8")
        return [str(program), "--config", str(path)]

    def health(self) -> str:
        return f"http://{LOOPBACK}:{self._health}/status"

    def _configuration(self, query_grpc: int) -> Mapping[str, Any]:
        """No batch processor and no queue: what Jaeger has acknowledged can be asked for at once."""
        return {
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
                "telemetry": {
                    "resource": {"service.name": "jaeger"},
                    "logs": {"level": "warn"},
                    "metrics": {
                        "level": "normal",
                        "readers": [{"pull": {"exporter": {"prometheus": {"host": LOOPBACK, "port": self._metrics}}}}],
                    },
                },
            },
            "extensions": {
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "enable_tracing": False,
                    "http": {"endpoint": f"{LOOPBACK}:{self._query}"},
                    "grpc": {"endpoint": f"{LOOPBACK}:{query_grpc}"},
                },
                "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": self._max_traces}}}},
                "healthcheckv2": {"use_v2": True, "http": {"endpoint": f"{LOOPBACK}:{self._health}"}},
            },
            "receivers": {
                "otlp": {
                    "protocols": {
                        "http": {
                            "endpoint": f"{LOOPBACK}:{self._http_port}",
                            "max_request_body_size": _LARGEST_MIB << 20,
                        },
                        "grpc": {
                            "endpoint": f"{LOOPBACK}:{self._grpc_port}",
                            "max_recv_msg_size_mib": _LARGEST_MIB,
                        },
                    }
                }
            },
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
        }
