"""Boards and alerts for Grafana and Prometheus, as code.

What is generated from it (`python -m grafana.generate`) lies in `generated/` and is shipped; nothing that runs beside
an engine needs the SDK that it is made with.
"""

from grafana.alerts import Alert, alerts
from grafana.query import Query, fill, queries

__all__ = ["Alert", "Query", "alerts", "fill", "queries"]
