"""A workflow as SVG, laid out in layers by ourselves.

The method is that of Sugiyama, in its plainest form: (1) arrows that lead back are turned round while the layers are
made, (2) a state's layer is its longest way from the start, (3) an arrow over several layers gets a waypoint in each,
(4) layers are sorted a few times by the mean place of their neighbours, (5) all is centred and drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any

from engine.core.definition import Workflow
from engine.core.diagram import START, UNMARKED, Arrow, Graph, Marks, Node, graph

_LINE = 15
_LETTER = 7.2
"""Width of a letter at 12 px in most fonts, on the safe side."""
_GAP = 36
_WAYPOINT = 24
_SWEEPS = 8
_SPREAD = 0.8
"""Part of a box's width where lines begin and end."""
_SHARES = (0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78)
"""Where on its line a label may stand, the best place first."""
_PASSING = "."
"""Name of a waypoint, which no class can have."""
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2937; text-anchor: middle; }
  .name { font-weight: 600; font-size: 13px; }
  .words, .stays { font-size: 11px; fill: #4b5563; }
  .label { font-size: 11px; }
  .paper { fill: #fff; fill-opacity: 0.85; }
  .box { fill: #f8fafc; stroke: #64748b; }
  .final { fill: #ecfdf5; stroke: #059669; stroke-width: 2.5; }
  .been { fill: #fde68a; }
  .here { fill: #f59e0b; stroke: #b45309; stroke-width: 3; }
  .arrow { fill: none; stroke: #64748b; stroke-width: 1.2; }
  .took { stroke: #b45309; stroke-width: 2.8; }
"""
_HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="#64748b"/></marker>'
)

_Ends = tuple[str, str]
"""An arrow's source and target."""
_Point = tuple[float, float]
_Rect = tuple[float, float, float, float]
"""Left, top, width, height."""


@dataclass(eq=False)
class _Cell:
    """A state, the start, or a waypoint of an arrow, with its place in the picture."""

    name: str
    node: Node | None = None
    layer: int = 0
    width: float = _WAYPOINT
    height: float = 0
    x: float = 0
    y: float = 0
    above: list[_Cell] = field(default_factory=list, repr=False)
    below: list[_Cell] = field(default_factory=list, repr=False)


def svg(workflow: Workflow[Any], *, marks: Marks = UNMARKED) -> str:
    """Draw the workflow; the text stands by itself (styles inside, no scripts, no fonts to load)."""
    drawn = graph(workflow)
    cells = {START: _Cell(START, width=16, height=16), **{node.name: _state(node) for node in drawn.nodes}}
    back = _turn(drawn, cells)
    _layer(cells)
    ways = {(a.source, a.target): _way(a, cells, (a.source, a.target) in back) for a in drawn.arrows}
    layers = _sorted_layers(cells, ways.values())
    width, height = _place(layers, drawn)
    routes = _routes(ways)
    body = [_arrow(a, routes[a.source, a.target], marks) for a in drawn.arrows]
    body += [_box(cell, marks) for cell in cells.values()]
    body += _labels(drawn, routes)
    size = f'width="{width:.0f}" height="{height:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size} role="img">',
            f"<title>{escape(drawn.name)} (version {drawn.version})</title>",
            f"<style>{_STYLE}</style>",
            f"<defs>{_HEAD}</defs>",
            f'<rect {size} fill="#fff"/>',
            *body,
            "</svg>",
        ]
    )


def _state(node: Node) -> _Cell:
    lines = _lines(node)
    width = max(len(text) for text, _ in lines) * _LETTER + 24
    return _Cell(node.name, node, width=max(90.0, width), height=len(lines) * _LINE + 14)


def _lines(node: Node) -> list[tuple[str, str]]:
    """The lines in a state's box, with their classes."""
    words = _broken(node.words, 40)
    stays = [f"↻ {trigger}" for trigger in node.stays]
    return [(node.name, "name"), *((w, "words") for w in words), *((s, "stays") for s in stays)]


def _broken(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _turn(drawn: Graph, cells: dict[str, _Cell]) -> set[tuple[str, str]]:
    """Link the cells downwards; the arrows that had to be turned round for it, found by a walk from the start."""
    back: set[tuple[str, str]] = set()
    open_, done = set[str](), set[str]()

    def walk(name: str) -> None:
        open_.add(name)
        for arrow in drawn.leaving(name):
            if arrow.target in open_:
                back.add((name, arrow.target))
            elif arrow.target not in done:
                walk(arrow.target)
        open_.discard(name)
        done.add(name)

    walk(START)
    for arrow in drawn.arrows:
        upper, lower = (
            (arrow.target, arrow.source) if (arrow.source, arrow.target) in back else (arrow.source, arrow.target)
        )
        cells[upper].below.append(cells[lower])
        cells[lower].above.append(cells[upper])
    return back


def _layer(cells: dict[str, _Cell]) -> None:
    """Longest way from the start. The turned arrows left no ring, so this ends."""
    todo = list(cells.values())
    while todo:
        cell = todo.pop(0)
        for lower in cell.below:
            if lower.layer <= cell.layer:
                lower.layer = cell.layer + 1
                todo.append(lower)
    for cell in cells.values():
        cell.above, cell.below = [], []


def _way(arrow: Arrow, cells: dict[str, _Cell], turned: bool) -> list[_Cell]:  # noqa: FBT001 - a fact about the arrow
    """The cells that an arrow goes through, from source to target, with a waypoint in each layer between."""
    upper, lower = cells[arrow.source], cells[arrow.target]
    if turned:
        upper, lower = lower, upper
    way = [upper, *(_Cell(_PASSING, layer=layer) for layer in range(upper.layer + 1, lower.layer)), lower]
    for one, other in pairwise(way):
        one.below.append(other)
        other.above.append(one)
    return way[::-1] if turned else way


def _sorted_layers(cells: dict[str, _Cell], ways: Iterable[Sequence[_Cell]]) -> list[list[_Cell]]:
    layers: list[list[_Cell]] = [[] for _ in range(max(cell.layer for cell in cells.values()) + 1)]
    for cell in cells.values():
        layers[cell.layer].append(cell)
    for way in ways:
        for cell in way[1:-1]:
            layers[cell.layer].append(cell)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            places = {id(cell): _mean(cell.above if down else cell.below, layers, layer.index(cell)) for cell in layer}
            layer.sort(key=lambda cell: places[id(cell)])
    return layers


def _mean(neighbours: Sequence[_Cell], layers: Sequence[Sequence[_Cell]], now: int) -> float:
    """Mean place of the neighbours in their layer, in parts of that layer; without any, the place stays."""
    if not neighbours:
        return float(now)
    places = [layers[cell.layer].index(cell) for cell in neighbours]
    return sum(places) / len(places)


def _place(layers: Sequence[Sequence[_Cell]], drawn: Graph) -> tuple[float, float]:
    """Give every cell its centre; the size of the picture."""
    widths = [sum(cell.width for cell in layer) + _GAP * (len(layer) - 1) for layer in layers]
    labels = max((len(t) for a in drawn.arrows for t in a.triggers), default=0) * _LETTER
    width = max([*widths, labels]) + 2 * _GAP
    room = max((len(a.triggers) for a in drawn.arrows), default=1) * _LINE + 3 * _GAP / 2
    y = _GAP / 2
    for layer, used in zip(layers, widths, strict=True):
        # What is left over is shared out between the cells, so that labels have room.
        spare = (width - 2 * _GAP - used) / (len(layer) + 1)
        x = float(_GAP)
        tallest = max(cell.height for cell in layer)
        for cell in layer:
            cell.x, cell.y = x + spare + cell.width / 2, y + tallest / 2
            cell.height = tallest if cell.name == _PASSING else cell.height
            x += spare + cell.width + _GAP
        y += tallest + room
    return width, y - room + _GAP / 2


def _routes(ways: Mapping[_Ends, Sequence[_Cell]]) -> dict[_Ends, list[_Point]]:
    """Where each line leaves, passes and arrives; the lines at one side of a box are spread over it, in order."""
    sides: dict[tuple[_Cell, bool], list[tuple[float, _Ends]]] = {}
    for ends, way in ways.items():
        down = way[0].y <= way[-1].y
        sides.setdefault((way[0], down), []).append((way[1].x, ends))
        sides.setdefault((way[-1], not down), []).append((way[-2].x, ends))
    ports: dict[tuple[_Cell, _Ends], _Point] = {}
    for (cell, bottom), found in sides.items():
        for number, (_, ends) in enumerate(sorted(found), 1):
            x = cell.x + cell.width * _SPREAD * (number / (len(found) + 1) - 0.5)
            ports[cell, ends] = (x, cell.y + cell.height / 2 * (1 if bottom else -1))
    return {ends: [ports[way[0], ends], *_passing(way), ports[way[-1], ends]] for ends, way in ways.items()}


def _passing(way: Sequence[_Cell]) -> Iterator[_Point]:
    """Straight through each layer between, so that no box beside is touched."""
    half = 0.5 if way[0].y <= way[-1].y else -0.5
    for cell in way[1:-1]:
        yield cell.x, cell.y - half * cell.height
        yield cell.x, cell.y + half * cell.height


def _arrow(arrow: Arrow, points: Sequence[_Point], marks: Marks) -> str:
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (u, v) in pairwise(points):
        middle = (y + v) / 2
        path += f"C{x:.1f} {middle:.1f} {u:.1f} {middle:.1f} {u:.1f} {v:.1f}"
    took = " took" if marks.took(arrow.source, arrow.target) else ""
    return f'<path class="arrow{took}" d="{path}" marker-end="url(#head)"/>'


def _labels(drawn: Graph, routes: Mapping[_Ends, Sequence[_Point]]) -> Iterator[str]:
    """The triggers on the first piece of each line, near the source, moved along it where another label stands."""
    taken: list[_Rect] = []
    for arrow in drawn.arrows:
        start, end = routes[arrow.source, arrow.target][:2]
        places = [_rect(arrow, _on_curve(start, end, share)) for share in _SHARES]
        rect = min(places, key=lambda place: sum(_overlap(place, other) for other in taken))
        taken.append(rect)
        yield _label(arrow, rect)


def _on_curve(start: _Point, end: _Point, share: float) -> _Point:
    """A point of the line that `_arrow` draws between two of its points."""
    (x, y), (u, v) = start, end
    rest = 1 - share
    bend = share * share * (3 - 2 * share)
    level = rest**3 * y + 3 * rest * share * (y + v) / 2 + share**3 * v
    return x + (u - x) * bend, level


def _rect(arrow: Arrow, middle: _Point) -> _Rect:
    width, height = max(map(len, arrow.triggers)) * 6.2 + 4, len(arrow.triggers) * _LINE
    return middle[0] - width / 2, middle[1] - height / 2, width, height


def _overlap(one: _Rect, other: _Rect) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _label(arrow: Arrow, rect: _Rect) -> str:
    left, top, width, height = rect
    rows = (
        f'<tspan x="{left + width / 2:.1f}" y="{top + 11.5 + number * _LINE:.1f}">{escape(trigger)}</tspan>'
        for number, trigger in enumerate(arrow.triggers)
    )
    paper = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="3"'
    return f'<rect class="paper" {paper}/><text class="label">{"".join(rows)}</text>'


def _box(cell: _Cell, marks: Marks) -> str:
    if cell.node is None:
        return f'<circle cx="{cell.x:.1f}" cy="{cell.y:.1f}" r="7" fill="#1f2937"/>'
    left, top = cell.x - cell.width / 2, cell.y - cell.height / 2
    kind = " ".join(filter(None, ["box", "final" if cell.node.final else "", marks.place(cell.name)]))
    rows = (
        f'<text class="{style}" x="{cell.x:.1f}" y="{top + 19 + number * _LINE:.1f}">{escape(text)}</text>'
        for number, (text, style) in enumerate(_lines(cell.node))
    )
    return (
        f'<g><rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{cell.width:.1f}" height="{cell.height:.1f}" '
        f'rx="8"/>{"".join(rows)}</g>'
    )
