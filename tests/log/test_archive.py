from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.log import archive as module
from engine.log.archive import DAY_MS, Archive
from engine.log.errors import LogError
from engine.log.protocol import Item, order_of, output_id

NOON = 20_000 * DAY_MS + DAY_MS // 2


def entries(count: int, payload: bytes = b'{"n":1}', begin: int = NOON) -> list[Item]:
    return [Item(f"{begin + i // 2}-{i % 2}", begin + i // 2, payload) for i in range(count)]


def files(archive: Archive) -> list[str]:
    return sorted(path.name for path in archive.folder.rglob("*") if path.is_file())


def test_what_is_written_is_read(archive: Archive) -> None:
    items = entries(2500)
    (segment,) = archive.write("log", 3, items)

    assert list(archive.scan("log", 3)) == items
    assert list(archive.scan("log", 3, items[999].id, items[2010].id)) == items[1000:2011]
    assert archive.get("log", 3, items[1234].id) == items[1234]
    assert archive.get("log", 3, f"{NOON}-7") is None
    assert archive.get("log", 2, items[0].id) is None
    assert archive.end("log", 3) == items[-1].id == segment.last
    assert segment.path.name == f"log-03-{NOON}.0-{NOON + 1249}.1.jsonl.gz"


def test_a_segment_is_gzip_and_json_lines_for_anybody(archive: Archive) -> None:
    place = f"{NOON}-4"
    items = [Item(output_id(place, i), NOON, b'{"n":%d}' % i) for i in range(3)]
    (segment,) = archive.write("journal", 0, [*items, Item(output_id(place, 3), NOON, b"\xff")])
    lines = gzip.decompress(segment.path.read_bytes()).splitlines()

    assert json.loads(lines[1]) == {"position": place, "index": 1, "stamp": NOON, "body": {"n": 1}}
    assert json.loads(lines[3]) == {"position": place, "index": 3, "stamp": NOON, "bytes": "/w=="}


def test_each_output_of_an_entry_is_found(archive: Archive) -> None:
    items = [
        Item(output_id(f"{NOON + i}-0", index), NOON + i, b'{"n":%d}' % index) for i in range(400) for index in range(3)
    ]
    list(archive.write("journal", 0, items))

    assert [archive.get("journal", 0, each.id) for each in items[:4] + items[-4:]] == items[:4] + items[-4:]
    assert [archive.get("journal", 0, each.id) for each in items[997:1003]] == items[997:1003]
    assert archive.get("journal", 0, output_id(f"{NOON + 7}-0", 3)) is None


documents = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
payloads = st.one_of(
    st.binary(max_size=40),
    documents.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")),
    st.sampled_from([b" 1", b'{"a":\n1}', b'1,"body":2', b'1}\n{"body":2', b'"\xe2\x80\xa8"', b"{}\r", b'"\\ud800"']),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(payloads, min_size=1, max_size=5))
def test_every_payload_comes_back_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, found: list[bytes]) -> None:
    archive = Archive(tmp_path_factory.mktemp("archive"))
    items = [Item(f"{NOON}-{i}", NOON, payload) for i, payload in enumerate(found)]
    list(archive.write("dead", 0, [Item(output_id(item.id, 0), *item[1:]) for item in items]))
    list(archive.write("log", 0, items))

    assert list(archive.scan("log", 0)) == items
    assert [item.payload for item in archive.scan("dead", 0)] == found


def test_a_segment_is_of_one_day(archive: Archive) -> None:
    items = entries(10, begin=NOON - DAY_MS // 2 - 2)
    segments = list(archive.write("log", 0, items))

    assert [(segment.first, segment.last) for segment in segments] == [
        (items[0].id, items[3].id),
        (items[4].id, items[9].id),
    ]
    assert list(archive.scan("log", 0)) == items


def test_a_segment_has_its_greatest_size(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1)
    items = entries(2500)
    segments = list(archive.write("log", 0, items))

    assert len(segments) == 3
    assert list(archive.scan("log", 0, items[1500].id)) == items[1501:]


def test_large_payloads_do_not_wait_for_a_thousand_others(archive: Archive) -> None:
    items = entries(4, b'"%b"' % (b"x" * (1 << 20)))
    (segment,) = archive.write("log", 0, items)

    assert segment.path.read_bytes().count(b"\x1f\x8b\x08\x04") == 4
    assert list(archive.scan("log", 0)) == items


def test_overlapping_segments_give_each_item_once(archive: Archive) -> None:
    items = entries(30)
    for part in (items[:10], items[5:15], items[:20], items[15:]):
        list(archive.write("log", 0, part))

    assert list(archive.scan("log", 0)) == items
    assert list(archive.scan("log", 0, items[7].id, items[17].id)) == items[8:18]


def test_a_segment_is_there_whole_or_not_at_all(archive: Archive) -> None:
    items = entries(2500)

    def breaks() -> Iterator[Item]:
        yield from items[:2400]
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - made above
        list(archive.write("log", 0, breaks()))
    assert files(archive) == []
    assert archive.end("log", 0) is None


def test_a_crash_before_the_renaming_leaves_nothing_to_read(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    items = entries(10)
    list(archive.write("log", 0, items[:5]))
    with monkeypatch.context() as crash:
        crash.setattr(Path, "rename", lambda *_: 1 / 0)
        crash.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(ZeroDivisionError):
            list(archive.write("log", 0, items[5:]))
    leftovers = [name for name in files(archive) if name.endswith(".part")]

    assert len(leftovers) == 1
    assert list(archive.scan("log", 0)) == items[:5]
    assert archive.clean() == 1
    assert len(files(archive)) == 1


def test_a_damaged_segment_is_named(archive: Archive) -> None:
    (segment,) = archive.write("log", 0, entries(10))
    packed = bytearray(segment.path.read_bytes())
    packed[-12] ^= 0xFF
    segment.path.write_bytes(packed)

    with pytest.raises(LogError, match="it is damaged"):
        list(archive.scan("log", 0))
    segment.path.write_bytes(b"something else, and long enough")
    with pytest.raises(LogError, match="no member begins at byte 0"):
        list(archive.scan("log", 0))


def test_old_dead_letters_are_forgotten(archive: Archive) -> None:
    old, young = entries(2), entries(2, begin=NOON + DAY_MS)
    list(archive.write("dead", 0, [*old, *young]))
    list(archive.write("journal", 0, old))

    assert archive.forget("dead", NOON + 2) == 1
    assert [order_of(item.id)[0] for item in archive.scan("dead", 0)] == [NOON + DAY_MS] * 2
    assert archive.end("journal", 0) is not None


def test_nothing_written_is_no_file(archive: Archive) -> None:
    assert list(archive.write("log", 0, [])) == []
    assert not archive.folder.exists()
    assert list(archive.scan("log", 0)) == []
