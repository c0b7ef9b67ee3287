from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from engine.core.diagram import START, UNMARKED, Marks, graph, marks_of, mermaid, terminal
from engine.core.svg import svg
from workflows.insurance_claim import application

CLAIM = application.workflows["insurance-claim"]
SVG = "{http://www.w3.org/2000/svg}"
WENT = marks_of([("", "Gathering"), ("Gathering", "Assessing"), ("Assessing", ""), ("Assessing", "AwaitingDocuments")])


def test_arrows_between_the_same_states_are_put_together() -> None:
    arrows = {(arrow.source, arrow.target): arrow.triggers for arrow in graph(CLAIM).arrows}

    assert arrows[START, "Gathering"] == ("ClaimFiled",)
    assert arrows["Assessing", "HumanReview"] == ("assess_risk done", "assess_risk failed")


def test_states_come_in_the_order_of_a_run_and_ends_last() -> None:
    nodes = graph(CLAIM).nodes

    assert nodes[0].name == "Gathering"
    assert [node.final for node in nodes] == sorted(node.final for node in nodes)


def test_a_runs_marks_are_where_it_is_and_where_it_went() -> None:
    assert WENT.here == "AwaitingDocuments"
    assert WENT.place("Gathering") == "been"
    assert WENT.place("Approved") == ""
    assert WENT.took("Gathering", "Assessing")
    assert marks_of([]) == UNMARKED == Marks()


@pytest.mark.parametrize("width", [48, 60, 100, 300])
def test_the_terminals_width_is_kept(width: int) -> None:
    drawn = terminal(CLAIM, width=width)

    assert max(map(len, drawn.splitlines())) <= width
    assert all(name in drawn for name in CLAIM.specs)


def test_the_terminal_marks_a_run() -> None:
    drawn = terminal(CLAIM, marks=WENT)

    assert "◉ AwaitingDocuments" in drawn
    assert "● Gathering" in drawn
    assert "ClaimFiled ━━▶ Gathering" in drawn


def test_mermaid_marks_a_run_by_classes() -> None:
    text = mermaid(CLAIM, marks=WENT)

    assert text.startswith("stateDiagram-v2")
    assert "class AwaitingDocuments here" in text
    assert "class Approved" not in text


def test_the_svg_shows_every_state_once_inside_the_picture_and_marks_a_run() -> None:
    picture = ET.fromstring(svg(CLAIM, marks=WENT))  # noqa: S314 - our own text

    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    boxes = [each for each in picture.iter(f"{SVG}rect") if each.get("class", "").startswith("box")]
    assert len(boxes) == len(CLAIM.specs)
    assert sum("here" in each.attrib["class"] for each in boxes) == 1
    for box in boxes:
        assert 0 <= float(box.attrib["x"]) <= width - float(box.attrib["width"])
        assert 0 <= float(box.attrib["y"]) <= height - float(box.attrib["height"])


def test_boxes_of_the_svg_do_not_overlap() -> None:
    picture = svg(CLAIM)

    numbers = re.findall(r'class="box[^"]*" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', picture)
    boxes = [tuple(map(float, each)) for each in numbers]
    for place, (x, y, w, h) in enumerate(boxes):
        for u, v, wide, high in boxes[:place]:
            assert x + w <= u or u + wide <= x or y + h <= v or v + high <= y


def test_the_same_workflow_gives_the_same_picture() -> None:
    assert svg(CLAIM) == svg(CLAIM)
