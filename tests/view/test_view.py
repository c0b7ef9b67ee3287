"""What is projected is found, once, whatever is cut off and whoever projects."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.view.database import ViewDamaged
from engine.view.projector import Projector
from engine.view.view import Count, Filter, View
from tests.view.journal import HALT, Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "view.sqlite"


@pytest.fixture
def journal() -> Journal:
    return Journal()


def projected(path: Path, journal: Journal) -> View:
    projector = Projector(path, "log")
    projector.project(journal.items)
    projector.close()
    return View(path)


def keys(view: View, wanted: Filter | None = None, limit: int = 100) -> list[str]:
    return [row.key for row in view.runs(wanted or Filter(), limit=limit)]


def test_a_batch_leaves_each_run_as_its_last_record_says(path: Path, journal: Journal) -> None:
    journal.add("a", "Gathering", status="running", fields={"region": "north"})
    journal.add("b", "Gathering", partition=3, status="running", wakes=9)
    last = journal.add("a", "Review", status="waiting", wakes=7_000, fields={"region": "south"})
    view = projected(path, journal)

    row, other = view.of_key("a")[0], view.of_key("b")[0]

    assert (row.state, row.status, row.wakes_at, row.last, row.seq) == ("Review", "waiting", 7_000, last.id, 2)
    assert (row.started, row.since, row.fields) == (1_010, 1_030, {"region": "south"})
    assert (other.partition, other.wakes_at) == (3, 9)


def test_one_batch_and_many_batches_give_the_same_view(tmp_path: Path, journal: Journal) -> None:
    for key in "abcab":
        journal.add(key, "One", status="running", fields={"letter": key})
        journal.add(key, "Two", fields={"letter": key, "more": "x"})
    journal.add("a", "Two", status="finished", data="")
    journal.add("a", "Two", status="finished", ignored="the run is finished")
    single, many = tmp_path / "single", tmp_path / "many"
    whole = projected(single, journal)
    for item in journal.items[0]:
        projector = Projector(many, "log")
        projector.project({0: [item]})
        projector.close()

    assert View(many).runs() == whole.runs()
    assert View(many).counts() == whole.counts()
    assert View(many).runs(Filter(where={"more": "x"})) == whole.runs(Filter(where={"more": "x"}))


def test_records_that_were_projected_before_are_dropped(path: Path, journal: Journal) -> None:
    journal.add("a", "One")
    projector = Projector(path, "log")

    assert projector.project(journal.items) == 1

    journal.add("b", "One")

    assert projector.project(journal.items) == 1
    assert Projector(path, "log").project(journal.items) == 0
    assert View(path).counts() == [Count("claims", "One", "waiting", 2)]


def test_two_projectors_on_one_file_project_each_record_once(path: Path, journal: Journal) -> None:
    first, second = Projector(path, "log"), Projector(path, "log")
    for key in "abcd":
        journal.add(key, "One")

    assert first.project({0: journal.items[0][:2]}) == 2
    assert second.project(journal.items) == 2
    assert first.project(journal.items) == 0
    assert keys(View(path)) == ["d", "c", "b", "a"]


def test_a_batch_that_fails_was_never_there(path: Path, journal: Journal) -> None:
    journal.add("a", "One")
    bad = journal.items[0][0]._replace(id="2000-0", payload=b'{"workflow":"x","key":"y","run":"z","version":"no"}')
    projector = Projector(path, "log")

    with pytest.raises(ValueError, match="version"):
        projector.project({0: [*journal.items[0], bad]})

    assert projector.cursors() == {}
    assert View(path).runs() == []


def test_counts_follow_the_runs(path: Path, journal: Journal) -> None:
    for key in "abc":
        journal.add(key, "One")
    view = projected(path, journal)
    journal.add("a", "Two", status="halted", halted=HALT)
    projected(path, journal)

    assert view.counts() == [Count("claims", "One", "waiting", 2), Count("claims", "Two", "halted", 1)]
    assert view.runs(Filter(status="halted"))[0].error == HALT.error


def test_filters_go_together(path: Path, journal: Journal) -> None:
    for number in range(40):
        state = "One" if number % 2 else "Two"
        fields = {"region": f"r{number % 4}", "all": "yes"}
        journal.add(f"k{number}", state, workflow="odd" if number % 8 == 1 else "even", fields=fields)
    view = projected(path, journal)

    assert len(keys(view, Filter(workflow="odd"))) == 5
    assert len(keys(view, Filter(state="One", where={"region": "r1"}))) == 10
    assert keys(view, Filter(state="Two", where={"region": "r1"})) == []
    assert len(keys(view, Filter(workflow="odd", where={"region": "r1", "all": "yes"}))) == 5
    assert keys(view, Filter(status="halted")) == []


@pytest.mark.parametrize("few", [0, 20_000])
def test_the_field_leads_or_the_standing_with_one_answer(
    path: Path, journal: Journal, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.view.view.FEW", few)
    for number in range(30):
        journal.add(f"k{number}", "One" if number % 2 else "Two", fields={"a": str(number % 3), "b": str(number % 5)})
    view = projected(path, journal)
    wanted = Filter(state="One", where={"a": "0", "b": "1"})

    assert keys(view, wanted) == ["k21"]
    assert keys(view, Filter(where={"a": "0"}), limit=3) == ["k27", "k24", "k21"]
    after = ("claims", "k21", "")
    assert [row.key for row in view.runs(Filter(where={"a": "0"}), limit=2, after=after)] == ["k18", "k15"]


def test_pages_hold_every_run_once_while_runs_move(path: Path, journal: Journal) -> None:
    for number in range(25):
        journal.add(f"k{number}", "One", run=f"{number:016x}")
    for number in range(5):
        journal.add("k0", "One", run=f"{100 + number:016x}")
    view = projected(path, journal)
    pages = view.every(page=7)
    seen = [next(pages).run_id for _ in range(7)]
    journal.add("k3", "Two", run=f"{3:016x}")
    projected(path, journal)
    seen += [row.run_id for row in pages]

    assert len(seen) == 30
    assert len(set(seen)) == 30


def test_a_key_that_begins_again_is_a_run_of_its_own(path: Path, journal: Journal) -> None:
    journal.add("a", "Done", run="1" * 16, status="finished")
    journal.add("a", "One", run="2" * 16)
    view = projected(path, journal)

    assert [row.run_id for row in view.of_key("a")] == ["2" * 16]
    assert [row.run_id for row in view.all_of_key("a")] == ["2" * 16, "1" * 16]


def test_a_key_of_two_workflows_is_found_in_both(path: Path, journal: Journal) -> None:
    journal.add("a", "One", workflow="claims", run="1" * 16)
    journal.add("a", "One", workflow="orders", run="2" * 16)
    view = projected(path, journal)

    assert {row.workflow for row in view.of_key("a")} == {"claims", "orders"}
    assert [row.workflow for row in view.of_key("a", "claims")] == ["claims"]


def test_what_is_ignored_keeps_the_end_and_the_data_of_a_run(path: Path, journal: Journal) -> None:
    journal.add("a", "One")
    done = journal.add("a", "Done", status="finished", fields={"who": "ann"})
    journal.add("a", "Done", status="finished", ignored="the run is finished", since=0)
    row = projected(path, journal).of_key("a")[0]

    assert (row.ended, row.since, row.data, row.fields) == (1_020, 1_020, done.id, {"who": "ann"})


def test_a_run_that_cannot_be_read_is_its_keys_newest(path: Path, journal: Journal) -> None:
    for key in "ab":
        journal.add(key, "One", run=f"{ord(key):016x}")
        projected(path, journal)
    for key in "ab":
        journal.add(key, "", run="none", status="halted", halted=HALT, data="")
    view = projected(path, journal)

    assert view.counts() == [Count("claims", "One", "halted", 2)]
    assert {row.run_id for row in view.runs()} == {f"{ord(key):016x}" for key in "ab"}


def test_foreign_names_cannot_be_taken_for_the_run_id(path: Path, journal: Journal) -> None:
    key = 'a","run":"' + "f" * 16
    journal.add(key, "One", run="1" * 16)
    journal.add(key, "Two", run="1" * 16)

    assert [row.state for row in projected(path, journal).of_key(key)] == ["Two"]


def test_a_view_of_another_log_is_begun_anew(path: Path, journal: Journal) -> None:
    journal.add("a", "One")
    view = projected(path, journal)
    other = Projector(path, "other log")

    assert other.cursors() == {}
    assert view.runs() == []
    assert view.log_id() == "other log"


def test_the_view_says_of_when_it_is(path: Path, journal: Journal) -> None:
    journal.add("a", "One")
    journal.add("b", "One", partition=1)

    assert projected(path, journal).as_of() == 1_020


def test_a_view_that_is_missing_is_empty(path: Path) -> None:
    path.parent.mkdir()

    assert View(path).log_id() == ""


def test_runs_stand_in_the_order_in_which_they_began_whatever_was_projected_first(path: Path, journal: Journal) -> None:
    for number in range(12):
        journal.add(f"k{number}", "One", partition=number % 3, run=f"{number:016x}")
    projector = Projector(path, "log")
    for partition in (2, 0, 1):
        projector.project({partition: journal.items[partition]})
    projector.close()

    assert keys(View(path)) == [f"k{number}" for number in range(11, -1, -1)]


def test_runs_that_would_get_one_number_get_two(path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.view.projector.crc32", lambda _: 7)
    monkeypatch.setattr("engine.view.projector.LATEST", 5)
    for number in range(6):
        journal.add(f"k{number}", "One", run=f"{number:016x}")
    projector = Projector(path, "log")
    projector.project({0: journal.items[0][:3]})
    projector.project(journal.items)
    projector.close()

    assert set(keys(View(path))) == {f"k{number}" for number in range(6)}


def test_a_file_that_is_no_view_is_made_anew(path: Path, journal: Journal) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    journal.add("a", "One")

    assert View(path).log_id() == ""
    assert keys(projected(path, journal)) == ["a"]


def test_a_damaged_view_says_what_to_do(path: Path, journal: Journal) -> None:
    for number in range(500):
        journal.add(f"k{number}", "One")
    projected(path, journal).close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 200_000)
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)

    with pytest.raises(ViewDamaged, match="delete it"):
        View(path).runs()
