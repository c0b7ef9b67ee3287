"""*Fleet*: what runs, what is stuck, what fails, where the time goes."""

from __future__ import annotations

from grafana import house
from grafana.house import Ask, Board, Column
from grafana.pages import FLEET

_QUIET = "nothing of it has happened yet"


def board() -> Board:
    made = Board(FLEET, "Fleet", "All workflows of an engine: what runs, what is stuck, what fails, where time goes.")
    _what_runs(made)
    _what_is_stuck(made)
    _what_fails(made)
    _where_time_goes(made)
    return made


def _what_runs(made: Board) -> None:
    made.row("What runs?")
    made.add(
        house.figure("Alive", "Runs that have begun and not ended, of all workflows.", "short"),
        Ask('sum(longwatch_runs{status!="finished"}) or vector(0)', "runs"),
    )
    made.add(
        house.figure("Started", "Runs that began in the time shown.", "short"),
        Ask("sum(increase(longwatch_runs_started_total[$__range])) or vector(0)", "started"),
    )
    made.add(
        house.figure("Finished", "Runs that ended in the time shown, whatever the outcome.", "short"),
        Ask("sum(increase(longwatch_runs_finished_total[$__range])) or vector(0)", "finished"),
    )
    made.add(
        house.figure("Events", "Events that came in, each second.", "ops"),
        Ask("sum(rate(longwatch_events_total[$__rate_interval])) or vector(0)", "events"),
    )
    made.add(
        house.figure("Steps", "Attempts of steps that ended, each second.", "ops"),
        Ask("sum(rate(longwatch_step_attempts_total[$__rate_interval])) or vector(0)", "attempts"),
    )
    made.add(
        house.figure(
            "Cost", "What models cost in the time shown. Calls of unknown price are not in it.", "currencyEUR"
        ),
        Ask("sum(increase(longwatch_llm_cost_euros_total[$__range])) or vector(0)", "cost"),
    )
    made.add(
        house.rows(
            "Workflows",
            "Each workflow's runs by what they do. A click leads to the workflow's own board.",
            [
                Column("workflow", "Workflow"),
                Column("Value #A", "Running", "short"),
                Column("Value #B", "Waiting", "short"),
                Column("Value #C", "Halted", "short", house.NONE_IS_WELL),
                Column("Value #D", "Finished", "short"),
            ],
        ).data_links([house.to_workflow(), house.to_traces("Its traces", 'workflow.name="${__data.fields.Workflow}"')]),
        Ask('sum by (workflow) (longwatch_runs{status="running"})', empty="no run works at this moment"),
        Ask('sum by (workflow) (longwatch_runs{status="waiting"})', empty="no run waits at this moment"),
        Ask('sum by (workflow) (longwatch_runs{status="halted"})', empty="no run is halted"),
        Ask("sum by (workflow) (longwatch_runs_finished_total)", empty="no run has finished yet"),
    )
    made.add(
        house.lines("Runs that begin and end", "Runs each second, by workflow.", "ops"),
        Ask("sum by (workflow) (rate(longwatch_runs_started_total[$__rate_interval]))", "{{workflow}} started"),
        Ask(
            "sum by (workflow) (rate(longwatch_runs_finished_total[$__rate_interval]))",
            "{{workflow}} finished",
            "no run has finished yet",
        ),
    )


def _what_is_stuck(made: Board) -> None:
    made.row("What is stuck?")
    made.add(
        house.figure(
            "Halted",
            "Runs that stand still since a handler failed. Each waits for `longwatch resume`; see `longwatch halted`.",
            "short",
            house.NONE_IS_WELL,
        ),
        Ask('sum(longwatch_runs{status="halted"}) or vector(0)', "halted"),
    )
    made.add(
        house.figure(
            "Dead letters",
            "What could not be read or belongs to no run, still on the log. See `longwatch dead-letters list`.",
            "short",
            ((None, house.GOOD), (1, house.WARNING)),
        ),
        Ask("max(longwatch_dead_letters)", "letters"),
    )
    made.add(
        house.figure("Timers overdue", "Timers that are due and have not fired.", "short", house.NONE_IS_WELL),
        Ask("sum(longwatch_timers_overdue) or vector(0)", "timers"),
    )
    made.add(
        house.figure("Lag", "Age of the oldest entry on the log that was not folded.", "s", house.SECONDS_LATE),
        Ask("max(longwatch_log_lag_seconds)", "lag"),
    )
    made.add(
        house.figure("Waiting at limits", "Calls that wait until a limit or a provider lets them through.", "short"),
        Ask("sum(longwatch_gate_waiting) or vector(0)", "calls"),
    )
    made.add(
        house.figure(
            "Providers down",
            "Gates that are shut, since their provider is taken to be down.",
            "short",
            house.NONE_IS_WELL,
        ),
        Ask("count(longwatch_gate_open == 0) or vector(0)", "gates"),
    )
    made.add(
        house.rows(
            "Oldest run of each state",
            "How long the run that came first into a state, and is still there, has been there. "
            "`longwatch list --state STATE` names the runs, the newest first.",
            [
                Column("workflow", "Workflow"),
                Column("state", "State"),
                Column("Value", "Age", "s", ((None, house.GOOD), (2_592_000, house.BAD))),
            ],
        ).data_links([house.to_workflow()]),
        Ask("topk(20, max by (workflow, state) (longwatch_state_oldest_age_seconds))", empty="no run is alive"),
    )
    made.add(
        house.lines("Lag of each partition", "Age of the oldest entry that was not folded.", "s", house.SECONDS_LATE),
        Ask("topk(8, longwatch_log_partition_lag_seconds)", "partition {{partition}}"),
    )


def _what_fails(made: Board) -> None:
    made.row("What fails?")
    made.add(
        house.lines(
            "Failed attempts", "Attempts of steps that failed, each second. Most are tried again by themselves.", "ops"
        ).data_links([house.to_traces("Traces with errors", 'error="true"')]),
        Ask(
            'sum by (workflow, step) (rate(longwatch_step_attempts_total{result="failed"}[$__rate_interval]))',
            "{{workflow}} {{step}}",
            "no attempt has failed",
        ),
    )
    made.add(
        house.lines("Errors by kind", "The ten most frequent errors of steps, by class.", "ops"),
        Ask(
            "topk(10, sum by (error) (rate(longwatch_step_failures_total[$__rate_interval])))",
            "{{error}}",
            "no attempt has failed",
        ),
    )
    made.add(
        house.lines("Halts and dead letters", "What needs somebody, in the time between two points.", "short"),
        Ask(
            "sum by (workflow) (increase(longwatch_halts_total[$__rate_interval]))",
            "{{workflow}} halts",
            "no run was halted",
        ),
        Ask(
            "sum by (workflow) (increase(longwatch_dead_letters_total[$__rate_interval]))",
            "{{workflow}} dead letters",
            "there was no dead letter",
        ),
    )
    made.add(
        house.lines("Outcomes", "How runs end, each second.", "ops", stacked=True),
        Ask(
            "sum by (workflow, outcome) (rate(longwatch_runs_finished_total[$__rate_interval]))",
            "{{workflow}} {{outcome}}",
            "no run has finished yet",
        ),
    )


def _where_time_goes(made: Board) -> None:
    made.row("Where does the time go?")
    made.add(
        house.bars(
            "Time spent in states",
            "All time that runs spent in a state that they left in the time shown, the longest ten.",
            "s",
        ),
        Ask(
            "topk(10, sum by (workflow, state) (increase(longwatch_state_dwell_seconds_sum[$__range])))",
            "{{workflow}} {{state}}",
            "no run has left a state yet",
        ),
    )
    made.add(
        house.lines("Length of runs", "From beginning to end; a point is a run, and leads to its trace.", "s"),
        *(
            Ask(
                f"histogram_quantile({share}, sum by (le, workflow) "
                "(rate(longwatch_run_duration_seconds_bucket[$__rate_interval])))",
                f"{{{{workflow}}}} {words}",
                "no run has finished yet",
            )
            for share, words in ((0.5, "half"), (0.99, "99 %"))
        ),
    )
    made.add(
        house.lines("Slowest steps", "What 95 % of a step's attempts take at most; the slowest eight.", "s"),
        Ask(
            "topk(8, histogram_quantile(0.95, sum by (le, workflow, step) "
            "(rate(longwatch_step_duration_seconds_bucket[$__rate_interval]))))",
            "{{workflow}} {{step}}",
        ),
    )
    made.add(
        house.lines("Cost an hour", "What models cost, by workflow.", "currencyEUR"),
        Ask(
            "sum by (workflow) (rate(longwatch_llm_cost_euros_total[$__rate_interval])) * 3600",
            "{{workflow}}",
            "no workflow has asked a model of known price",
        ),
    )
