"""Which partition of the log a run belongs to.

A partition of the log *is* a key group of Flink: whoever appends an entry computes the key group that Flink will
compute for the run's key, so that a run's state, its timers and its place in the log always live in the same subtask. A
number that differs from Flink's is not noticed by every state backend, so `tests/flink` compares this file with Flink's
own class.

How Flink comes to the number (`KeyGroupRangeAssignment`, `MathUtils.murmurHash`, `Row.hashCode`, Flink 2.3):

1. PyFlink wraps a key that is a string into `Row.of(key)`. The hash of a row is `31 * (31 * kind + fields) + names`
   over its kind (0), its one field (31 + hash of the string) and its names (none: 0), which comes to `hash + 31`, and
   once more `+ 31`: `hash + 62`.
2. A string's hash is Java's: over UTF-16 code units, so a character beyond the basic plane counts as two.
3. The hash is scattered by one round of murmur 3 and reduced modulo the maximum parallelism, which is the number of
   partitions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

SEPARATOR: Final = "\x1f"
"""Between workflow and key in Flink's key; the ASCII unit separator, which no name of a workflow may hold."""

_READER: Final = "\x01reader"
"""Readers' keys begin with a character that no workflow's name may begin with, so no run can take one."""

_MASK: Final = 0xFFFFFFFF
_ROW: Final = 62
_HALF: Final = 1 << 31


def flink_key(workflow: str, key: str) -> str:
    """Flink's key of a run: the name of its workflow and its own key."""
    return f"{workflow}{SEPARATOR}{key}"


def split_flink_key(flink_key: str) -> tuple[str, str]:
    """Workflow and key of a run, from Flink's key; the key may itself hold the separator."""
    workflow, _, key = flink_key.partition(SEPARATOR)
    return workflow, key


def is_reader_key(flink_key: str) -> bool:
    """Whether the key is a partition's reader, not a run."""
    return flink_key.startswith(_READER)


@lru_cache(maxsize=1 << 16)
def partition_of(workflow: str, key: str, partitions: int) -> int:
    """The partition of a run's entries, from 0 to `partitions` - 1.

    A run has some entries one soon after the other, so most calls are answered by the cache.
    """
    return key_group(flink_key(workflow, key), partitions)


@lru_cache(maxsize=1 << 10)
def reader_key(partition: int, partitions: int) -> str:
    """The key under which the reader of a partition keeps its position.

    It is the first of its kind that falls into that very partition.
    """
    attempt = 0
    while key_group(key := f"{_READER}-{partition}-{attempt}", partitions) != partition:
        attempt += 1
    return key


def key_group(key: str, groups: int) -> int:
    """Flink's key group of a PyFlink key that is a string, out of `groups` (Flink's maximum parallelism)."""
    return _scatter(java_hash(key) + _ROW) % groups


def java_hash(text: str) -> int:
    """Java's `String.hashCode` as an unsigned number of 32 bits."""
    # Horner's rule in one growing number would be quadratic; masking each step keeps it in one machine word. Encoding
    # is the quickest way to the code units of both kinds of text.
    total = 0
    units = (
        text.encode("latin-1") if text.isascii() else memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    )
    for unit in units:
        total = (31 * total + unit) & _MASK
    return total


def _scatter(code: int) -> int:
    """`MathUtils.murmurHash`: one round of murmur 3 over a number of 32 bits, made non-negative."""
    code = (code * 0xCC9E2D51) & _MASK
    code = ((code << 15) | (code >> 17)) & _MASK
    code = (code * 0x1B873593) & _MASK
    code = ((code << 13) | (code >> 19)) & _MASK
    code = (code * 5 + 0xE6546B64) & _MASK
    code ^= 4
    code ^= code >> 16
    code = (code * 0x85EBCA6B) & _MASK
    code ^= code >> 13
    code = (code * 0xC2B2AE35) & _MASK
    code ^= code >> 16
    if code < _HALF:
        return code
    return 0 if code == _HALF else (1 << 32) - code
