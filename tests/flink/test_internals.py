"""PyFlink's internals as engine.flink.internals takes them to be, and Flink's key groups as engine.core computes
them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyflink import version

from engine.core.partition import flink_key, is_reader_key, java_hash, key_group, reader_key, split_flink_key
from engine.flink import internals
from engine.flink.cluster import Cluster, make_cluster
from tests.flink import probe
from tests.flink.drivers import counting_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.flink

any_text = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    plan = counting_plan(tmp_path_factory.mktemp("internals"), managed_memory="128mb")
    with make_cluster(plan) as running:
        yield running


def assigned(cluster: Cluster, key: Any, groups: int) -> int:
    assignment = cluster.java.org.apache.flink.runtime.state.KeyGroupRangeAssignment
    return int(assignment.assignToKeyGroup(key, groups))


def row_of(cluster: Cluster, key: str) -> Any:
    """The key as PyFlink hands it to Flink: a row of one field (`KeyByKeySelector`, `PickledKeySelector`)."""
    return cluster.java.org.apache.flink.types.Row.of(_array(cluster, key))


def _array(cluster: Cluster, key: str) -> Any:
    from pyflink.java_gateway import get_gateway  # noqa: PLC0415

    array = get_gateway().new_array(cluster.java.Object, 1)
    array[0] = key
    return array


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=any_text, exponent=st.integers(0, 12))
def test_the_partition_of_a_key_is_flinks_own_key_group(cluster: Cluster, key: str, exponent: int) -> None:
    assert key_group(key, 1 << exponent) == assigned(cluster, row_of(cluster, key), 1 << exponent)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=any_text)
def test_the_hash_of_a_key_is_javas(cluster: Cluster, key: str) -> None:
    hashed = cluster.java.java.util.Objects.hashCode(key)

    assert java_hash(key) == hashed & 0xFFFFFFFF


def test_characters_beyond_the_basic_plane_count_as_two(cluster: Cluster) -> None:
    for key in ("\U0001f600", "a\U0001f600b", "\U0010ffff" * 9, "\ue000\U00020000", "\x00", "ÿ", "Ā"):
        assert key_group(key, 128) == assigned(cluster, row_of(cluster, key), 128)


def test_readers_and_runs_fall_into_the_partitions_of_their_keys(cluster: Cluster) -> None:
    for partition in range(16):
        key = reader_key(partition, 16)
        assert is_reader_key(key)
        assert assigned(cluster, row_of(cluster, key), 16) == partition
    run = flink_key("claim", "47\x1f11")
    assert split_flink_key(run) == ("claim", "47\x1f11")
    assert not is_reader_key(run)


@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
def test_keyed_state_works_as_bytes_under_any_key(cluster: Cluster, tmp_path: Path, backend: str) -> None:
    said = probed(cluster, tmp_path, backend)

    assert said["first"] is None
    assert said["values"] == {"a": b"\x00\xff", "\U0001f600": b"", "b": b"x" * 300_000}
    assert said["cleared"] is None
    assert said["walked"] == sorted(flink_key("w", str(number)) for number in range(1000))
    assert said["walked while changing"] == 1000
    assert said["walked in part"] == 3
    assert said["queue"] == [b"%d" % number for number in range(300)]
    assert said["sizes"] == [(0, 0), (300, 790), (298, 788), (0, 0)]
    assert said["popped"] == [b"0", b"1"]
    assert said["other key's queue"] == []
    assert said["timers"] == ["early", "late"]
    assert said["home"] == "probe"


def probed(cluster: Cluster, folder: Path, backend: str) -> dict[str, Any]:
    """Run tests/flink/probe.py under a state backend; gives what it saw."""
    cluster.options["state.backend.type"] = backend
    environment = cluster.environment()
    probe.build(environment, folder)
    job = str(environment.execute_async(f"probe {backend}").get_job_id())
    until = time.monotonic() + 180
    while not (folder / "said").exists():
        assert cluster.rest.status(job) not in {"FAILED", "CANCELED"}, cluster.rest.failure(job)
        assert time.monotonic() < until
        time.sleep(0.1)
    cluster.rest.cancel(job)
    return probe.said(folder)


def test_another_version_of_pyflink_is_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "__version__", "2.4.0")
    with pytest.raises(
        internals.UnknownFlink, match=r"knows PyFlink 2\.3\.0 in thread mode, and found PyFlink 2\.4\.0"
    ):
        internals.check_version()
