"""The boards as they are shipped: current, whole, and of the form that the named Grafana reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models import units

from grafana import fill, house, queries
from grafana.generate import FOLDER, generated
from grafana.pages import ENGINE, FLEET, SHADOW, STEPS, WORKFLOW

BOARDS = (FLEET, WORKFLOW, STEPS, ENGINE, SHADOW)
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
UNITS = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
VARIABLES = {"workflow", "traces", "datasource", "__rate_interval", "__range", "__from", "__to", "__url_time_range"}


def read(uid: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "boards" / f"{uid}.json").read_text(encoding="utf-8"))
    return found


def panels(uid: str) -> Iterator[dict[str, Any]]:
    return (panel for panel in read(uid)["panels"] if panel["type"] != "row")


EVERY = [pytest.param(uid, panel, id=f"{uid}: {panel['title']}") for uid in BOARDS for panel in panels(uid)]


@pytest.mark.parametrize("name", FILES)
def test_what_is_committed_is_what_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == generated()[name], "run: python -m grafana.generate"


def test_nothing_is_made_that_is_not_committed() -> None:
    assert set(generated()) == set(FILES)


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_goes_through_the_types_of_its_grafana_unchanged(uid: str) -> None:
    """What the types do not know would be dropped on the way in."""
    board = read(uid)

    assert house.through_types(board) == board


@pytest.mark.parametrize("uid", BOARDS)
def test_a_board_is_found_by_its_uid_and_made_for_the_schema_that_is_named(uid: str) -> None:
    board = read(uid)

    assert board["uid"] == uid
    assert board["schemaVersion"] == 42
    assert board["tags"] == ["longwatch"]
    assert board["description"]
    assert not board["editable"]


@pytest.mark.parametrize("uid", BOARDS)
def test_ids_and_titles_are_one_panels_alone(uid: str) -> None:
    ids = [panel["id"] for panel in read(uid)["panels"]]
    titles = [panel["title"] for panel in panels(uid)]

    assert len(ids) == len(set(ids))
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("uid", BOARDS)
def test_each_row_is_a_question(uid: str) -> None:
    rows = [panel["title"] for panel in read(uid)["panels"] if panel["type"] == "row"]

    assert rows
    assert all(title.endswith("?") for title in rows)


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_neither_overlap_nor_leave_the_grid(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in read(uid)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }

        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_each_panel_says_what_it_shows_in_a_unit_with_thresholds(uid: str, panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]

    assert panel["description"].endswith((".", ".)")), uid
    assert defaults["unit"] in UNITS
    assert defaults["thresholds"]["steps"][0]["value"] is None


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_each_panel_asks_the_data_source_that_the_reader_chose(uid: str, panel: dict[str, Any]) -> None:
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]

    assert sources == [{"type": "prometheus", "uid": "${datasource}"}] * len(sources), uid


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_a_histogram_over_time_shows_exemplars(uid: str, panel: dict[str, Any]) -> None:
    shown = [target for target in panel["targets"] if "_bucket" in target["expr"] and target.get("range")]

    assert all(target["exemplar"] for target in shown), uid


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_only_variables_that_the_board_has_are_used(uid: str, panel: dict[str, Any]) -> None:
    known = VARIABLES - ({"workflow"} if uid in {FLEET, ENGINE} else set())
    used = set(re.findall(r"\$\{?([a-z_]\w*)", json.dumps([target["expr"] for target in panel["targets"]])))

    assert used <= known


@pytest.mark.parametrize(("uid", "panel"), EVERY)
def test_links_lead_to_boards_that_are_there_and_fields_that_are_shown(uid: str, panel: dict[str, Any]) -> None:
    shown = {
        name for each in panel.get("transformations", ()) for name in each["options"].get("renameByName", {}).values()
    }
    for link in panel["fieldConfig"]["defaults"].get("links", ()):
        fields = re.findall(r"\$\{__data\.fields\.(\w+)\}", link["url"])

        assert link["url"].startswith(("/explore?", *(f"/d/{uid}?" for uid in BOARDS)))
        assert set(fields) <= shown, uid


def test_every_board_can_be_reached_from_every_other() -> None:
    assert all(read(uid)["links"][0]["tags"] == ["longwatch"] for uid in BOARDS)


def test_every_expression_can_be_asked_for_without_grafana() -> None:
    asked = queries()

    assert [(each.board, each.panel, each.expr) for each in asked] == [
        (uid, panel["title"], target["expr"]) for uid in BOARDS for panel in panels(uid) for target in panel["targets"]
    ]
    assert not [each for each in asked if "$__" in fill(each.expr) or "$workflow" in fill(each.expr)]


def test_only_shadow_waits_for_what_is_not_built() -> None:
    waits = {each.board for each in queries() if "not built yet" in each.may_be_empty}

    assert waits == {SHADOW}
    assert all(each.may_be_empty for each in queries() if each.board == SHADOW)


def test_a_value_is_put_in_place_of_a_variable() -> None:
    assert fill('x{w=~"$workflow"}[$__rate_interval] ${workflow}', workflow="a") == 'x{w=~"a"}[1m] a'


def test_the_page_of_the_boards_names_each_of_their_questions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text(encoding="utf-8")
    questions = [panel["title"] for uid in BOARDS for panel in read(uid)["panels"] if panel["type"] == "row"]

    assert not [question for question in questions if question not in page]
