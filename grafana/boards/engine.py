"""*Engine*: does it move, could it come back, what holds it up, is the log safe, is what is shown up to date."""

from __future__ import annotations

from grafana import house
from grafana.house import Ask, Board, Column
from grafana.pages import ENGINE

_NO_EXPORTER = "no collector is set, so no exporter runs"
_NO_REDIS = "comes from redis_exporter beside a Redis of one's own (deploy/compose.yaml); an embedded one has none"
_NO_FLINK = "Flink's own figures, when Prometheus scrapes its reporter"
_UP: house.Steps = ((None, house.BAD), (1, house.GOOD))


def board() -> Board:
    made = Board(
        ENGINE, "Engine", "The machinery: lag, checkpoints, Flink, Redis, the exporter of traces, the run view."
    )
    _moves(made)
    _comes_back(made)
    _holds_up(made)
    _log_is_safe(made)
    _up_to_date(made)
    return made


def _moves(made: Board) -> None:
    made.row("Does it move?")
    made.add(
        house.sign("Engine", "Whether an engine has the log's lease and its job works."),
        Ask("min(longwatch_engine_up)", "up"),
    )
    made.add(
        house.figure("Restarts", "Times the driver was started again in the time shown.", "short", house.NONE_IS_WELL),
        Ask("sum(increase(longwatch_engine_restarts_total[$__range])) or vector(0)", "restarts"),
    )
    made.add(
        house.rows(
            "Version", "What runs.", [Column("version", "Version"), Column("Value", "Processes")], width=house.THIRD
        ),
        Ask("count by (version) (longwatch_build_info)"),
    )
    made.add(
        house.lines(
            "Events and attempts",
            "What the engine folds, each second; flat at 0 under lag: it stands.",
            "ops",
            width=house.THIRD,
        ),
        Ask("sum(rate(longwatch_events_total[$__rate_interval])) or vector(0)", "events"),
        Ask("sum(rate(longwatch_attempts_recorded_total[$__rate_interval])) or vector(0)", "attempts"),
    )
    made.add(
        house.lines("Lag of the log", "Age of the oldest entry that was not folded.", "s", house.SECONDS_LATE),
        Ask("max(longwatch_log_lag_seconds)", "lag"),
    )
    made.add(
        house.lines(
            "Lag of each partition",
            "One that lags alone holds one slow or hanging run; all together mean that the engine stands.",
            "s",
            house.SECONDS_LATE,
        ),
        Ask("longwatch_log_partition_lag_seconds", "{{partition}}"),
    )


def _comes_back(made: Board) -> None:
    made.row("Could it come back, and how much would it repeat?")
    made.add(
        house.lines(
            "Age of the newest checkpoint",
            "A restart folds again what came since then. Nothing is lost, and recorded steps are not done again.",
            "s",
            ((None, house.GOOD), (60, house.WARNING), (300, house.BAD)),
            width=house.THIRD,
        ),
        Ask("max(longwatch_checkpoint_age_seconds)", "age"),
    )
    made.add(
        house.lines("Checkpoints that failed", "In the time between two points.", "short", width=house.THIRD),
        Ask("sum(increase(longwatch_checkpoints_failed_total[$__rate_interval]))", "failed"),
    )
    made.add(
        house.lines("Length of checkpoints", "How long the last one took, by Flink.", "ms", width=house.THIRD),
        Ask("max(flink_jobmanager_job_lastCheckpointDuration)", "last", _NO_FLINK),
    )
    made.add(
        house.lines("Size of checkpoints", "State of all runs, and what the last checkpoint had to write.", "bytes"),
        Ask("max(flink_jobmanager_job_lastCheckpointFullSize)", "whole", _NO_FLINK),
        Ask("max(flink_jobmanager_job_lastCheckpointSize)", "written", _NO_FLINK),
    )
    made.add(
        house.lines("Restarts inside Flink", "Of the job since its submission.", "short"),
        Ask("max(flink_jobmanager_job_numRestarts)", "restarts", _NO_FLINK),
    )


def _holds_up(made: Board) -> None:
    made.row("What holds it up?")
    made.add(
        house.lines(
            "Back-pressure",
            "Part of each second that a task could not hand on what it had, since the next one is too slow.",
            "ms",
            ((None, house.GOOD), (500, house.WARNING), (900, house.BAD)),
        ),
        Ask("max by (task_name) (flink_taskmanager_job_task_backPressuredTimeMsPerSecond)", "{{task_name}}", _NO_FLINK),
    )
    made.add(
        house.lines(
            "Busy",
            "Part of each second that a task worked. The partition engine counts as busy while it waits, too.",
            "ms",
        ),
        Ask("max by (task_name) (flink_taskmanager_job_task_busyTimeMsPerSecond)", "{{task_name}}", _NO_FLINK),
    )
    made.add(
        house.lines("Java's heap", "In use, and the most that there may be.", "bytes"),
        Ask("max(flink_taskmanager_Status_JVM_Memory_Heap_Used)", "used", _NO_FLINK),
        Ask("max(flink_taskmanager_Status_JVM_Memory_Heap_Max)", "at most", _NO_FLINK),
    )
    made.add(
        house.lines("Java's processor", "Load by the JVM, of 1.", "percentunit"),
        Ask("max(flink_taskmanager_Status_JVM_CPU_Load)", "load", _NO_FLINK),
    )


def _log_is_safe(made: Board) -> None:
    made.row("Is the log safe?")
    made.add(
        house.lines("Redis's memory", "In use, and where it refuses to write on.", "bytes", width=house.THIRD),
        Ask("redis_memory_used_bytes", "used", _NO_REDIS),
        Ask("redis_memory_max_bytes > 0", "at most", _NO_REDIS),
    )
    made.add(
        house.lines(
            "Last write to disk",
            "1: Redis's append-only file takes writes; 0: the last one failed, nothing more is acknowledged.",
            "short",
            _UP,
            width=house.THIRD,
        ),
        Ask("redis_aof_last_write_status", "append-only file", _NO_REDIS),
    )
    made.add(
        house.lines("Redis's commands", "Each second.", "ops", width=house.THIRD),
        Ask("rate(redis_commands_processed_total[$__rate_interval])", "commands", _NO_REDIS),
    )


def _up_to_date(made: Board) -> None:
    made.row("Is what I see up to date?")
    made.add(
        house.sign("Exporter", "Whether the exporter of traces runs."),
        Ask("min(longwatch_exporter_up)", "up", _NO_EXPORTER),
    )
    made.add(
        house.figure("Lag of the run view", "What `longwatch list` and `show` are behind.", "s", house.SECONDS_LATE),
        Ask("max(longwatch_view_lag_seconds)", "lag"),
    )
    made.add(
        house.lines(
            "Lag of the exporter",
            "Age of the oldest record whose spans were not sent. They are sent later; nothing is lost.",
            "s",
            ((None, house.GOOD), (60, house.WARNING), (300, house.BAD)),
            width=house.THIRD,
        ),
        Ask("max(longwatch_exporter_lag_seconds)", "lag", _NO_EXPORTER),
    )
    made.add(
        house.lines("Records to export", "Records whose spans were not sent.", "short", width=house.THIRD),
        Ask("max(longwatch_exporter_lag_records)", "records", _NO_EXPORTER),
    )
    made.add(
        house.lines("Spans", "Sent, and refused by the collector, each second.", "ops"),
        Ask("sum by (result) (rate(longwatch_exporter_spans_total[$__rate_interval]))", "{{result}}", _NO_EXPORTER),
    )
    made.add(
        house.lines("Failures of the exporter", "Sendings that failed and were tried again, by reason.", "ops"),
        Ask(
            "sum by (reason) (rate(longwatch_exporter_failures_total[$__rate_interval]))",
            "{{reason}}",
            "the collector has taken everything at once",
        ),
    )
