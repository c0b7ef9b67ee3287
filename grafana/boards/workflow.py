"""*Workflow*: one workflow, its states as a funnel, how long runs stay, how they end, what wakes them."""

from __future__ import annotations

from grafana import house
from grafana.house import Ask, Board, Column
from grafana.pages import WORKFLOW
from grafana.picture import DESCRIPTION, NODES, TITLE

_OF = 'workflow=~"$workflow"'
_NO_TIMER = "no timer has fired yet"


def board() -> Board:
    made = Board(
        WORKFLOW,
        "Workflow",
        "One workflow: where its runs are, how long they stay, how they end, what wakes them.",
        [house.workflows(several=False)],
    )
    _where(made)
    _how_long(made)
    _how_ended(made)
    _what_wakes(made)
    return made


def _where(made: Board) -> None:
    made.row("Where are the runs of this workflow?")
    made.add(house.graph(TITLE, DESCRIPTION), Ask(NODES, ref="nodes"))
    made.add(
        house.bars("Funnel", "How many runs came into each state in the time shown.", "short"),
        Ask(f"sort_desc(sum by (state) (increase(longwatch_state_entered_total{{{_OF}}}[$__range])))", "{{state}}"),
    )
    made.add(
        house.rows(
            "States",
            "Runs in each state now, the age of the oldest, and how long half of the visits and 99 % of them took.",
            [
                Column("state", "State"),
                Column("Value #A", "Runs", "short"),
                Column("Value #B", "Halted", "short", house.NONE_IS_WELL),
                Column("Value #C", "Oldest", "s", ((None, house.GOOD), (2_592_000, house.BAD))),
                Column("Value #D", "Half stay", "s"),
                Column("Value #E", "99 % stay", "s"),
            ],
        ).data_links(
            [
                house.to_traces(
                    "Traces of this state", 'workflow.name="${workflow}" workflow.state="${__data.fields.State}"'
                )
            ]
        ),
        Ask(f"sum by (state) (longwatch_runs{{{_OF}}})"),
        Ask(f'sum by (state) (longwatch_runs{{{_OF}, status="halted"}})', empty="no run is halted"),
        Ask(f"max by (state) (longwatch_state_oldest_age_seconds{{{_OF}}})", empty="no run is alive"),
        *(
            Ask(
                f"histogram_quantile({share}, sum by (le, state) "
                f"(increase(longwatch_state_dwell_seconds_bucket{{{_OF}}}[$__range])))",
                empty="no run has left a state yet",
            )
            for share in (0.5, 0.99)
        ),
    )


def _how_long(made: Board) -> None:
    made.row("How long do they stay, and what makes them wait?")
    made.add(
        house.lines("Runs in each state", "Runs that have not ended, by the state they are in.", "short", stacked=True),
        Ask(f'sum by (state) (longwatch_runs{{{_OF}, status!="finished"}})', "{{state}}", "no run is alive"),
    )
    made.add(
        house.lines("Stay in a state", "How long 90 % of the visits took that ended; the longest eight states.", "s"),
        Ask(
            "topk(8, histogram_quantile(0.9, sum by (le, state) "
            f"(rate(longwatch_state_dwell_seconds_bucket{{{_OF}}}[$__rate_interval]))))",
            "{{state}}",
            "no run has left a state yet",
        ),
    )
    made.add(
        house.lines("Oldest run of each state", "Age of the run that has been longest in a state.", "s"),
        Ask(f"max by (state) (longwatch_state_oldest_age_seconds{{{_OF}}})", "{{state}}", "no run is alive"),
    )
    made.add(
        house.heat(
            "Length of runs", "Runs by their length from beginning to end; a point leads to a run's trace.", "s"
        ),
        Ask(
            f"sum by (le) (increase(longwatch_run_duration_seconds_bucket{{{_OF}}}[$__rate_interval]))",
            "{{le}}",
            "no run has finished yet",
        ),
    )


def _how_ended(made: Board) -> None:
    made.row("How do they end?")
    made.add(
        house.bars("Outcomes", "Runs that ended in the time shown, by outcome.", "short"),
        Ask(
            f"sort_desc(sum by (outcome) (increase(longwatch_runs_finished_total{{{_OF}}}[$__range])))",
            "{{outcome}}",
            "no run has finished yet",
        ),
    )
    made.add(
        house.lines("Begun and ended", "Runs each second. Lines that part for days mean that runs pile up.", "ops"),
        Ask(f"sum(rate(longwatch_runs_started_total{{{_OF}}}[$__rate_interval]))", "begun"),
        Ask(
            f"sum by (outcome) (rate(longwatch_runs_finished_total{{{_OF}}}[$__rate_interval]))",
            "{{outcome}}",
            "no run has finished yet",
        ),
    )


def _what_wakes(made: Board) -> None:
    made.row("What wakes them?")
    made.add(
        house.figure(
            "Timers overdue", "Timers that are due and have not fired.", "short", house.NONE_IS_WELL, tall=True
        ),
        Ask(f"sum(longwatch_timers_overdue{{{_OF}}}) or vector(0)", "timers"),
    )
    made.add(
        house.lines(
            "Timers that fired", "Timers each second, by the handler that they call.", "ops", width=house.THIRD
        ),
        Ask(f"sum by (timer) (rate(longwatch_timers_fired_total{{{_OF}}}[$__rate_interval]))", "{{timer}}", _NO_TIMER),
    )
    made.add(
        house.lines(
            "How late timers fire", "Log time between due and fired, for 99 % of them.", "s", house.SECONDS_LATE
        ),
        Ask(
            "histogram_quantile(0.99, sum by (le) "
            f"(rate(longwatch_timer_late_seconds_bucket{{{_OF}}}[$__rate_interval])))",
            "99 %",
            _NO_TIMER,
        ),
    )
    made.add(
        house.lines("Events", "Events each second by type; *not taken* were of no use where the run stood.", "ops"),
        Ask(
            f"sum by (type, taken) (rate(longwatch_events_total{{{_OF}}}[$__rate_interval]))",
            "{{type}}, taken {{taken}}",
        ),
    )
    made.add(
        house.lines("Published events", "Events that runs published, each second.", "ops"),
        Ask(
            f"sum by (type) (rate(longwatch_events_published_total{{{_OF}}}[$__rate_interval]))",
            "{{type}}",
            "no run of the workflow has published an event",
        ),
    )
