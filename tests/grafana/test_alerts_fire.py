"""Each alert is seen to fire over a real fault: a real engine, a real Prometheus that scrapes it, a real Jaeger.

The rules are those that are shipped, with all windows and lengths made shorter alike, so that a night takes minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine import Event
from engine.client import Client
from engine.log.server import EmbeddedRedis
from engine.testing.providers import Answer, Provider, Tokens
from grafana import fill, queries, shipped
from grafana.alerts import alerts, rules
from grafana.picture import Machine, edges, nodes
from observability.servers.jaeger import Jaeger
from observability.servers.ports import free_ports
from observability.servers.prometheus import Prometheus
from tests.grafana.night import CALL, Begun, Broken, Poked, Priced, application

pytestmark = [pytest.mark.flink, pytest.mark.redis]

ROOT = Path(__file__).parents[2]
SCALE = 1 / 25
"""A minute is 2.4 seconds."""
OLDEST = timedelta(minutes=10)
"""24 seconds: what a run of this night may be in a state."""
PATIENCE = 120.0
ELSEWHERE = {"LongwatchSpansRefused"}
"""No fault here brings them about (Jaeger refuses no span of ours): `test_rules.py` has their cases."""


class Night:
    """An engine with its Prometheus, and what is done to it."""

    def __init__(self, data: Path, prometheus: Prometheus, engine: subprocess.Popen[str]) -> None:
        self.data, self.prometheus, self.engine = data, prometheus, engine
        self.seen: dict[str, str] = {}
        """What each alert fired over."""

    def send(self, *events: Event) -> None:
        async def send() -> None:
            async with Client(application, data=self.data) as client:
                await client.send(*events)

        asyncio.run(send())

    def pid(self, name: str) -> int:
        return int(json.loads((self.data / "engine.json").read_text(encoding="utf-8"))["pids"][name])

    def firing(self) -> set[str]:
        return {rule["name"] for rule in self.prometheus.rules() if rule["state"] == "firing"}

    def until(self, what: str, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < until, f"not seen: {what}; {self.state()}"
            assert self.engine.poll() is None or what.endswith("EngineDown"), self.state()
            time.sleep(0.25)

    def until_fires(self, alert: str, fault: str) -> None:
        """Wait for an alert that did not fire before its fault."""
        self.until(alert, lambda: alert in self.firing())
        self.seen[alert] = fault

    def until_over(self, alert: str) -> None:
        self.until(f"the end of {alert}", lambda: alert not in self.firing())

    def state(self) -> dict[str, Any]:
        names = ("longwatch_engine_up", "longwatch_log_lag_seconds", "longwatch_checkpoint_age_seconds", "up")
        found = {name: self.prometheus.value(name) for name in names}
        last = (self.data / "logs" / "engine.log").read_text(encoding="utf-8")[-1_000:]
        return {"firing": sorted(self.firing()), **found, "log": last}


@contextmanager
def engine(data: Path, otlp: str, provider: Provider) -> Iterator[subprocess.Popen[str]]:
    """`longwatch run`, as anybody would. At the end it is killed, and its Redis, which outlives it on purpose."""
    (port,) = free_ports((0,))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LONGWATCH_", "OTEL_"))}
    ours = {
        "LONGWATCH_EARLY_HOLD": "0s",
        "LONGWATCH_PARTITIONS": "4",
        "LONGWATCH_MODEL_VALUER_URL": provider.openai_url,
        "OPENAI_API_KEY": "none",
    }
    words = [
        "run",
        "--app",
        "tests.grafana.night:application",
        "--data",
        str(data),
        "--otlp",
        otlp,
        "--metrics",
        str(port),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", *words, "--checkpoint-interval", "500ms", "--backend", "heap", "--quiet"],
        cwd=ROOT,
        env={**kept, **ours},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)
        EmbeddedRedis(data, "always").stop()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[tuple[Night, Jaeger]]:
    rule_file = tmp_path / "alerts.yaml"
    ids = shipped.panels(shipped.boards())
    rule_file.write_text(rules(alerts(scale=SCALE, oldest=OLDEST), ids), encoding="utf-8")
    data = tmp_path / "data"
    with (
        Provider(default=Answer(json={"score": 1}, tokens=Tokens(CALL - 50, 50))) as provider,
        Jaeger(tmp_path) as jaeger,
        Prometheus(tmp_path, target_files=[data / "targets.json"], rules=[rule_file], interval="1s") as prometheus,
        engine(data, jaeger.otlp(), provider) as process,
    ):
        yield Night(data, prometheus, process), jaeger


def shown(it: Night) -> None:
    """Every panel has its figures, the picture its arrows, and exemplars lead to traces."""
    prometheus = it.prometheus
    it.until("cost is known", lambda: prometheus.value("sum(longwatch_llm_cost_euros_total)") > 0)
    found = {each: prometheus.query(fill(each.expr)) for each in queries()}
    machines = [Machine("night", ["Ticking", "Failing", "Over"], [("Failing", "Over")])]
    exemplars = prometheus.exemplars("longwatch_step_duration_seconds_bucket", time.time() - 600, time.time())

    assert [(each.panel, each.expr) for each, samples in found.items() if not samples and not each.may_be_empty] == []
    assert [rule["name"] for rule in prometheus.rules() if rule["health"] != "ok"] == []
    assert len(prometheus.query(fill(nodes(machines), workflow="night"))) == 3
    assert len(prometheus.query(fill(edges(machines), workflow="night"))) == 1
    assert any(each["labels"].get("trace_id") for series in exemplars for each in series["exemplars"])


def test_each_alert_fires_over_a_real_fault(night: tuple[Night, Jaeger]) -> None:
    it, jaeger = night
    it.until("the engine is up", lambda: it.prometheus.value("longwatch_engine_up") == 1)
    it.send(*(Begun(id=f"tick-{number}") for number in range(4)))
    it.until("timers fire", lambda: it.prometheus.value("sum(longwatch_timers_fired_total)") > 4)
    it.until_over("LongwatchEngineDown")
    assert it.firing() == set()

    it.send(Broken(id="tick-0"))
    it.until_fires("LongwatchRunsHalted", "a handler raised")

    it.send(Poked(id="nobody"))
    it.until_fires("LongwatchDeadLetters", "an event for a run that never began")

    it.send(*(Begun(id=f"fail-{number}", how="failing") for number in range(2)))
    it.until_fires("LongwatchProviderFailing", "each attempt of a step fails")

    it.send(Priced(id="one"))
    it.until_fires("LongwatchBudgetNearlySpent", "one answer took 95 % of a purse")

    it.until_fires("LongwatchOldestRun", "runs stay in a state for longer than was expected")

    shown(it)

    jaeger.stop()
    it.until_fires("LongwatchExporterBehind", "the collector was ended")
    jaeger.start()
    it.until_over("LongwatchExporterBehind")

    folder, aside = it.data / "checkpoints", it.data / "aside"
    folder.rename(aside)
    folder.touch()
    it.until_fires("LongwatchCheckpointFailing", "a file stands where checkpoints are written")
    folder.unlink()
    aside.rename(folder)
    it.until_over("LongwatchCheckpointFailing")

    jvm = it.pid("jvm") or it.pid("driver")
    os.kill(jvm, signal.SIGSTOP)
    it.send(Poked(id="tick-1"))
    it.until_fires("LongwatchEngineNotMoving", "the JVM was stopped by SIGSTOP")
    it.until_fires("LongwatchLagGrowing", "the same: what is sent is not folded")
    os.kill(jvm, signal.SIGCONT)
    it.until_fires("LongwatchTimersLate", "timers that came due while the JVM stood fire after it")
    it.until_over("LongwatchEngineNotMoving")

    it.engine.kill()
    it.until_fires("LongwatchEngineDown", "the supervisor was killed, and all with it")

    assert {*it.seen, *ELSEWHERE} == {alert.name for alert in alerts()}
