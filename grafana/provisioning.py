"""Files by which a Grafana finds its data sources and boards when it starts."""

from __future__ import annotations

import json
from typing import Final

PROMETHEUS: Final = "longwatch-prometheus"
JAEGER: Final = "longwatch-jaeger"
"""Uids of the data sources; boards find them by their kind."""


def providers(folder: str) -> str:
    """Tell Grafana where the boards lie. They cannot be changed there: what is changed is the file.

    Args:
        folder: the path as Grafana sees it.

    """
    return f"""\
apiVersion: 1
providers:
  - name: longwatch
    type: file
    folder: Longwatch
    folderUid: longwatch
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: {json.dumps(folder)}
"""


def sources(prometheus: str, jaeger: str) -> str:
    """Tell Grafana where figures and traces come from, and that an exemplar's `trace_id` is a trace in Jaeger."""
    return f"""\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: {PROMETHEUS}
    type: prometheus
    access: proxy
    url: {json.dumps(prometheus)}
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      timeInterval: 15s
      exemplarTraceIdDestinations:
        - name: trace_id
          datasourceUid: {JAEGER}
          urlDisplayLabel: Show the trace
  - name: Jaeger
    uid: {JAEGER}
    type: jaeger
    access: proxy
    url: {json.dumps(jaeger)}
    editable: false
"""
