"""*Shadow*: a new version of a workflow beside the live one. It waits for shadow runs, which are not built yet.

Names that the panels ask for: `longwatch_shadow_compared_total{workflow,version,agrees}`,
`longwatch_shadow_first_divergence_total{workflow,version,state,kind}`,
`longwatch_shadow_cost_euros_total{workflow,version,side}`,
`longwatch_shadow_step_duration_seconds{workflow,version,step,side}` (a histogram); `side` is `live` or `shadow`.
"""

from __future__ import annotations

from grafana import house
from grafana.house import Ask, Board, Column
from grafana.pages import SHADOW

_OF = 'workflow=~"$workflow"'
_LATER = "shadow runs are not built yet; the panel waits for longwatch_shadow_*"
_AGREEMENT: house.Steps = ((None, house.BAD), (0.95, house.WARNING), (0.99, house.GOOD))


def board() -> Board:
    made = Board(
        SHADOW,
        "Shadow",
        "A new version beside the live one: agreement, first divergences, cost, latency. Empty until shadow runs come.",
        [house.workflows(several=True)],
    )
    _agreement(made)
    _price(made)
    return made


def _agreement(made: Board) -> None:
    made.row("Does the new version decide as the live one does?")
    agrees = f'sum by (workflow, version) (increase(longwatch_shadow_compared_total{{{_OF}, agrees="yes"}}[$__range]))'
    every = f"sum by (workflow, version) (increase(longwatch_shadow_compared_total{{{_OF}}}[$__range]))"
    made.add(
        house.bars(
            "Agreement", "Share of compared runs that came to the same end by the same way.", "percentunit", _AGREEMENT
        ),
        Ask(f"{agrees} / {every}", "{{workflow}} {{version}}", _LATER),
    )
    made.add(
        house.rows(
            "First divergences",
            "Where runs first went another way, and in what: state, data, step, event.",
            [
                Column("workflow", "Workflow"),
                Column("version", "Version"),
                Column("state", "State"),
                Column("kind", "In"),
                Column("Value", "Runs", "short"),
            ],
        ).data_links([house.to_workflow()]),
        Ask(
            "sort_desc(sum by (workflow, version, state, kind) "
            f"(increase(longwatch_shadow_first_divergence_total{{{_OF}}}[$__range])))",
            empty=_LATER,
        ),
    )


def _price(made: Board) -> None:
    made.row("What does it cost, and is it slower?")
    made.add(
        house.lines("Cost an hour", "Models of both versions, in euros.", "currencyEUR"),
        Ask(
            f"sum by (workflow, side) (rate(longwatch_shadow_cost_euros_total{{{_OF}}}[$__rate_interval])) * 3600",
            "{{workflow}} {{side}}",
            _LATER,
        ),
    )
    made.add(
        house.lines("Duration of 95 % of the attempts", "Steps of both versions.", "s"),
        Ask(
            "histogram_quantile(0.95, sum by (le, workflow, step, side) "
            f"(rate(longwatch_shadow_step_duration_seconds_bucket{{{_OF}}}[$__rate_interval])))",
            "{{workflow}} {{step}} {{side}}",
            _LATER,
        ),
    )
