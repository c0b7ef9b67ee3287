from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.partition import flink_key, java_hash, key_group, partition_of, reader_key, split_flink_key


@pytest.mark.parametrize(
    ("text", "hashed"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("polygenelubricants", 0x80000000),
        ("\U0001f600", 31 * 0xD83D + 0xDE00),
        ("ÿ", 255),
        ("Ā", 256),
    ],
)
def test_the_hash_is_javas_over_utf_16(text: str, hashed: int) -> None:
    assert java_hash(text) == hashed


@given(st.text(), st.text(), st.integers(0, 15))
def test_every_key_has_a_partition(workflow: str, key: str, exponent: int) -> None:
    assert 0 <= partition_of(workflow, key, 1 << exponent) < 1 << exponent


@given(st.text(), st.integers(1, 8))
def test_halving_the_partitions_joins_them_in_pairs(key: str, exponent: int) -> None:
    assert partition_of("claim", key, 1 << exponent) % (1 << exponent - 1) == partition_of(
        "claim", key, 1 << exponent - 1
    )


def test_keys_spread_evenly() -> None:
    counts = [0] * 16
    for number in range(16_000):
        counts[partition_of("claim", f"CLAIM-{number:06d}", 16)] += 1

    assert min(counts) > 850
    assert max(counts) < 1150


@pytest.mark.parametrize("partitions", [1, 2, 16, 128])
def test_a_reader_falls_into_its_own_partition(partitions: int) -> None:
    keys = [reader_key(partition, partitions) for partition in range(partitions)]

    assert [key_group(key, partitions) for key in keys] == list(range(partitions))


def test_workflow_and_key_come_back_whole() -> None:
    assert split_flink_key(flink_key("claim", "47\x1f11")) == ("claim", "47\x1f11")
