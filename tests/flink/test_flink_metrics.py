"""Flink's own metrics, from a real mini cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.flink import flink_metrics
from engine.flink.cluster import flink_options
from tests.flink.drivers import counting_plan, driver


@pytest.mark.flink
def test_flinks_own_metrics_are_served_on_this_machine_only_and_name_no_start(tmp_path: Path) -> None:
    with driver(counting_plan(tmp_path, metrics=True)) as running:
        (place,) = running.wait_for("running")["metrics"]
        running.wait_for("checkpoint")
        with urlopen(f"http://{place}/metrics", timeout=10) as answer:
            families = {each.name: each for each in text_string_to_metric_families(answer.read().decode())}
        listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=False).stdout
        running.stop()
    labels = {name for family in families.values() for sample in family.samples for name in sample.labels}

    assert families["flink_jobmanager_job_numberOfCompletedCheckpoints"].samples[0].value > 0
    assert "flink_jobmanager_job_lastCheckpointDuration" in families
    assert "flink_taskmanager_job_task_busyTimeMsPerSecond" in families
    assert "flink_taskmanager_Status_JVM_Memory_Heap_Used" in families
    assert {"task_name", "operator_name", "job_name"} <= labels
    assert not labels & {"job_id", "task_id", "task_attempt_id", "operator_id", "tm_id", "host"}
    assert f"*:{place.rpartition(':')[2]}" not in listening


def test_without_metrics_or_beside_several_processes_no_reporter_is_switched_on(tmp_path: Path) -> None:
    plans = [counting_plan(tmp_path), counting_plan(tmp_path, metrics=True, cluster="standalone")]

    assert not [name for plan in plans for name in flink_options(plan, tmp_path) if name.startswith("metrics.reporter")]


def test_a_build_of_flink_without_the_reporter_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flink_metrics, "JAR", "nowhere/*.jar")
    options = flink_options(counting_plan(tmp_path, metrics=True), tmp_path)

    assert not [name for name in options if name.startswith("metrics.reporter")]


def test_a_cluster_that_gives_no_registry_has_no_metrics_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Nothing:
        def getReporters(self) -> list[object]:  # noqa: N802 - Java's
            return []

        def getClass(self) -> Nothing:  # noqa: N802
            return self

        def getDeclaredField(self, _name: str) -> Nothing:  # noqa: N802
            return self

        def setAccessible(self, _flag: object) -> None:  # noqa: N802
            pass

        def get(self, _thing: object) -> Nothing:
            return self

    assert flink_metrics.serve(None, Nothing()) == []
    assert len(caplog.messages) == 1
