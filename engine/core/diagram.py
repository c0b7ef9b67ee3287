"""Pictures of a workflow: for the terminal, as Mermaid, and (in `svg.py`) as SVG.

All are drawn from the same `Graph`, in which arrows that lead from one state to another are put together, and can show
where a run is and has been (`Marks`).
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from engine.core.definition import Workflow

START = ""
"""The place of a run that has not begun."""

_WIDEST = 120
_NARROWEST = 48
_ROOM = 24
"""Where less is left beside an arrow, what it leads to stands below it."""
_SIGNS = {"here": "◉ ", "been": "● ", "": ""}

Place = Literal["here", "been", ""]


@dataclass(frozen=True)
class Marks:
    """Where a run is, and the steps that it took to get there."""

    here: str = ""
    went: tuple[tuple[str, str], ...] = ()
    """Every change of state, (from, to); from is `START` for the first."""

    def place(self, state: str) -> Place:
        if state == self.here:
            return "here"
        return "been" if any(state in step for step in self.went) else ""

    def took(self, source: str, target: str) -> bool:
        return (source, target) in self.went


UNMARKED = Marks()


@dataclass(frozen=True)
class Node:
    """A state."""

    name: str
    words: str
    """First line of its docstring."""
    final: bool
    groups: tuple[str, ...]
    stays: tuple[str, ...]
    """What happens there without leading on."""


@dataclass(frozen=True)
class Arrow:
    """All that leads from one state to another."""

    source: str
    target: str
    triggers: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """A workflow's states in the order in which a run can come to them, and the arrows between them."""

    name: str
    version: int
    nodes: tuple[Node, ...]
    arrows: tuple[Arrow, ...]
    """The first come from `START`."""

    def leaving(self, state: str) -> Iterator[Arrow]:
        return (arrow for arrow in self.arrows if arrow.source == state)


def graph(workflow: Workflow[Any]) -> Graph:
    """Put a workflow's table together."""
    triggers: dict[tuple[str, str], list[str]] = {}
    stays: dict[str, list[str]] = {name: [] for name in workflow.specs}
    for target in workflow.starting.order:
        triggers[START, target.__name__] = list(workflow.starts_on)
    for row in workflow.rows():
        for name in row.targets:
            if name == row.state:
                stays[name].append(row.trigger)
            else:
                triggers.setdefault((row.state, name), []).append(row.trigger)
        if not row.targets:
            stays[row.state].append(row.trigger)
    arrows = tuple(Arrow(source, target, tuple(names)) for (source, target), names in triggers.items())
    nodes = tuple(_node(workflow, name, tuple(stays[name])) for name in _in_order(workflow, arrows))
    return Graph(workflow.name, workflow.version, nodes, arrows)


def terminal(workflow: Workflow[Any], *, width: int = 100, marks: Marks = UNMARKED) -> str:
    """Draw each state as a box with all that can happen in it, at most `width` characters wide."""
    drawn = graph(workflow)
    width = max(_NARROWEST, min(width, _WIDEST))
    lines = [f"{drawn.name} (version {drawn.version})"]
    ends = [node for node in drawn.nodes if node.final and not node.stays]
    for arrow in drawn.leaving(START):
        lines += ["", *_entry(arrow, width, marks)]
    for node in drawn.nodes:
        lines += [] if node in ends else ["", *_box(node, workflow, width, marks)]
    lines += ["", *(_end(node, width, marks) for node in ends)] if ends else []
    if marks.here:
        lines += ["", "◉ the run is here   ● it has been here   ━▶ it went this way"]
    return "\n".join(lines)


def mermaid(workflow: Workflow[Any], *, marks: Marks = UNMARKED) -> str:
    """The workflow's own Mermaid text, with classes for the states where a run is and has been."""
    lines = [workflow.mermaid()]
    places = {name: marks.place(name) for name in workflow.specs}
    if marks.here:
        lines += [
            "    classDef here fill:#f59e0b,color:#000,stroke:#b45309",
            "    classDef been fill:#fde68a,color:#000",
        ]
        lines += [f"    class {name} {place}" for name, place in places.items() if place]
    return "\n".join(lines)


def marks_of(steps: Iterable[tuple[str, str]]) -> Marks:
    """Make the marks of a run from its changes of state in order; pairs without a target are left out."""
    went = tuple((source, target) for source, target in steps if target)
    return Marks(went[-1][1], went) if went else UNMARKED


def _node(workflow: Workflow[Any], name: str, stays: tuple[str, ...]) -> Node:
    spec = workflow.specs[name]
    words = (inspect.cleandoc(vars(spec.type).get("__doc__") or "").splitlines() or [""])[0]
    return Node(name, words, spec.final, spec.groups, stays)


def _in_order(workflow: Workflow[Any], arrows: tuple[Arrow, ...]) -> list[str]:
    """States by the number of steps from the start; final ones last."""
    found = [arrow.target for arrow in arrows if arrow.source == START]
    for name in found:
        found += dict.fromkeys(a.target for a in arrows if a.source == name and a.target not in found)
    known = dict.fromkeys([*(name for name in found if name in workflow.specs), *workflow.specs])
    return sorted(known, key=lambda name: workflow.specs[name].final)


def _entry(arrow: Arrow, width: int, marks: Marks) -> list[str]:
    line = "━━▶" if marks.took(START, arrow.target) else "──▶"
    return _wrap(f"{' or '.join(arrow.triggers)} {line} ", arrow.target, width)


def _box(node: Node, workflow: Workflow[Any], width: int, marks: Marks) -> list[str]:
    tags = [*(["final"] if node.final else []), *(f"in {group}" for group in reversed(node.groups))]
    head = f"┌ {_SIGNS[marks.place(node.name)]}{node.name}{' (' + ', '.join(tags) + ')' if tags else ''} "
    inside = [f"│ {line}" for line in textwrap.wrap(node.words, width - 2)]
    rows = [(row.trigger, row.targets) for row in workflow.rows(node.name)]
    space = max((len(trigger) for trigger, _ in rows), default=0)
    space = min(space, width // 2)
    for trigger, targets in rows:
        line = "━━▶" if any(marks.took(node.name, target) for target in targets) else "──▶"
        inside += _wrap(f"│ {trigger:{space}} {line} ", " or ".join(targets) or "(stays)", width)
    return [head + "─" * max(0, width - len(head)), *inside, "└" + "─" * (width - 1)]


def _end(node: Node, width: int, marks: Marks) -> str:
    line = f"■ {_SIGNS[marks.place(node.name)]}{node.name} (final)"
    return textwrap.shorten(f"{line}  {node.words}", width, placeholder=" ...") if node.words else line


def _wrap(head: str, text: str, width: int) -> list[str]:
    """`head` and `text`, with the later lines under the text's beginning."""
    first = "│" if head.startswith("│") else " "
    later = first + " " * (len(head) - 1)
    if width - len(head) < _ROOM:
        later = first + "     "
        return [head.rstrip(), *(later + line for line in textwrap.wrap(text, width - len(later)))]
    lines = textwrap.wrap(text, width - len(head), break_long_words=False) or [""]
    return [head + lines[0], *(later + line for line in lines[1:])]
