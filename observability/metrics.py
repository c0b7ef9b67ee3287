"""What a scrape gets: counters and histograms of the tally, gauges of the last readings.

A scrape reads from memory alone. It is a collector of prometheus_client, too, whose own counters are for programs that
count as they go: these here are functions of the journal.
"""

from __future__ import annotations

import threading
import time
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, UnknownMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Exemplar

from observability import metric as m
from observability.metric import CATALOGUE
from observability.rendering import GAUGES, Rendering, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric as Family

    from engine.instruments import Readings
    from observability.buckets import Histogram
    from observability.metric import Metric
    from observability.tally import Labels, Tally

CACHE_SECONDS: Final = 0.5
"""Two scrapes within this get the same bytes: scrapers that ask all the time cost no more."""

Samples = dict[m.Metric, dict["Labels", float]]


class Exposition:
    """Renders the metrics. `take` and `read` are called by one thread, `render` by any."""

    def __init__(self, tally: Tally) -> None:
        self.lock = threading.Lock()
        """Held while records are counted, for some milliseconds, and while a scrape copies the numbers."""
        self.tally = tally
        self.is_whole = False
        """Whether all is counted that the journal held at the start. Before, counters would seem to go back: they
        are left out, and Prometheus goes on from what it had."""
        self._gauges: Samples = {}
        self._writing = Rendering()
        self._rendered: dict[bool, tuple[float, bytes]] = {}
        self._rendering = threading.Lock()

    def show(self, readings: Readings) -> None:
        """Take in new readings."""
        self._gauges = samples(readings, self.tally.records if self.is_whole else None)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the form that a scraper wants most, and its content type."""
        _, kind = choose_encoder(accept)
        openmetrics = kind.startswith("application/openmetrics-text")
        with self._rendering:
            at, body = self._rendered.get(openmetrics, (0.0, b""))
            if time.monotonic() - at > CACHE_SECONDS:
                body = "".join(self._lines(openmetrics=openmetrics)).encode()
                self._rendered[openmetrics] = time.monotonic(), body
        return body, kind

    def _lines(self, *, openmetrics: bool) -> Iterator[str]:
        write, tally, gauges = self._writing, self.tally, self._gauges
        with self.lock:
            for metric, values in tally.counters.items() if self.is_whole else ():
                yield from write.plain(metric, values, openmetrics=openmetrics)
            for metric, histograms in tally.histograms.items() if self.is_whole else ():
                yield from write.histogram(metric, histograms, openmetrics=openmetrics)
        for metric in CATALOGUE:
            if metric in gauges:
                yield from write.plain(metric, gauges[metric], openmetrics=openmetrics)
        if openmetrics:
            yield "# EOF\n"

    def collect(self) -> Iterable[Family]:
        """See prometheus_client's `Collector`."""
        with self.lock:
            counted = list(self._counted()) if self.is_whole else []
        yield from counted
        gauges = self._gauges
        yield from (_plain(metric, gauges[metric]) for metric in CATALOGUE if metric in gauges)

    def _counted(self) -> Iterator[Family]:
        for metric, values in self.tally.counters.items():
            yield _plain(metric, values)
        for metric, histograms in self.tally.histograms.items():
            yield _histogram(metric, histograms)


def samples(readings: Readings, counted: int | None = None) -> Samples:
    """What readings say, by metric.

    Args:
        readings: what was read.
        counted: how many records the journal has had, to see how far the exporter is behind.

    """
    found: Samples = {m.ENGINE_UP: {(): float(readings.is_up)}, m.BUILD_INFO: {(version("longwatch"),): 1.0}}
    found |= _of_runs(readings)
    found |= _of_log(readings)
    found |= _of_engine(readings)
    found |= _of_exporter(readings, counted)
    found[m.BUDGET_USED] = {(name,): ratio for name, ratio in readings.budgets.items()}
    for gate in readings.gates or ():
        found.setdefault(m.GATE_OPEN, {})[gate.name,] = float(not gate.is_shut)
        found.setdefault(m.GATE_WAITING, {})[gate.name,] = float(gate.waiting)
    return found


def _of_runs(readings: Readings) -> Samples:
    found: Samples = {}
    if readings.counts is not None:
        found[m.RUNS] = {(each.workflow, each.state, each.status): float(each.runs) for each in readings.counts}
    if readings.found is not None:
        now = readings.log_time
        found[m.OLDEST_AGE] = {name: max(0, now - since) / 1000 for name, since in readings.found.oldest.items()}
        found[m.TIMERS_OVERDUE] = {(workflow,): float(runs) for workflow, runs in readings.found.overdue.items()}
        for each in readings.counts or ():
            found[m.TIMERS_OVERDUE].setdefault((each.workflow,), 0.0)
    return found


def _of_log(readings: Readings) -> Samples:
    found: Samples = {}
    if (figures := readings.figures) is not None:
        found[m.LOG_LAG] = {(): figures.lag_ms / 1000}
        found[m.PARTITION_LAG] = {(str(each.partition),): each.behind_ms / 1000 for each in figures.partitions}
        found[m.DEAD_LETTERS] = {(): float(figures.dead_letters)}
    if readings.view_lag_ms is not None:
        found[m.VIEW_LAG] = {(): readings.view_lag_ms / 1000}
    return found


def _of_engine(readings: Readings) -> Samples:
    found: Samples = {}
    if (vitals := readings.vitals) is not None:
        found[m.ENGINE_RESTARTS] = {(): float(vitals.restarts)}
        found[m.CHECKPOINTS_FAILED] = {(): float(vitals.checkpoints_failed)}
    if (age := readings.checkpoint_age_ms) is not None:
        found[m.CHECKPOINT_AGE] = {(): age / 1000}
    return found


def _of_exporter(readings: Readings, counted: int | None) -> Samples:
    signs = readings.exporter
    if signs is None:
        return {}
    behind = signs.lag_records if counted is None else max(0, counted - sum(signs.records.values()))
    found: Samples = {
        m.EXPORTER_UP: {(): float(readings.exporter_is_up)},
        m.EXPORTER_LAG_RECORDS: {(): float(behind)},
        m.EXPORTER_SPANS: {("sent",): float(signs.sent), ("refused",): float(signs.refused)},
        m.EXPORTER_FAILURES: {(reason,): float(count) for reason, count in signs.failures.items()},
    }
    if readings.exporter_lag_ms is not None:
        found[m.EXPORTER_LAG] = {(): readings.exporter_lag_ms / 1000}
    return found


def _plain(metric: Metric, values: Mapping[Labels, float]) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily
    name = metric.name.removesuffix("_total")
    if metric.kind == "gauge":
        family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
    elif name in GAUGES:  # see `observability.rendering.head`
        family = UnknownMetricFamily(metric.name, metric.help, labels=metric.labels)
    else:
        family = CounterMetricFamily(name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value / metric.scale)
    return family


def _histogram(metric: Metric, histograms: Mapping[Labels, Histogram]) -> Family:
    assert metric.buckets is not None  # noqa: S101 - it is a histogram
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    names = [*map(number, metric.buckets.seconds), "+Inf"]
    for labels, one in histograms.items():
        exemplars = [_exemplar(metric, one, bucket) for bucket in range(len(names))]
        buckets = list(zip(names, accumulate(one.counts), exemplars, strict=True))
        family.add_metric(labels, buckets, one.sum / metric.scale)  # type: ignore[arg-type]  # counts are whole
    return family


def _exemplar(metric: Metric, histogram: Histogram, bucket: int) -> Exemplar | None:
    """Without a time: the log's may run ahead of the wall, and Prometheus would not have it."""
    found = histogram.exemplars.get(bucket)
    return None if found is None else Exemplar({"trace_id": found.trace}, found.value / metric.scale)
