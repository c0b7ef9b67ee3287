"""Spans and records drawn by hypothesis."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from engine.core.entry import Asker, Used
from engine.core.ids import CallId, Position, RunId
from engine.core.record import (
    Asks,
    Dropped,
    Episode,
    Group,
    Halted,
    PendingCall,
    PendingTimer,
    Published,
    Record,
)
from observability.inner_span import InnerSpan, write_inner
from observability.span import Common, Draft, Link

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
"""Lone surrogates and NUL too."""
LONG = st.builds(lambda text, times: text * times, ANY_TEXT, st.sampled_from([1, 1, 1, 400]))
VALUES = st.one_of(
    ANY_TEXT,
    LONG,
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False),
    st.lists(st.one_of(ANY_TEXT, st.booleans(), st.integers(), st.floats(allow_nan=False)), max_size=4).map(tuple),
)
KEYS = st.text("abcxyz._äß", min_size=1, max_size=8)
TRACES = st.binary(min_size=16, max_size=16).map(bytes.hex)
IDS = st.binary(min_size=8, max_size=8).map(bytes.hex)


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """A span on its way, its attributes' names all different."""
    keys = draw(st.lists(KEYS, max_size=5, unique=True))
    many = draw(st.sampled_from([0, 0, 0, 120]))
    pairs = [(key, draw(VALUES)) for key in keys] + [(f"more.{number}", number) for number in range(many)]
    cut = draw(st.integers(0, len(pairs)))
    base = Common(tuple(pairs[: cut // 2]))
    return Draft(
        trace=draw(TRACES),
        id=draw(IDS),
        parent=draw(st.one_of(st.just(""), IDS)),
        name=draw(LONG),
        kind=draw(st.integers(1, 5)),
        start_ns=draw(st.integers(-5, 1 << 65)),
        end_ns=draw(st.integers(-5, 1 << 65)),
        common=Common(tuple(pairs[cut // 2 : cut]), base),
        attributes=tuple(pairs[cut:]),
        status=draw(st.integers(0, 2)),
        message=draw(LONG),
        links=tuple(draw(st.lists(st.builds(Link, TRACES, IDS, st.sampled_from(["run", "producer"])), max_size=3))),
        dropped=draw(st.integers(0, 3)),
    )


TEXT = st.text(max_size=5)
NUMBERS = st.integers(-3, 1 << 62)
TIMES = st.one_of(st.integers(1_700_000_000_000, 1_700_000_100_000), NUMBERS)
RAWS = st.sampled_from([b"", b"[]", b"null", b'{"a":1}', b'"x"', b"\xff", b"[[1]]", b"[", b'[["x","y"]]'])
INNER = st.lists(
    st.builds(
        InnerSpan,
        id=st.one_of(IDS, TEXT),
        parent=st.one_of(IDS, TEXT),
        name=TEXT,
        kind=NUMBERS,
        start=NUMBERS,
        end=NUMBERS,
        status=NUMBERS,
        message=TEXT,
        attributes=st.dictionaries(TEXT, st.one_of(TEXT, NUMBERS, st.booleans()), max_size=3),
        scope=TEXT,
        dropped=NUMBERS,
    ),
    max_size=3,
).map(write_inner)
CAUSES = st.sampled_from(["event", "result", "failure", "timer", "order", "kept", "asked", "answer", "question"])
EPISODES = st.builds(
    Episode,
    seq=NUMBERS,
    at=TIMES,
    cause=CAUSES,
    name=TEXT,
    id=TEXT,
    source=TEXT,
    state=TEXT,
    visit=NUMBERS,
    traceparent=st.one_of(TEXT, st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
    inside=st.booleans(),
)
STATUSES = st.sampled_from(["running", "waiting", "halted", "finished"])
CALL_STATUSES = st.sampled_from(["running", "waiting", "queued", "failed", "asking", "asked", "reserving"])
RECORDS = st.builds(
    Record,
    workflow=TEXT,
    key=TEXT,
    run=TEXT.map(RunId),
    version=NUMBERS,
    seq=NUMBERS,
    at=TIMES,
    entry=TEXT.map(Position),
    cause=CAUSES,
    name=TEXT,
    id=st.one_of(TEXT, st.just("1.0"), st.just("1.0.budget")),
    source=TEXT,
    attempt=NUMBERS,
    took=NUMBERS,
    from_=TEXT,
    to=TEXT,
    visit=NUMBERS,
    status=STATUSES,
    wakes=NUMBERS,
    ignored=TEXT,
    error=TEXT,
    halted=st.one_of(st.none(), st.builds(Halted, TEXT, TEXT, TEXT)),
    calls=st.lists(
        st.builds(PendingCall, TEXT.map(CallId), TEXT, NUMBERS, NUMBERS, CALL_STATUSES, TEXT, NUMBERS), max_size=2
    ).map(tuple),
    asking=st.lists(st.builds(PendingCall, TEXT.map(CallId), TEXT, NUMBERS), max_size=2).map(tuple),
    inner=TEXT,
    used=st.one_of(st.none(), st.builds(Used, TEXT, TEXT, TEXT, NUMBERS, NUMBERS, cost=st.one_of(st.none(), NUMBERS))),
    asker=st.one_of(st.none(), st.builds(Asker, TEXT, TEXT, TEXT.map(RunId))),
    asks=st.lists(st.builds(Asks, TEXT), max_size=2).map(tuple),
    timers=st.lists(st.builds(PendingTimer, TEXT, NUMBERS), max_size=2).map(tuple),
    published=st.lists(st.builds(Published, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    fields=st.dictionaries(TEXT, TEXT, max_size=2),
    traceparent=TEXT,
    episode=st.one_of(st.none(), EPISODES),
    ends=st.booleans(),
    began=NUMBERS,
    left=st.lists(st.builds(Group, TEXT, NUMBERS, NUMBERS), max_size=2).map(tuple),
    kind=st.sampled_from(["", "once", "model", "tool", "progress"]),
    started=TIMES,
    spans=st.one_of(RAWS, INNER).map(msgspec.Raw),
    late=NUMBERS,
    dropped=st.lists(st.builds(Dropped, TEXT.map(CallId), TEXT, NUMBERS, NUMBERS), max_size=2).map(tuple),
    content=RAWS.map(msgspec.Raw),
)
