"""What holds of every run's records about episodes and visits, whatever happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from engine.core.record import Record
from engine.core.trace import span_id, traceparent


def check_episodes(records: Sequence[Record], *, lasts: bool) -> None:
    """Of all records of a run; `lasts`: an episode goes on at the end of them."""
    episodes = [r.episode for r in records]
    found = [list(group) for _, group in groupby(records, key=lambda r: r.episode)]
    names = [e.seq for group in found if (e := group[0].episode)]
    assert None not in episodes
    assert len(set(names)) == len(names)  # so each stands in one piece
    for group in found:
        check_episode(group)
    assert all(group[-1].ends for group in found[:-1])
    assert found[-1][-1].ends != lasts


def check_episode(group: Sequence[Record]) -> None:
    """It says what its first record does; only the last ends it, and a halt does."""
    first, episode = group[0], group[0].episode
    assert episode is not None
    told = (first.seq, first.at, first.cause, first.name, first.id, first.source, first.from_)
    assert told == (episode.seq, episode.at, episode.cause, episode.name, episode.id, episode.source, episode.state)
    assert not any(r.ends for r in group[:-1])
    assert all(r.ends for r in group if r.halted is not None)


def check_visits(records: Sequence[Record]) -> None:
    """Each visit is left once at most, and says when it was entered; a run that is over has left all but its end."""
    left = [(g, r) for r in records for g in r.left]
    assert len({(g.name, g.visit) for g, _ in left}) == len(left)
    entered = {r.visit: r.since for r in records if r.visit}
    assert all(entered[g.visit] == g.entered for g, _ in left if g.visit in entered)
    assert all(r.left[0].name == r.from_ for r in records if r.left and r.from_ != r.to)
    ends = [r for r in records if r.began]
    assert len(ends) <= 1
    if ends:
        visits = {r.visit for r in records if r.visit} - {ends[0].visit}
        assert visits <= {g.visit for g, _ in left}


def check_spans(records: Sequence[Record]) -> None:
    """No two spans of a run have one id, but for an attempt that halted its run and was applied again."""
    spans = [span for r in records for span in spans_of(r)]
    assert len(set(spans)) == len(spans)


def spans_of(record: Record) -> list[str]:
    """The ids of what is exported of a record."""
    run, found = record.run, [span_id("transition", record.run, record.seq)]
    if record.cause in ("result", "failure", "asked") and not record.ignored and record.halted is None:
        again = ["again"] if record.cause == "result" and record.again else []
        found += [span_id("attempt", run, record.id, record.attempt, *again)] if "." in record.id else []
    if record.cause == "kept" and record.kind != "progress" and not record.ignored:
        found.append(span_id("kept", run, record.id, record.inner))
    if record.ends and record.episode is not None:
        found.append(span_id("episode", run, record.episode.seq))
    found += [span_id("publish", each.id) for each in record.published]
    found += [span_id("visit", run, g.visit, g.name) for g in record.left]
    return found


def parent_of(trace: str, kind: str, *parts: str | int) -> str:
    """The `traceparent` of a span."""
    return traceparent(trace, span_id(kind, *parts))
