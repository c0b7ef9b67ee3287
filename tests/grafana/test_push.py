"""Pushing boards: what is saved, what is left alone, and what is said when Grafana does not like it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from grafana.pages import FLEET, WORKFLOW
from grafana.picture import Machine
from grafana.push import Pushed, PushFailed, Target, push
from grafana.shipped import BOARDS, boards
from tests.grafana.grafana_server import TOKEN, Grafana, serve

MACHINE = Machine("claim", ["Open", "Closed"], [("Open", "Closed")])


def pushed(
    server: Grafana, board: Sequence[dict[str, Any]] | None = None, *, force: bool = False, dry: bool = False
) -> dict[str, Pushed]:
    found = push(Target(server.url, TOKEN), boards() if board is None else board, "Longwatch", force=force, dry=dry)
    return {each.uid: each for each in found}


def outcomes(found: dict[str, Pushed]) -> set[str]:
    return {each.outcome for each in found.values()}


def test_the_first_push_makes_the_folder_and_every_board_in_it(server: Grafana) -> None:
    found = pushed(server)

    assert list(found) == list(BOARDS)
    assert outcomes(found) == {"created"}
    assert server.folders == {"longwatch": "Longwatch"}
    assert {saved.folder for saved in server.boards.values()} == {"longwatch"}


def test_a_second_push_saves_nothing(server: Grafana) -> None:
    pushed(server)
    found = pushed(server)

    assert outcomes(found) == {"unchanged"}
    assert server.writes == len(BOARDS)


def test_a_server_that_writes_boards_in_its_own_way_is_not_taken_for_a_person(server: Grafana) -> None:
    """Grafana may bring the JSON into another form, or add to it, without a new version."""
    pushed(server)
    for saved in server.boards.values():
        saved.board["preload"] = False

    assert outcomes(pushed(server)) == {"unchanged"}


def test_only_what_has_changed_here_is_saved(server: Grafana) -> None:
    pushed(server)
    found = pushed(server, boards([MACHINE]))

    assert found[WORKFLOW].outcome == "updated"
    assert found[WORKFLOW].version == 2
    assert server.writes == len(BOARDS) + 1


def test_a_board_that_somebody_has_changed_there_is_left_alone_and_named(server: Grafana) -> None:
    pushed(server)
    server.change(FLEET, title="My fleet")
    found = pushed(server)

    assert found[FLEET].outcome == "changed there"
    assert found[FLEET].by == "ann"
    assert server.boards[FLEET].board["title"] == "My fleet"
    assert outcomes(found) == {"changed there", "unchanged"}


def test_force_puts_it_back(server: Grafana) -> None:
    pushed(server)
    server.change(FLEET, title="My fleet")
    found = pushed(server, force=True)

    assert found[FLEET].outcome == "updated"
    assert server.boards[FLEET].board["title"] == "Longwatch / Fleet"
    assert outcomes(pushed(server)) == {"unchanged"}


def test_a_board_that_was_there_before_the_first_push_is_somebody_elses(server: Grafana) -> None:
    pushed(server)
    server.change(FLEET, title="Theirs")
    server.boards[FLEET].history = [{"version": 1, "createdBy": "ann", "message": "begun"}]

    assert pushed(server)[FLEET].outcome == "changed there"


def test_without_a_history_a_board_that_differs_is_left_alone(server: Grafana) -> None:
    server.keeps_history = False
    pushed(server)
    server.change(FLEET, title="My fleet")
    found = pushed(server)

    assert found[FLEET].outcome == "changed there"
    assert found[WORKFLOW].outcome == "unchanged"


def test_who_saves_in_the_same_moment_is_not_overwritten(server: Grafana) -> None:
    pushed(server)
    server.before_save.append(lambda: server.change(WORKFLOW, title="Faster"))

    with pytest.raises(PushFailed, match=r"changed by someone else.*push again"):
        pushed(server, boards([MACHINE]))
    assert server.boards[WORKFLOW].board["title"] == "Faster"


def test_a_board_that_was_moved_stays_where_it_is(server: Grafana) -> None:
    pushed(server)
    server.folders["night"] = "Night shift"
    server.boards[WORKFLOW].folder = "night"
    pushed(server, boards([MACHINE]))

    assert server.boards[WORKFLOW].folder == "night"


def test_a_folder_is_known_by_its_title(server: Grafana) -> None:
    server.folders["abc"] = "Longwatch"
    pushed(server)

    assert server.folders == {"abc": "Longwatch"}
    assert server.boards[FLEET].folder == "abc"


def test_a_dry_run_says_what_would_be_and_does_nothing(server: Grafana) -> None:
    assert outcomes(pushed(server, dry=True)) == {"created"}
    assert not server.boards
    assert not server.folders

    pushed(server)
    found = pushed(server, boards([MACHINE]), dry=True)

    assert found[WORKFLOW].outcome == "updated"
    assert server.writes == len(BOARDS)


def test_a_wrong_token_is_said(server: Grafana) -> None:
    with pytest.raises(PushFailed, match=r"does not know the token: .*LONGWATCH_GRAFANA_TOKEN") as raised:
        list(push(Target(server.url, "wrong"), boards(), "Longwatch"))

    assert raised.value.kind == "refused"
    assert "wrong" not in str(raised.value)


def test_a_token_that_may_not_write_is_said(server: Grafana) -> None:
    server.may_write = False

    with pytest.raises(PushFailed, match="refuses it this: its account needs the role Editor"):
        pushed(server)


def test_a_provisioned_board_is_changed_in_its_file(server: Grafana) -> None:
    pushed(server)
    server.boards[WORKFLOW].provisioned = True

    with pytest.raises(PushFailed, match="provisioned from files"):
        pushed(server, boards([MACHINE]))


def test_a_grafana_that_is_too_old_is_said(server: Grafana) -> None:
    server.version = "9.5.2"

    with pytest.raises(PushFailed, match=r"Grafana 9\.5\.2 .* is too old"):
        pushed(server)


def test_a_wrong_path_is_said(server: Grafana) -> None:
    with pytest.raises(PushFailed, match=r"nothing of Grafana's API is at .*/elsewhere") as raised:
        list(push(Target(server.url + "/elsewhere", TOKEN), boards(), "Longwatch"))

    assert raised.value.kind == "usage"


def test_a_grafana_below_a_path_is_found(server: Grafana) -> None:
    with pytest.raises(PushFailed):
        list(push(Target(server.url + "/grafana/", TOKEN), boards(), "Longwatch"))

    assert server.seen == ["GET /grafana/api/health"]


def test_nobody_there_is_said() -> None:
    with serve(Grafana()) as gone:
        url = gone.url

    with pytest.raises(PushFailed, match=r"cannot be reached: .*refused") as raised:
        list(push(Target(url, TOKEN), boards(), "Longwatch"))
    assert raised.value.kind == "away"


@pytest.mark.parametrize("url", ["", "grafana:3000", "ftp://grafana", "http://"])
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(PushFailed, match="is no address of a Grafana"):
        Target(url, TOKEN)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(PushFailed, match="holds a password") as raised:
        Target("http://admin:secret@grafana", TOKEN)

    assert "secret" not in str(raised.value)


def test_the_token_is_in_no_log_and_no_board(server: Grafana, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pushed(server)
    server.may_write = False
    with pytest.raises(PushFailed) as raised:
        pushed(server, boards([MACHINE]))

    assert TOKEN not in caplog.text + str(raised.value) + repr(raised.value)
    assert TOKEN not in json.dumps([saved.board for saved in server.boards.values()])
