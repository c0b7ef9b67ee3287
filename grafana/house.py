"""House defaults of boards and panels, and what all boards are put together with. Needs the SDK.

A board is a list of rows, each a question that somebody asks at night, with the panels that answer it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, TypeVar
from urllib.parse import quote

from grafana.pages import WORKFLOW
from grafana.picture import transformations
from grafana.query import Query

with warnings.catch_warnings():
    # The SDK would have everybody use schema 2, which a Grafana before 13 does not read from files.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, nodegraph, stat, table, timeseries
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.cog.variants import Dataquery as AnyQuery
    from grafana_foundation_sdk.models import common as kinds
    from grafana_foundation_sdk.models import dashboard as models
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS: Final = kinds.DataSourceRef("prometheus", "${datasource}")
FULL, HALF, THIRD, QUARTER, SIXTH = 24, 12, 8, 6, 4
"""Widths of panels, of 24."""
GOOD, WARNING, BAD, PLAIN = "green", "orange", "red", "blue"
Steps = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first value is None."""
ALL_WELL: Final[Steps] = ((None, PLAIN),)
"""For figures that are neither good nor bad."""
NONE_IS_WELL: Final[Steps] = ((None, GOOD), (1, BAD))
SECONDS_LATE: Final[Steps] = ((None, GOOD), (10, WARNING), (60, BAD))

_TALL, _FLAT = 8, 4
_P = TypeVar("_P", bound="Panel")


@dataclass(frozen=True)
class Ask:
    """One expression of a panel, and how what comes back is called."""

    expr: str
    legend: str = ""
    """In Grafana's words, as `{{state}}`; empty: all labels."""
    empty: str = ""
    """Why a healthy engine may have nothing to show here."""
    ref: str = ""


class Panel(Protocol):
    """What the SDK's builders of panels have in common."""

    def build(self) -> models.Panel: ...
    def id(self, id_val: int) -> Self: ...
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: kinds.DataSourceRef) -> Self: ...
    def height(self, h: int) -> Self: ...
    def span(self, w: int) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def thresholds(self, thresholds: Builder[models.ThresholdsConfig]) -> Self: ...
    def with_target(self, target: Builder[AnyQuery]) -> Self: ...
    def data_links(self, links: list[Builder[models.DashboardLink]]) -> Self: ...


@dataclass
class Board:
    """A board that is being put together."""

    uid: str
    title: str
    description: str
    variables: Sequence[Builder[models.VariableModel]] = ()
    queries: list[Query] = field(default_factory=list)
    _parts: list[models.Panel | models.RowPanel] = field(default_factory=list)
    _x: int = 0
    _y: int = 0
    _height: int = 0

    def row(self, question: str) -> None:
        """Begin a row; its title is the question that it answers."""
        self._break()
        row = dashboard.Row(question).id(len(self._parts) + 1).build()
        row.grid_pos = models.GridPos(h=1, w=FULL, x=0, y=self._y)
        self._parts.append(row)
        self._y += 1

    def add(self, panel: Panel, *asks: Ask) -> None:
        """Put a panel behind the last one; asks of a panel are numbered in order."""
        for number, ask in enumerate(asks):
            panel.with_target(_target(panel, ask, ask.ref or chr(ord("A") + number)))
        made = panel.datasource(PROMETHEUS).id(len(self._parts) + 1).build()
        self._set(made)
        self._parts.append(made)
        self.queries += [Query(self.uid, made.title or "", ask.expr, ask.empty) for ask in asks]

    def build(self) -> dict[str, Any]:
        """Give the board as Grafana's JSON (dashboard schema 42)."""
        made = (
            dashboard.Dashboard(f"Longwatch / {self.title}")
            .uid(self.uid)
            .description(self.description)
            .tags(["longwatch"])
            .timezone("browser")
            .time("now-6h", "now")
            .refresh("30s")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .readonly()
            .link(
                dashboard.DashboardLink("Longwatch")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags(["longwatch"])
                .as_dropdown(True)
                .include_vars(True)
                .keep_time(True)
            )
            .variables([dashboard.DatasourceVariable("datasource").label("Metrics").type("prometheus")])
        )
        for variable in (traces(), *self.variables):
            made.with_variable(variable)
        whole = made.build()
        whole.panels = self._parts
        return _json(whole)

    def _set(self, panel: models.Panel) -> None:
        """Place a panel; the grid breaks where it does not fit."""
        place = panel.grid_pos or models.GridPos()
        if self._x + place.w > FULL:
            self._break()
        panel.grid_pos = models.GridPos(h=place.h, w=place.w, x=self._x, y=self._y)
        self._x += place.w
        self._height = max(self._height, place.h)

    def _break(self) -> None:
        self._y += self._height
        self._x = self._height = 0


def through_types(board: dict[str, Any]) -> dict[str, Any]:
    """Read a board's JSON into the SDK's types and write it again; what the types do not know is gone then."""
    register_default_plugins()
    return _json(models.Dashboard.from_json(board))


def _json(board: models.Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(board))
    for link in found["links"]:
        del link["placement"]  # the SDK's default hides links in a menu
    return found


# Panels ---------------------------------------------------------------------------------------------------------------


def figure(
    title: str, description: str, unit: str, steps: Steps = ALL_WELL, *, width: int = SIXTH, tall: bool = False
) -> stat.Panel:
    """Make a panel of one number."""
    made = stat.Panel().graph_mode(kinds.BigValueGraphMode.AREA).color_mode(kinds.BigValueColorMode.VALUE)
    made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return _dress(made, title, description, unit, steps, width, _TALL if tall else _FLAT)


def sign(title: str, description: str) -> stat.Panel:
    """Make a panel of something that is up (1) or down."""
    words = {"0": models.ValueMappingResult(text="down"), "1": models.ValueMappingResult(text="up")}
    made = figure(title, description, "none", ((None, BAD), (1, GOOD)))
    return made.mappings([models.ValueMap(options=words)]).graph_mode(kinds.BigValueGraphMode.NONE)


def lines(
    title: str, description: str, unit: str, steps: Steps = ALL_WELL, *, width: int = HALF, stacked: bool = False
) -> timeseries.Panel:
    """Make a panel of lines over time; with steps, the bounds are drawn."""
    made = timeseries.Panel().fill_opacity(25 if stacked else 8).show_points(kinds.VisibilityMode.AUTO).min(0)
    made.legend(
        common.VizLegendOptions()
        .display_mode(kinds.LegendDisplayMode.TABLE)
        .placement(kinds.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    made.tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    if stacked:
        made.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if len(steps) > 1:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED))
    return _dress(made, title, description, unit, steps, width, _TALL)


def bars(title: str, description: str, unit: str, steps: Steps = ALL_WELL, *, width: int = HALF) -> bargauge.Panel:
    """Make a panel of one bar a series, now."""
    made = bargauge.Panel().orientation(kinds.VizOrientation.HORIZONTAL).display_mode(kinds.BarGaugeDisplayMode.BASIC)
    made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).min(0)
    return _dress(made, title, description, unit, steps, width, _TALL)


def heat(title: str, description: str, unit: str, *, width: int = HALF) -> heatmap.Panel:
    """Make a panel of how often a histogram's buckets were met over time."""
    made = heatmap.Panel().calculate(False).show_legend()
    made.y_axis(heatmap.YAxisConfig().unit(unit)).exemplars_color("rgba(255,0,255,0.7)")
    return _dress(made, title, description, unit, ALL_WELL, width, _TALL)


@dataclass(frozen=True)
class Column:
    """A column of a table: the label or figure that it shows."""

    name: str
    title: str = ""
    unit: str = ""
    steps: Steps = ()


def rows(title: str, description: str, columns: Sequence[Column], *, width: int = HALF) -> table.Panel:
    """Make a table of figures side by side, one row for what has the same labels; links lead on from its rows."""
    made = table.Panel().filterable(True)
    renamed = {column.name: column.title or column.name for column in columns}
    made.transformations(
        [
            models.DataTransformerConfig(id_val="merge", options={}),
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {column.name: place for place, column in enumerate(columns)},
                    "renameByName": renamed,
                },
            ),
        ]
    )
    for column in columns:
        made.override_by_name(renamed[column.name], list(_properties(column)))
    return _dress(made, title, description, "short", ALL_WELL, width, _TALL)


def graph(title: str, description: str, *, width: int = FULL) -> nodegraph.Panel:
    """Make a panel of nodes and arrows; see `grafana.picture`."""
    made = nodegraph.Panel()
    made.transformations(
        [models.DataTransformerConfig(each["id"], options=each["options"]) for each in transformations()]
    )
    return _dress(made, title, description, "short", ALL_WELL, width, 14)


def _properties(column: Column) -> Iterable[models.DynamicConfigValue]:
    if column.unit:
        yield models.DynamicConfigValue("unit", column.unit)
    if column.steps:
        steps = [{"value": value, "color": colour} for value, colour in column.steps]
        yield models.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps})
        yield models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})


def _dress(panel: _P, title: str, description: str, unit: str, steps: Steps, width: int, height: int) -> _P:
    bounds = [models.Threshold(value, colour) for value, colour in steps]
    panel.title(title).description(description).unit(unit).span(width).height(height)
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(bounds))
    return panel


def _target(panel: Panel, ask: Ask, ref: str) -> Dataquery:
    made = Dataquery().expr(ask.expr).ref_id(ref).datasource(PROMETHEUS)
    if isinstance(panel, table.Panel | nodegraph.Panel):
        return made.instant().format(PromQueryFormat.TABLE)
    made.legend_format(ask.legend or "__auto")
    if isinstance(panel, heatmap.Panel):
        return made.range().format(PromQueryFormat.HEATMAP).exemplar(True)
    if isinstance(panel, bargauge.Panel):
        return made.instant()
    return made.range().exemplar("_bucket" in ask.expr)


# Variables and links --------------------------------------------------------------------------------------------------


def traces() -> dashboard.DatasourceVariable:
    """Where links to traces lead."""
    return dashboard.DatasourceVariable("traces").label("Traces").type("jaeger")


def workflows(*, several: bool) -> dashboard.QueryVariable:
    """Which workflows are shown."""
    made = (
        dashboard.QueryVariable("workflow")
        .label("Workflow")
        .datasource(PROMETHEUS)
        .query("label_values(longwatch_runs_started_total, workflow)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    return made.all_value(".+") if several else made


def to_workflow(name: str = "${__data.fields.Workflow}") -> dashboard.DashboardLink:
    """Lead from a figure to the board of its workflow."""
    url = f"/d/{WORKFLOW}?var-workflow={name}&${{__url_time_range}}"
    return dashboard.DashboardLink("Show this workflow").url(url)


def to_traces(title: str, tags: str) -> dashboard.DashboardLink:
    """Lead from a figure to a search in Jaeger; `tags` in its words, as `workflow.name="x"`, may hold variables."""
    query = {"refId": "A", "queryType": "search", "service": "longwatch", "tags": tags, "limit": 20}
    pane = {"datasource": "${traces}", "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}
    panes = quote(json.dumps({"lw": pane}, separators=(",", ":")), safe="${}:_,.=")
    return dashboard.DashboardLink(title).url(f"/explore?schemaVersion=1&panes={panes}")
