"""Counters and histograms as a fold over the journal: exact after any crash, and the same when made again.

`take` looks at one record and at nothing else but what it counted before, and what it counts adds up in any order; so
the numbers are a function of the set of records, whichever partition is read first. They are stored together with the
place up to which each partition was counted, in one file that is replaced whole: whoever was killed goes on from there,
loses nothing and counts nothing twice.

An application that halts its run changes nothing and is made again by `resume`, and what comes to a halted run or is
kept for a later state is applied when its time has come: each is counted where it is done with, once.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from engine.core.entry import Used
from engine.core.record import DeadLetter, Episode, Group, Record
from engine.core.spending import RESERVE
from engine.core.telling import HELD
from engine.core.trace import episode_trace, run_trace
from observability import metric as m
from observability.buckets import Exemplar, Histogram
from observability.metric import CATALOGUE, MOST_VALUES, OTHER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from observability.metric import Metric

FORMAT: Final = 1
"""Of what counts as what: another number, and all is counted again from the journal's beginning."""

LONGEST: Final = 100
"""Letters of a label's value; the rest is cut off."""

EXEMPLAR_MS: Final = 1_000
"""An exemplar is replaced by one of a record that is so much younger (log ms), not by each: hashing ids takes time."""

LATER: Final = "kept for a later state"
"""Begins the words of a record that keeps an event: it is taken by another record."""

WRONG_ANSWERS: Final = frozenset({"InvalidAnswer", "EmptyAnswer", "AnswerInvalid", "AnswerTooLong", "AnswerCutShort"})
"""Errors of steps that a model's answer is to blame for."""

Labels = tuple[str, ...]


class _Type(Struct):
    type: str


class _Error(Struct):
    error: str = ""


class Seen(Struct, gc=False):
    """What is looked at of a `Record`; msgspec skips the rest, which takes half of the time."""

    workflow: str
    run: str
    version: int
    seq: int
    at: int
    cause: str
    name: str = ""
    id: str = ""
    from_: str = msgspec.field(default="", name="from")
    to: str = ""
    since: int = 0
    ignored: str = ""
    halted: _Error | None = None
    error: str = ""
    attempt: int = 0
    took: int = 0
    started: int = 0
    starts: int = 0
    late: int = 0
    began: int = 0
    kind: str = ""
    again: bool = False
    used: Used | None = None
    left: tuple[Group, ...] = ()
    published: tuple[_Type, ...] = ()
    episode: Episode | None = None


class SeenLetter(Struct, gc=False):
    """What is looked at of a `DeadLetter`."""

    workflow: str = ""


read_seen = msgspec.json.Decoder(Seen).decode
read_letter = msgspec.json.Decoder(SeenLetter).decode


class Tally:
    """All that is counted, and up to where. Not to be used by two threads at once."""

    def __init__(self, log_id: str = "") -> None:
        self.log_id = log_id
        self.counters: dict[Metric, defaultdict[Labels, int]] = {}
        self.histograms: dict[Metric, dict[Labels, Histogram]] = {}
        for metric in counted():
            if metric.kind == "counter":
                self.counters[metric] = defaultdict(int)
            else:
                self.histograms[metric] = {}
        self.places: dict[int, str] = {}
        """The id of the last record that was counted, by partition."""
        self.letters: dict[int, str] = {}
        """Of the last dead letter."""
        self.records = 0
        self._known: dict[str, dict[str, str]] = {}
        self._models: dict[tuple[str, str], str] = {}
        """The model of a step: a failure does not say which it was."""
        self._by_cause: dict[str, Callable[[Record | Seen], None]] = {
            "asked": self._asked,
            "event": self._came,
            "failure": self._attempted,
            "kept": self._kept,
            "result": self._attempted,
            "timer": self._fired,
        }

    # -- what comes ----------------------------------------------------------------------------------------------

    def take(self, record: Record | Seen) -> None:
        """Count one record."""
        self.records += 1
        workflow = record.workflow
        if record.starts:
            self.counters[m.ATTEMPTS_STARTED][workflow,] += record.starts
        if record.seq == 1 and record.version:
            self.counters[m.RUNS_STARTED][workflow,] += 1
            # Prometheus sees no growth in a series that begins at one: these begin at nothing.
            self.counters[m.HALTS][workflow,] += 0
            self.counters[m.DEAD_LETTERS_TOTAL][self._bound("workflow", workflow),] += 0
        if record.ignored and (record.ignored == HELD or record.ignored.startswith(LATER)):
            return
        if record.halted is not None and not record.ignored:
            self.counters[m.HALTS][workflow,] += 1
            return
        self._moved(record)
        if (count := self._by_cause.get(record.cause)) is not None:
            count(record)
        for event in record.published:
            self.counters[m.EVENTS_PUBLISHED][workflow, self._bound("type", event.type)] += 1

    def take_letter(self, letter: DeadLetter | SeenLetter) -> None:
        """Count one dead letter."""
        self.counters[m.DEAD_LETTERS_TOTAL][self._bound("workflow", letter.workflow),] += 1

    def _moved(self, record: Record | Seen) -> None:
        workflow = record.workflow
        if record.to and record.to != record.from_ and record.since == record.at and not record.ignored:
            self.counters[m.STATE_ENTERED][workflow, record.to] += 1
        if record.left:  # the state stands first; superstates have no entries to set against
            state = record.left[0]
            self._observe(m.STATE_DWELL, (workflow, state.name), record.at - state.entered)
        if record.began:
            self.counters[m.RUNS_FINISHED][workflow, _outcome(record)] += 1
            self._observe(m.RUN_DURATION, (workflow,), record.at - record.began, record)

    def _came(self, record: Record | Seen) -> None:
        taken = "no" if record.ignored else "yes"
        self.counters[m.EVENTS][record.workflow, self._bound("type", record.name), taken] += 1

    def _asked(self, record: Record | Seen) -> None:
        if not record.ignored:
            self.counters[m.ATTEMPTS_RECORDED][record.workflow,] += 1

    def _attempted(self, record: Record | Seen) -> None:
        workflow, step = record.workflow, record.name
        if record.started:  # what another run answered was no attempt
            self.counters[m.ATTEMPTS_RECORDED][workflow,] += 1
        if record.ignored or not record.attempt or record.id.endswith(RESERVE):
            return
        failed = record.cause == "failure"
        self.counters[m.STEP_ATTEMPTS][workflow, step, "failed"] += failed
        self.counters[m.STEP_ATTEMPTS][workflow, step, "ok"] += not failed
        if record.took:
            self._observe(m.STEP_DURATION, (workflow, step), record.took, record)
        if not failed:
            return
        error = record.error.partition(":")[0]
        self.counters[m.STEP_FAILURES][workflow, step, self._bound("error", error)] += 1
        if error in WRONG_ANSWERS:
            self.counters[m.LLM_INVALID][workflow, step, self._models.get((workflow, step), "")] += 1

    def _kept(self, record: Record | Seen) -> None:
        workflow, step, used = record.workflow, record.name, record.used
        if record.again:
            self.counters[m.PARTS_REPEATED][workflow, step] += 1
        if used is None:
            return
        # What came too late was paid for all the same.
        model = self._models[workflow, step] = self._bound("model", used.model)
        self.counters[m.LLM_CALLS][workflow, step, model] += 1
        tokens = self.counters[m.LLM_TOKENS]
        tokens[workflow, model, "input"] += used.input
        tokens[workflow, model, "output"] += used.output
        tokens[workflow, model, "cached"] += used.cached
        tokens[workflow, model, "reasoning"] += used.thought
        if used.cost is None:
            self.counters[m.LLM_UNPRICED][workflow, model] += 1
        else:
            self.counters[m.LLM_COST][workflow, model] += used.cost

    def _fired(self, record: Record | Seen) -> None:
        if record.ignored or record.name.startswith("retry "):
            return
        self.counters[m.TIMERS_FIRED][record.workflow, self._bound("timer", record.name)] += 1
        self._observe(m.TIMER_LATE, (record.workflow,), record.late)

    # -- how it is counted ---------------------------------------------------------------------------------------

    def _observe(self, metric: Metric, labels: Labels, value: int, record: Record | Seen | None = None) -> None:
        found = self.histograms[metric]
        histogram = found.get(labels)
        if histogram is None:
            assert metric.buckets is not None  # noqa: S101 - it is a histogram
            histogram = found[labels] = Histogram(metric.buckets.bounds)
        bucket = histogram.add(max(0, value))
        if record is not None:
            before = histogram.exemplars.get(bucket)
            if before is None or record.at - before.at >= EXEMPLAR_MS:
                histogram.exemplars[bucket] = Exemplar(value, record.at, _trace(metric, record))

    def _bound(self, label: str, value: str) -> str:
        """The value as the label shows it: the first hundred by their names."""
        known = self._known.get(label)
        if known is None:
            known = self._known[label] = {}
        shown = known.get(value)
        if shown is not None:
            return shown
        if len(known) >= MOST_VALUES:
            return OTHER
        known[value] = shown = value[:LONGEST]
        return shown

    # -- the file ------------------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Write all in one piece: the file holds the old numbers or the new ones."""
        aside = path.with_name(path.name + ".new")
        aside.write_bytes(self.dump())
        aside.replace(path)

    def dump(self) -> bytes:
        return msgspec.json.encode(
            Stored(
                form=form(),
                log_id=self.log_id,
                places=self.places,
                letters=self.letters,
                records=self.records,
                counters={each.name: list(values.items()) for each, values in self.counters.items() if values},
                histograms={
                    each.name: [
                        (labels, one.counts, one.sum, [(b, e.value, e.at, e.trace) for b, e in one.exemplars.items()])
                        for labels, one in found.items()
                    ]
                    for each, found in self.histograms.items()
                    if found
                },
                known={label: list(values.items()) for label, values in self._known.items()},
                models=[(*step, model) for step, model in self._models.items()],
            )
        )

    @classmethod
    def read(cls, path: Path, log_id: str) -> Tally:
        """What was stored of this log; an empty one if there is none, or if it was counted by other rules."""
        tally = cls(log_id)
        with contextlib.suppress(OSError, msgspec.DecodeError):
            stored = msgspec.json.decode(path.read_bytes(), type=Stored)
            if stored.log_id == log_id and stored.form == form():
                tally._fill(stored)
        return tally

    def _fill(self, stored: Stored) -> None:
        self.places, self.letters, self.records = stored.places, stored.letters, stored.records
        for metric, values in self.counters.items():
            values.update(stored.counters.get(metric.name, ()))
        for metric, found in self.histograms.items():
            assert metric.buckets is not None  # noqa: S101 - it is a histogram
            for labels, counts, total, exemplars in stored.histograms.get(metric.name, ()):
                one = found[labels] = Histogram(metric.buckets.bounds)
                one.counts, one.sum = counts, total
                one.exemplars = {bucket: Exemplar(value, at, trace) for bucket, value, at, trace in exemplars}
        self._known = {label: dict(values) for label, values in stored.known.items()}
        self._models = {(workflow, step): model for workflow, step, model in stored.models}


class Stored(Struct, frozen=True):
    """The file."""

    form: str
    log_id: str
    places: dict[int, str]
    letters: dict[int, str]
    records: int
    counters: dict[str, list[tuple[Labels, int]]]
    histograms: dict[str, list[tuple[Labels, list[int], int, list[tuple[int, int, int, str]]]]]
    known: dict[str, list[tuple[str, str]]]
    models: list[tuple[str, str, str]]


def counted() -> list[Metric]:
    """The metrics that are folded from the journal."""
    return [metric for metric in CATALOGUE if metric.kind != "gauge" and not metric.is_told]


def form() -> str:
    """Tells one way of counting from another: another bucket, label or rule makes the old numbers worthless."""
    shape: list[Any] = [(each.name, each.labels, each.buckets and each.buckets.seconds) for each in counted()]
    return hashlib.blake2b(repr((FORMAT, MOST_VALUES, shape)).encode(), digest_size=8).hexdigest()


def _outcome(record: Record | Seen) -> str:
    if record.cause == "order" and record.name == "cancel":
        return "cancelled"
    return record.to or "left out"


def _trace(metric: Metric, record: Record | Seen) -> str:
    """The trace that the value is seen in: a run's own, or that of what set the attempt off."""
    if metric is m.RUN_DURATION or record.episode is None:
        return run_trace(record.run)
    return episode_trace(record.run, record.episode)
