"""What came in stands in the records of a workflow that wants it, without what is marked `Secret`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Raw

from engine import DefinitionError, Event, Searchable, Secret, Workflow
from engine.core.content import MAX_CONTENT
from engine.core.entry import Asker, EventEntry, KeptEntry, QuestionEntry
from engine.core.ids import RunId
from engine.core.record import Record, write_record
from engine.core.transition import StartCall
from tests.core import vault as model
from tests.core.folding import Run
from tests.core.vault import Gone, Noted, Opened, Owner, quiet, vault

OWNER = Owner(name="Ann", pin="471147")
OPENED = Opened(id="k", owner=OWNER, note="x")


def opened(workflow: Workflow[Any] = vault, note: str = "x") -> Run:
    run = Run(workflow)
    run.send(OPENED.model_copy(update={"note": note}))
    return run


def content(record: Record) -> Any:
    return msgspec.json.decode(record.content) if record.content else None


def kept(call: StartCall, value: Any, **more: Any) -> KeptEntry:
    place = "vault", "k", call.run, call.id, call.attempt
    return KeptEntry(*place, 0, "part", Raw(msgspec.json.encode(value)), **more)


def test_records_tell_what_came_in() -> None:
    run = opened()
    lock, code = run.made(StartCall)
    run.send(Noted(text="hush", number=7))
    run.fold(kept(lock, {"said": "the pin is 471147", "pin": "other", "list": [{"pin": None}]}))
    run.result(lock, OWNER.model_dump())
    run.result(code, "secret code")

    assert [content(r) for r in run.records] == [
        {"id": "k", "owner": {"name": "Ann", "pin": "[secret]"}, "note": "x"},
        {"text": "[secret]", "number": 7},
        {"said": "the pin is [secret]", "pin": "[secret]", "list": [{"pin": None}]},
        {"name": "Ann", "pin": "[secret]"},
        "[secret]",
    ]
    told = b"".join(bytes(r.content) for r in run.records)
    assert b"471147" not in told
    assert b"hush" not in told


def test_a_workflow_that_does_not_ask_for_it_tells_nothing() -> None:
    run = opened(quiet)
    run.send(Noted(text="hush"))

    assert [bytes(r.content) for r in run.records] == [b"", b""]
    assert b"content" not in write_record(run.record)
    assert quiet.code != vault.code


@pytest.mark.parametrize("workflow", [vault, quiet])
def test_what_a_failure_says_is_told_without_secrets(workflow: Workflow[Any]) -> None:
    run = opened(workflow)
    run.fail(run.made(StartCall)[0], "ValueError", "no lock takes 471147")

    assert run.record.error == "ValueError: no lock takes [secret]"


def test_what_tells_nothing_new_has_no_content() -> None:
    run = opened()
    (lock, _) = run.made(StartCall)
    run.fold(kept(lock, None, kind="progress", note="half"))
    run.send(Noted(text="hush"), id="e1")
    run.fail(lock)

    assert [content(r) for r in run.records[1:]] == [None, None, None]
    assert run.records[2].ignored.startswith("a repeat")


def test_content_that_is_long_is_cut() -> None:
    run = opened(note='ä"' * MAX_CONTENT)

    assert len(run.record.content) <= MAX_CONTENT
    assert content(run.record).startswith('{"id":"k","owner":{"name":"Ann","pin":"[secret]"},"note":"ä')
    assert content(run.record).endswith(" bytes]")


def test_what_cannot_be_looked_into_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("engine.core.content.hide", fail)

    assert content(opened().record) == "[secret]"


def test_nothing_is_told_of_what_is_not_known() -> None:
    before = opened().snapshot
    known = EventEntry("vault", "k", "i", "s", "Noted", Raw(b'{"text":"hush","number":1}'))
    unknown = EventEntry("vault", "k", "i", "s", "Unheard", Raw(b'{"text":"hush"}'))
    asked = QuestionEntry("vault", "k", "Unheard", Raw(b"{}"), Asker("w", "k", RunId("r")))

    assert bytes(vault.contents.of(known, before)) == b'{"text":"[secret]","number":1}'
    assert bytes(vault.contents.of(unknown, before)) == b""
    assert bytes(vault.contents.of(asked, before)) == b""


def test_a_field_is_not_both_searchable_and_secret() -> None:
    with pytest.raises(DefinitionError, match=r"Both\.number is Searchable and Secret") as caught:
        Workflow("both", start=begin_both, states=[Both, Gone])

    text = str(caught.value)
    assert "Both.owner.pin is Searchable and Secret" in text
    assert "Both.wrapped.pin is Searchable and Secret" in text
    assert "Both.text" not in text
    assert "Begun: key='id' is Secret" in text


class Plain(model.Owner, frozen=True):
    pin: Annotated[str, Searchable]


class Marked(model.Owner, frozen=True):
    pin: Annotated[str, Searchable, Secret]


class Both(model.Closed):
    number: Annotated[str, Searchable, Secret]
    owner: Marked
    wrapped: Annotated[Plain, Secret]
    text: Annotated[str, Searchable] = ""


class Begun(Event, key="id"):
    id: Annotated[str, Secret]


def begin_both(event: Begun) -> Both:
    raise NotImplementedError
