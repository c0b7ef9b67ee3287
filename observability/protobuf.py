"""Reading protobuf without its library: the few fields that matter of an answer, or of a span that was refused.

Source: protobuf.dev, "Encoding": a message is a row of (field number and wire type, value).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_LONGEST_VARINT: Final = 10


def fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in order: a number for a varint, else bytes. What cannot be read ends it."""
    place = 0
    while place < len(raw):
        key, place = _varint(raw, place)
        value: int | bytes
        if key & 7 == _VARINT:
            value, place = _varint(raw, place)
        elif (length := {_FIXED64: 8, _FIXED32: 4}.get(key & 7)) is not None:
            value, place = raw[place : place + length], place + length
        elif key & 7 == _BYTES:
            length, place = _varint(raw, place)
            value, place = raw[place : place + length], place + length
        else:
            return
        yield key >> 3, value


def message(raw: bytes, number: int) -> bytes:
    """The last field of this number that holds bytes; empty: there is none."""
    return next((value for each, value in _backwards(raw) if each == number and isinstance(value, bytes)), b"")


def text(raw: bytes, number: int) -> str:
    """The same as text."""
    return message(raw, number).decode(errors="replace")


def integer(raw: bytes, number: int) -> int:
    """The last varint of this number; 0: there is none."""
    return next((value for each, value in _backwards(raw) if each == number and isinstance(value, int)), 0)


def _backwards(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """A field that comes twice counts as it came last."""
    return reversed(list(fields(raw)))


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    """A number and the place behind it; at the end of what there is, what was read so far."""
    value = 0
    for shift, byte in enumerate(raw[place : place + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:  # noqa: PLR2004 (the highest bit says that more comes)
            return value, place + shift + 1
    return value, len(raw)
