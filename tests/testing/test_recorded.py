"""A recorded run's results are played again, and what does not fit is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import Raw

from engine.core.entry import KeptEntry
from engine.testing import NotRecorded, RecordedAnswers, Simulation
from engine.testing.recorded import NothingRecorded, RecordedCall, RecordedResult
from tests.testing.folded import FoldedLog
from tests.testing.office import ROME, Approved, Booked, Trips, TripWanted, World, ask_trips, book, trip
from tests.testing.survey import damage

PARTS = ("flight done", "hotel done", "car done")


def booked(run: Simulation[TripWanted]) -> Simulation[TripWanted]:
    run.fake(ask_trips, lambda question: Trips())
    run.send(ROME)
    run.answer(Approved(), who="bo")
    return run


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedAnswers:
    log, run = FoldedLog(monkeypatch), Simulation(trip)
    run.real(book, resources={"world": World()})
    booked(run)
    return log.recorded(run)


def test_what_a_run_kept_is_recorded_without_its_progress(recorded: RecordedAnswers) -> None:
    (one,) = recorded.calls

    assert (recorded.workflow, recorded.key, one.step) == ("trip", "rome", "book")
    assert [(k.name, bytes(k.output)) for k in one.kept] == [
        ("flight", b'"flight done"'),
        ("hotel", b'"hotel done"'),
        ("car", b'"car done"'),
    ]


def test_a_recording_is_played_in_place_of_the_world(recorded: RecordedAnswers, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    recorded.write(path)
    run, world = Simulation(trip), World()
    run.real(book, resources={"world": world})
    run.play(path)
    booked(run)

    assert run.state() == Booked(wanted=ROME, parts=PARTS, by="bo")
    assert world.done == []
    assert [r.inner for r in run.records if r.cause == "kept" and r.inner] == ["flight", "hotel", "car"]


def test_an_engine_may_die_while_a_recording_is_played(recorded: RecordedAnswers) -> None:
    run = Simulation(trip)
    run.real(book, resources={"world": World()})
    run.play(recorded)
    run.crash_after(2, lost=True)
    booked(run)

    assert run.finished


def test_a_name_that_is_not_recorded_is_told(recorded: RecordedAnswers) -> None:
    (one,) = recorded.calls
    short = RecordedAnswers("trip", "rome", [RecordedCall("book", one.kept[:2])])
    run = Simulation(trip)
    run.real(book, resources={"world": World()})
    run.play(short)
    with pytest.raises(NotRecorded, match="book comes to 'car', which is not recorded; recorded are: flight, hotel"):
        booked(run)


def test_a_result_that_nobody_wants_is_told(recorded: RecordedAnswers) -> None:
    (one,) = recorded.calls
    more = [*one.kept, RecordedResult("train", Raw(b'"train done"'))]
    run = Simulation(trip)
    run.real(book, resources={"world": World()})
    run.play(RecordedAnswers("trip", "rome", [RecordedCall("book", more)]))
    with pytest.raises(NotRecorded, match="book ended without 'train', which its recording has"):
        booked(run)


def test_a_call_too_many_is_told(recorded: RecordedAnswers) -> None:
    run = Simulation(trip)
    run.real(book, resources={"world": World()})
    run.play(RecordedAnswers("trip", "rome", []))
    run.play(recorded)
    booked(run)
    other = run.other(trip, "oslo")
    other.send(TripWanted(trip="oslo", customer="ann"))
    with pytest.raises(NotRecorded, match="book is called 2 times, recorded are 1"):
        other.answer(Approved())


def test_a_recording_of_another_workflow_is_refused(recorded: RecordedAnswers) -> None:
    with pytest.raises(NothingRecorded, match="a step 'book', which no workflow here has"):
        Simulation(damage).play(recorded)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"workflow": "trip"}), encoding="utf-8")
    with pytest.raises(NothingRecorded, match=r"answers.json is no recording: .*key"):
        Simulation(trip).play(path)


def test_a_run_that_kept_nothing_is_no_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    log, run = FoldedLog(monkeypatch), Simulation(trip)
    run.fake(book, lambda wish: ["all"])
    booked(run)
    with pytest.raises(NothingRecorded, match="no call of trip/rome has kept anything"):
        log.recorded(run)


def test_a_late_result_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the fold has kept counts, not what a second process put on the log."""
    log, run = FoldedLog(monkeypatch), Simulation(trip)
    run.real(book, resources={"world": World()})
    run.fake(ask_trips, lambda question: Trips())
    run.send(ROME.model_copy(update={"asks": True}))
    run.answer(Approved())
    last = run.records[-1]
    run._world.take(KeptEntry("trip", "rome", last.run, last.calls[0].id, 1, 0, "zombie", Raw(b'"late"')))
    run.answer("yes")
    found = log.recorded(run)

    assert [k.name for k in found.calls[0].kept] == ["flight", "hotel", "car"]
