"""Real servers beside an engine: Jaeger for its traces, Prometheus for its metrics, Grafana where there is one.

What is on this machine already is taken. Else Jaeger and Prometheus are built from Go's module proxy (`tools/`), once,
into the user's cache.
"""
