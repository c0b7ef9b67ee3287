"""Every metric by name: its kind, its labels, what it says. Dashboards, alerts and `docs/metrics.md` stand on these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from observability.buckets import LATE, LONG, STEP

if TYPE_CHECKING:
    from observability.buckets import Buckets

Kind = Literal["counter", "gauge", "histogram"]

MOST_VALUES: Final = 100
"""Of a label whose values come from outside or from code that names things freely; more of them are `OTHER`."""
OTHER: Final = "other"


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric. Counters and histograms are functions of the journal, unless `is_told` says that a process tells."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    buckets: Buckets | None = None
    scale: int = 1
    """What a stored number is divided by to be shown."""
    is_told: bool = False


def _counter(name: str, labels: str, words: str, *, scale: int = 1, is_told: bool = False) -> Metric:
    return Metric(name, "counter", tuple(labels.split()), words, scale=scale, is_told=is_told)


def _gauge(name: str, labels: str, words: str) -> Metric:
    return Metric(name, "gauge", tuple(labels.split()), words)


def _histogram(name: str, labels: str, words: str, buckets: Buckets) -> Metric:
    return Metric(name, "histogram", tuple(labels.split()), words, buckets, buckets.unit)


RUNS_STARTED: Final = _counter("longwatch_runs_started_total", "workflow", "Runs that began.")
RUNS_FINISHED: Final = _counter(
    "longwatch_runs_finished_total",
    "workflow outcome",
    "Runs that ended, by the final state, or `cancelled`, or `left out` before they had a state.",
)
RUN_DURATION: Final = _histogram(
    "longwatch_run_duration_seconds", "workflow", "From a run's beginning to its end, in log time.", LONG
)
RUNS: Final = _gauge("longwatch_runs", "workflow state status", "Runs that there are, as the run view has them.")
OLDEST_AGE: Final = _gauge(
    "longwatch_state_oldest_age_seconds",
    "workflow state",
    "How long the run has been in a state that entered it first, of those that are not over, in log time.",
)
STATE_ENTERED: Final = _counter("longwatch_state_entered_total", "workflow state", "Times that a state was entered.")
STATE_DWELL: Final = _histogram(
    "longwatch_state_dwell_seconds", "workflow state", "How long a state lasted that was left, in log time.", LONG
)
TIMERS_FIRED: Final = _counter("longwatch_timers_fired_total", "workflow timer", "Timers that fired.")
TIMER_LATE: Final = _histogram(
    "longwatch_timer_late_seconds", "workflow", "How long after it was due a timer fired, in log time.", LATE
)
TIMERS_OVERDUE: Final = _gauge(
    "longwatch_timers_overdue", "workflow", "Runs whose next timer has been due for more than a minute of the wall."
)
EVENTS: Final = _counter(
    "longwatch_events_total",
    "workflow type taken",
    "Events that came to a run: taken, or not (repeats, late ones, ones that the state does not know).",
)
EVENTS_PUBLISHED: Final = _counter("longwatch_events_published_total", "workflow type", "Events that runs published.")
STEP_ATTEMPTS: Final = _counter(
    "longwatch_step_attempts_total", "workflow step result", "Attempts of steps that answered (`ok`) or `failed`."
)
STEP_FAILURES: Final = _counter(
    "longwatch_step_failures_total", "workflow step error", "Attempts that failed, by the class of the error."
)
STEP_DURATION: Final = _histogram(
    "longwatch_step_duration_seconds", "workflow step", "How long attempts took, in wall time.", STEP
)
ATTEMPTS_STARTED: Final = _counter("longwatch_attempts_started_total", "workflow", "Attempts that the log asked for.")
ATTEMPTS_RECORDED: Final = _counter(
    "longwatch_attempts_recorded_total",
    "workflow",
    "Attempts that came back to the log. What is missing runs, was given up, or ran in an engine that died.",
)
PARTS_REPEATED: Final = _counter(
    "longwatch_parts_repeated_total", "workflow step", "Parts of calls that an engine that died may have begun before."
)
LLM_CALLS: Final = _counter("longwatch_llm_calls_total", "workflow step model", "Calls of language models.")
LLM_TOKENS: Final = _counter(
    "longwatch_llm_tokens_total",
    "workflow model direction",
    "Tokens as the provider counts them; `cached` is part of `input`, `reasoning` of `output`.",
)
LLM_COST: Final = _counter(
    "longwatch_llm_cost_euros_total", "workflow model", "What model calls cost whose price is known.", scale=1_000_000
)
LLM_UNPRICED: Final = _counter(
    "longwatch_llm_unpriced_calls_total", "workflow model", "Model calls whose price is not known."
)
LLM_INVALID: Final = _counter(
    "longwatch_llm_invalid_answers_total",
    "workflow step model",
    "Attempts that failed since what the model answered was no answer (`InvalidAnswer`, `EmptyAnswer`, ...).",
)
BUDGET_USED: Final = _gauge(
    "longwatch_budget_used_ratio", "budget", "Spent and reserved of a named budget, of what it may have: 1 is all."
)
HALTS: Final = _counter("longwatch_halts_total", "workflow", "Times that a run halted.")
DEAD_LETTERS_TOTAL: Final = _counter("longwatch_dead_letters_total", "workflow", "Entries that became dead letters.")
DEAD_LETTERS: Final = _gauge("longwatch_dead_letters", "", "Dead letters that the log holds.")
LOG_LAG: Final = _gauge(
    "longwatch_log_lag_seconds", "", "Age of the oldest entry that was not folded, in wall time; 0: none waits."
)
PARTITION_LAG: Final = _gauge("longwatch_log_partition_lag_seconds", "partition", "The same of each partition.")
ENGINE_UP: Final = _gauge("longwatch_engine_up", "", "1 while an engine runs and its job works, else 0.")
ENGINE_RESTARTS: Final = _counter(
    "longwatch_engine_restarts_total", "", "Starts of the engine after it had died.", is_told=True
)
CHECKPOINT_AGE: Final = _gauge("longwatch_checkpoint_age_seconds", "", "Since the newest checkpoint was triggered.")
CHECKPOINTS_FAILED: Final = _counter("longwatch_checkpoints_failed_total", "", "Checkpoints that failed.", is_told=True)
GATE_OPEN: Final = _gauge("longwatch_gate_open", "gate", "0 while a provider is taken to be down, else 1.")
GATE_WAITING: Final = _gauge("longwatch_gate_waiting", "gate", "Calls that wait to pass.")
EXPORTER_UP: Final = _gauge(
    "longwatch_exporter_up", "", "1 while the trace exporter works, 0 when it should and does not."
)
EXPORTER_LAG: Final = _gauge("longwatch_exporter_lag_seconds", "", "How far the trace exporter is behind the journal.")
EXPORTER_LAG_RECORDS: Final = _gauge("longwatch_exporter_lag_records", "", "The same in records.")
EXPORTER_SPANS: Final = _counter(
    "longwatch_exporter_spans_total", "result", "Spans that the collector took (`sent`) or `refused`.", is_told=True
)
EXPORTER_FAILURES: Final = _counter(
    "longwatch_exporter_failures_total",
    "reason",
    "Requests to the collector that failed and were made again.",
    is_told=True,
)
VIEW_LAG: Final = _gauge("longwatch_view_lag_seconds", "", "How far the run view is behind the journal, in wall time.")
BUILD_INFO: Final = _gauge("longwatch_build_info", "version", "1, with the version of the engine.")

CATALOGUE: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order in which they stand above."""
