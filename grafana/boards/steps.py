"""*Steps and models*: which step is slow, which fails, what models take and cost, who waits for what."""

from __future__ import annotations

from grafana import house
from grafana.house import Ask, Board, Column
from grafana.pages import STEPS

_OF = 'workflow=~"$workflow"'
_NO_FAILURE = "no attempt has failed"
_NO_MODEL = "no workflow has asked a model"
_NO_LIMIT = "no model or step of the application has a limit, and no provider was down"
_SHARE_STEPS: house.Steps = ((None, house.GOOD), (0.1, house.WARNING), (0.5, house.BAD))


def board() -> Board:
    made = Board(
        STEPS,
        "Steps and models",
        "Steps by latency and errors; models by calls, tokens and cost; budgets, limits, and what crashes repeated.",
        [house.workflows(several=True)],
    )
    _slow(made)
    _failing(made)
    _models(made)
    _waiting(made)
    _repeated(made)
    return made


def _slow(made: Board) -> None:
    made.row("Which step is slow?")
    for share, words in ((0.5, "half of the attempts"), (0.95, "95 % of the attempts")):
        made.add(
            house.lines(
                f"Duration of {words}",
                f"What {words} of a step take at most, in seconds of the wall. A point is an attempt and leads to it.",
                "s",
            ),
            Ask(
                f"histogram_quantile({share}, sum by (le, workflow, step) "
                f"(rate(longwatch_step_duration_seconds_bucket{{{_OF}}}[$__rate_interval])))",
                "{{workflow}} {{step}}",
            ),
        )
    made.add(
        house.heat("Durations of attempts", "All attempts by how long they took; a point leads to its trace.", "s"),
        Ask(f"sum by (le) (increase(longwatch_step_duration_seconds_bucket{{{_OF}}}[$__rate_interval]))", "{{le}}"),
    )
    made.add(
        house.lines("Attempts", "Attempts that ended, each second.", "ops"),
        Ask(
            f"sum by (workflow, step) (rate(longwatch_step_attempts_total{{{_OF}}}[$__rate_interval]))",
            "{{workflow}} {{step}}",
        ),
    )


def _failing(made: Board) -> None:
    made.row("Which step fails, and why?")
    failed = (
        f'sum by (workflow, step) (rate(longwatch_step_attempts_total{{{_OF}, result="failed"}}[$__rate_interval]))'
    )
    every = f"sum by (workflow, step) (rate(longwatch_step_attempts_total{{{_OF}}}[$__rate_interval]))"
    made.add(
        house.lines(
            "Share of attempts that fail",
            "Of a step's attempts. A step whose provider is away fails nearly always.",
            "percentunit",
            _SHARE_STEPS,
        ).data_links([house.to_traces("Traces with errors", 'error="true"')]),
        Ask(f"{failed} / {every}", "{{workflow}} {{step}}", _NO_FAILURE),
    )
    made.add(
        house.rows(
            "Errors",
            "Attempts that failed in the time shown, by the class of their error.",
            [
                Column("workflow", "Workflow"),
                Column("step", "Step"),
                Column("error", "Error"),
                Column("Value", "Attempts", "short"),
            ],
        ).data_links([house.to_traces("Traces with errors", 'error="true" workflow.name="${__data.fields.Workflow}"')]),
        Ask(
            "sort_desc(sum by (workflow, step, error) "
            f"(increase(longwatch_step_failures_total{{{_OF}}}[$__range])) > 0)",
            empty=_NO_FAILURE,
        ),
    )
    made.add(
        house.lines("Answers that did not fit", "Answers of models that their schema refused, each second.", "ops"),
        Ask(
            f"sum by (step, model) (rate(longwatch_llm_invalid_answers_total{{{_OF}}}[$__rate_interval]))",
            "{{step}} {{model}}",
            "no model has given an answer that did not fit",
        ),
    )


def _models(made: Board) -> None:
    made.row("What do models take, and what do they cost?")
    made.add(
        house.lines("Calls of models", "Calls each second, by step and model.", "ops"),
        Ask(
            f"sum by (step, model) (rate(longwatch_llm_calls_total{{{_OF}}}[$__rate_interval]))",
            "{{step}} {{model}}",
            _NO_MODEL,
        ),
    )
    made.add(
        house.lines("Tokens", "Tokens each second; cached ones are part of the input.", "short", stacked=True),
        Ask(
            f"sum by (model, direction) (rate(longwatch_llm_tokens_total{{{_OF}}}[$__rate_interval]))",
            "{{model}} {{direction}}",
            _NO_MODEL,
        ),
    )
    made.add(
        house.lines(
            "Cost an hour", "In euros, at the prices that the models had when they were called.", "currencyEUR"
        ),
        Ask(
            f"sum by (workflow, model) (rate(longwatch_llm_cost_euros_total{{{_OF}}}[$__rate_interval])) * 3600",
            "{{workflow}} {{model}}",
            _NO_MODEL,
        ),
    )
    made.add(
        house.bars("Cost", "In the time shown, by workflow and model.", "currencyEUR", width=house.QUARTER),
        Ask(
            f"sort_desc(sum by (workflow, model) (increase(longwatch_llm_cost_euros_total{{{_OF}}}[$__range])))",
            "{{workflow}} {{model}}",
            _NO_MODEL,
        ),
    )
    made.add(
        house.figure(
            "Calls of unknown price",
            "They are in no sum: give the model a price.",
            "short",
            ((None, house.GOOD), (1, house.WARNING)),
            width=house.QUARTER,
            tall=True,
        ),
        Ask(f"sum(increase(longwatch_llm_unpriced_calls_total{{{_OF}}}[$__range])) or vector(0)", "calls"),
    )


def _waiting(made: Board) -> None:
    made.row("Who waits, for a limit or for money?")
    made.add(
        house.bars(
            "Budgets",
            "What is spent of each named budget. At 100 % calls wait in the inbox `budgets`.",
            "percentunit",
            ((None, house.GOOD), (0.8, house.WARNING), (0.9, house.BAD)),
            width=house.THIRD,
        ),
        Ask("max by (budget) (longwatch_budget_used_ratio)", "{{budget}}", "the application has no named budget"),
    )
    made.add(
        house.lines(
            "Calls that wait",
            "At each gate: for a place, for the minute's rest, or a provider.",
            "short",
            width=house.THIRD,
        ),
        Ask("sum by (gate) (longwatch_gate_waiting)", "{{gate}}", _NO_LIMIT),
    )
    made.add(
        house.lines(
            "Gates",
            "1: open; 0: shut, since the provider is taken to be down. `longwatch status` says why and until when.",
            "short",
            ((None, house.BAD), (1, house.GOOD)),
            width=house.THIRD,
        ),
        Ask("min by (gate) (longwatch_gate_open)", "{{gate}}", _NO_LIMIT),
    )


def _repeated(made: Board) -> None:
    made.row("What did crashes repeat?")
    made.add(
        house.lines(
            "Attempts begun and not recorded",
            "Attempts that a crash swallowed and those under way: begun, less those whose result is on the log.",
            "short",
        ),
        Ask(
            f"sum by (workflow) (longwatch_attempts_started_total{{{_OF}}}) "
            f"- sum by (workflow) (longwatch_attempts_recorded_total{{{_OF}}})",
            "{{workflow}}",
        ),
    )
    made.add(
        house.lines("Parts done twice", "Answers and calls of long steps that a crash had done again.", "short"),
        Ask(
            f"sum by (workflow, step) (increase(longwatch_parts_repeated_total{{{_OF}}}[$__rate_interval]))",
            "{{workflow}} {{step}}",
            "no crash met a long step",
        ),
    )
