"""Records in, spans out: pure, and nothing is remembered from one record to the next.

So a crash, a replay, or an export of last month gives the same spans. Two traces:

- *Episode trace*: what one event, timer or order set off until the run rests again. Its root is made from the record
  at which the episode ends. An episode that another run of the log caused goes on with that one's trace.
- *Run trace*: days. Its root is made from the record that finishes the run, a visit's span from the record that leaves
  the state, and from the end of each episode one span `episode: ...` and, while the run waits, a marker without length
  that says for what.

Ids are hashed (`engine.core.trace.span_id`) from: ("episode", run, first seq) · ("event", run, seq) a further event ·
("transition", run, seq) · ("attempt", run, call, attempt) · ("kept", run, call, name) · ("publish", event id) ·
("ignored", run, seq) · ("again", run, seq) a result of an attempt that was given up · ("run", run) ·
("visit", run, visit, name) · ("during", run, first seq) · ("stay", run, seq).

Time is log time. Records of one millisecond are told apart by microseconds: the record's number in its episode there,
the visit's number in the run trace. What was measured on the wall's clock is mapped to log time and kept between the
beginning of the episode and the record, since two machines' clocks never agree.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from engine.core.steps import BUDGET
from engine.core.trace import episode_trace, parse_traceparent, run_trace, span_id
from observability import content, names
from observability.inner_span import read_inner
from observability.limits import whole
from observability.span import CLIENT, CONSUMER, ERROR, INTERNAL, OK, PRODUCER, UNSET, Common, Draft, Link
from observability.waits import until_of, waits_of

if TYPE_CHECKING:
    from engine.core.entry import Used
    from engine.core.record import Episode, Record
    from observability.span import Attributes, Span, Value

MS: Final = 1_000_000
US: Final = 1_000
LAST: Final = 999
_COMES_FROM_OUTSIDE: Final = ("event", "question", "answer")
_OF_ATTEMPTS: Final = ("result", "failure", "asked")
_RESERVATION: Final = ".budget"
_HELD: Final = "held: "
_SPAN_ID: Final = re.compile("(?!0{16})[0-9a-f]{16}")


class Clock(Protocol):
    """What a log's `Header` says of its time."""

    @property
    def origin(self) -> int: ...
    @property
    def lapse(self) -> float: ...


class Projection:
    """Makes the spans of one log's records."""

    def __init__(self, clock: Clock) -> None:
        self._origin = clock.origin
        self._more, self._less = clock.lapse.as_integer_ratio()

    def spans(self, record: Record) -> list[Span]:
        """The spans of a record as servers get them."""
        return [whole(draft) for draft in self.drafts(record)]

    def drafts(self, record: Record) -> list[Draft]:
        """The same, before bounds are applied and with what they have in common beside them: for an encoder."""
        episode = record.episode
        if episode is None:
            return []
        return _Making(self, record, episode).all()

    def log_ns(self, wall_us: int) -> int:
        """Log time of a moment on the wall's clock (microseconds), ns."""
        origin = self._origin * US
        return (origin + (wall_us - origin) * self._more // self._less) * US


class _Making:
    """The spans of one record."""

    __slots__ = (
        "_base",
        "_common",
        "_end",
        "_episode",
        "_of_episode",
        "_projection",
        "_record",
        "_root",
        "_run_trace",
        "_start",
        "_trace",
        "made",
    )

    def __init__(self, projection: Projection, record: Record, episode: Episode) -> None:
        self._projection, self._record, self._episode = projection, record, episode
        self._trace = episode_trace(record.run, episode)
        self._root = span_id("episode", record.run, episode.seq)
        self._run_trace = ""
        self._start = episode.at * MS
        # What an order takes up from before it, such as a timer that was due, stands behind the order.
        self._end = max(record.at, episode.at) * MS + min(max(record.seq - episode.seq, 0), LAST) * US
        self._base = Common(_base(record))
        state = (names.STATE, record.to or record.from_)
        caused = _event(episode.cause, episode.name, episode.id)
        self._common = self._of_episode = Common((state, *caused), self._base)
        if record.cause == "event" and record.seq != episode.seq:
            self._common = Common((state, *_event("event", record.name, record.id)), self._base)
        self.made: list[Draft] = []

    def all(self) -> list[Draft]:
        record = self._record
        self._entry()
        if record.from_ != record.to or (record.left and record.to and not record.ignored):
            self._transition()
        for published in record.published:
            self._publish(published.id, published.type, published.key)
        self._asked()
        for call in record.dropped:
            self._given_up(call.id, call.step, call.attempt, call.since)
        if record.left:
            self._visits()
        if record.ends:
            self._ended()
        if record.began:
            self._run_root()
        return self.made

    def _entry(self) -> None:
        """The span of the entry itself, where the root is not its span."""
        record = self._record
        if record.cause in _COMES_FROM_OUTSIDE:
            if not self._is_root() or (record.content and not record.ends):
                self._further()
        elif record.ignored:
            self._ignored()
        elif record.cause in _OF_ATTEMPTS:
            if record.traceparent:
                self._answered()
            else:
                self._attempt()
        elif record.cause == "kept":
            self._kept()

    # -- the episode trace -----------------------------------------------------------------------------------------

    def _add(
        self,
        id_: str,
        name: str,
        kind: int,
        start: int,
        end: int,
        attributes: Attributes = (),
        error: str = "",
        links: tuple[Link, ...] = (),
        parent: str = "",
    ) -> None:
        """A span of the episode trace; without a parent its root is."""
        status = ERROR if error else UNSET
        made = Draft(self._trace, id_, parent or self._root, name, kind, start, end, self._common, attributes)
        made.status, made.message, made.links = status, error, links
        self.made.append(made)

    def _times(self, start: int, took: int) -> tuple[int, int]:
        """Log time (ns) of what began at a wall time (ms) and took microseconds."""
        low, high = self._start, self._end
        if not start:
            return high, high
        projection = self._projection
        began = min(max(projection.log_ns(start * US), low), high)
        ended = min(max(projection.log_ns(start * US + took), began), high)
        return began, ended

    def _attempt(self) -> None:
        record = self._record
        if record.id.endswith(_RESERVATION):
            return
        id_ = span_id("attempt", record.run, record.id, record.attempt)
        late = span_id("again", record.run, record.seq) if record.again else ""
        start, end = self._times(record.started, record.took)
        name = record.name or "step"
        own = [*_call(record.name, record.id, record.attempt), (names.TOOK, record.took / US)]
        if record.kind == "agent":
            own += [(names.OPERATION, names.INVOKE_AGENT), (names.AGENT, name)]
            name = f"{names.INVOKE_AGENT} {name}"
        error = ""
        if record.cause == "failure":
            error = record.error or "failed"
            own.append((names.ERROR_TYPE, error.partition(":")[0]))
            if record.inner:
                own.append((names.PART, record.inner))
        elif record.cause == "asked":
            own.append((names.ASKS, record.inner))
        if late:
            own.append((names.AGAIN, True))
        own += content.of_result(record)
        self._add(late or id_, name, INTERNAL, start, end, tuple(own), error)
        self._inner(start, end, instead=late)

    def _answered(self) -> None:
        """Another run has answered: the attempt itself stands in the trace in which that was asked."""
        record = self._record
        if self._is_root() and not (record.error or record.content):
            return
        links, told = _producer(record.traceparent)
        asked = links[0] if links else None
        inside = asked is not None and asked.trace == self._trace
        own: tuple[tuple[str, Value], ...] = tuple(_call(record.name, record.id, record.attempt))
        name = names.of_cause(record.cause, record.name)
        id_ = span_id("event", record.run, record.seq)
        parent = asked.id if asked is not None and inside else ""
        shown = () if inside else links
        own += () if inside else told
        own += content.of_result(record)
        self._add(id_, name, CONSUMER, self._end, self._end, own, record.error, shown, parent)

    def _asked(self) -> None:
        """The attempts that ask another run, from now on; what that run does hangs on them."""
        for call in self._record.asking:
            id_ = span_id("attempt", self._record.run, call.id, call.attempt)
            own = tuple(_call(call.step, call.id, call.attempt))
            self._add(id_, call.step or "step", PRODUCER, self._end, self._end, own)

    def _kept(self) -> None:
        record = self._record
        if record.kind == "progress":
            return
        parent = "" if self._is_behind() else span_id("attempt", record.run, record.id, record.attempt)
        id_ = span_id("kept", record.run, record.id, record.inner)
        start, end = self._times(record.started, record.took)
        name, kind, own = _part(record)
        self._add(id_, name, kind, start, end, own, parent=parent)
        self._inner(start, end)

    def _is_behind(self) -> bool:
        """Whether the attempt that kept this was over before, perhaps in another episode."""
        call = self._record.id
        return any(each.id == call and each.status != "running" for each in self._record.calls)

    def _inner(self, start: int, end: int, instead: str = "") -> None:
        """What libraries made in it; with `instead` that span is the parent of those that hung on the attempt."""
        record = self._record
        if not record.spans:
            return
        spans, missing = read_inner(bytes(record.spans))
        around = self.made[-1] if self.made else None
        taken = {key for key, _ in self._common.pairs} | {names.LIBRARY}
        among = {span.id for span in spans} if instead else ()
        for span in spans:
            if not _is_id(span.id):
                continue
            parent = instead if instead and span.parent not in among else span.parent
            parent = parent if _is_id(parent) else self._root
            began = min(max(self._projection.log_ns(span.start // US), start), end)
            ended = min(max(self._projection.log_ns(span.end // US), began), end)
            own = tuple((key, _value(value)) for key, value in span.attributes.items() if key not in taken)
            kind = span.kind + 1 if INTERNAL <= span.kind + 1 <= CONSUMER else INTERNAL
            made = Draft(self._trace, span.id, parent, span.name, kind, began, ended, self._common)
            made.attributes = (*own, (names.LIBRARY, span.scope)) if span.scope else own
            made.status, made.message = (span.status if span.status in (OK, ERROR) else UNSET), span.message
            self.made.append(made)
        if missing and around is not None:
            around.attributes = (*around.attributes, (names.MISSING, missing))

    def _ignored(self) -> None:
        """An entry that changed nothing: the root says so of the first one, a span of its own of all others."""
        record = self._record
        if record.cause in ("order", "timer") and self._is_root():
            return
        held = record.ignored.startswith(_HELD)
        start, end = (self._end, self._end) if held else self._times(record.started, record.took)
        own: list[tuple[str, Value]] = [(names.IGNORED, record.ignored)]
        if record.cause == "kept":
            own += _part(record)[2]
        elif record.id:
            own += _call(record.name, record.id, record.attempt)
        name = f"{'held' if held else 'ignored'} {names.of_cause(record.cause, record.name)}"
        id_ = span_id("ignored", record.run, record.seq)
        self._add(id_, name, INTERNAL, start, end, tuple(own), record.error)
        if not held:
            self._inner(start, end, instead=id_)

    def _is_root(self) -> bool:
        return self._record.seq == self._episode.seq

    def _further(self) -> None:
        """An event that came while the episode lasted."""
        record = self._record
        links, told = _producer(record.traceparent)
        own: list[tuple[str, Value]] = [*_message(record.cause, record.name, record.id), (names.SOURCE, record.source)]
        own += told
        if record.ignored:
            own.append((names.IGNORED, record.ignored))
        if record.who:
            own.append((names.WHO, record.who))
        own += content.of_event(record)
        id_ = span_id("event", record.run, record.seq)
        self._add(id_, _root_name(record.cause, record.name), CONSUMER, self._end, self._end, tuple(own), "", links)

    def _transition(self) -> None:
        record = self._record
        own: Attributes = (
            (names.CAUSE, names.of_cause(record.cause, record.name)),
            (names.FROM, record.from_),
            (names.TO, record.to),
            (names.VISIT, record.visit),
        )
        if record.late:
            own = (*own, (names.LATE, record.late))
        id_ = span_id("transition", record.run, record.seq)
        name = f"transition {record.from_ or 'start'} -> {record.to or 'end'}"
        self._add(id_, name, INTERNAL, self._end, self._end, own)

    def _publish(self, id_: str, type_: str, key: str) -> None:
        own: Attributes = (
            (names.MESSAGING, names.SERVICE),
            (names.MESSAGING_NAME, names.PUBLISH),
            (names.MESSAGING_TYPE, names.SEND),
            (names.DESTINATION, type_),
            (names.MESSAGE_ID, id_),
            (names.TO_KEY, key),
        )
        self._add(span_id("publish", id_), f"{names.PUBLISH} {type_}", PRODUCER, self._end, self._end, own)

    def _given_up(self, id_: str, step: str, attempt: int, since: int, why: str = "given up") -> None:
        """An attempt whose end nobody waited for; what it kept hangs below it."""
        start = min(max(since * MS, self._start), self._end)
        own: Attributes = (*_call(step, id_, attempt), (names.IGNORED, why))
        self._add(span_id("attempt", self._record.run, id_, attempt), step or "step", INTERNAL, start, self._end, own)

    def _ended(self) -> None:
        """The root of the episode, what of it hangs on calls that go on, and its place in the run trace."""
        record, episode = self._record, self._episode
        broke = {asks.call for asks in record.asks if asks.name == BUDGET and asks.since >= episode.at}
        told = (record.id, record.attempt) if record.cause in _OF_ATTEMPTS else None
        for call in record.calls:
            if call.id in broke:
                self._given_up(call.id, call.step, call.attempt, record.at, "waits for its budget")
            elif call.status == "running" and (call.id, call.attempt) != told:
                self._given_up(call.id, call.step, call.attempt, episode.at, "goes on when the run is resumed")
        self._episode_root()
        self._in_run()

    def _episode_root(self) -> None:
        record, episode = self._record, self._episode
        inside = parse_traceparent(episode.traceparent) if episode.inside else None
        run = Link(self._runs(), span_id("run", record.run), "run")
        links, told = _producer("" if inside else episode.traceparent)
        own: list[tuple[str, Value]] = [
            *_message(episode.cause, episode.name, episode.id),
            (names.CAUSE, names.of_cause(episode.cause, episode.name)),
            (names.FROM, episode.state),
            (names.TO, record.to),
            (names.STATUS, record.status),
            (names.FIRST, episode.seq),
        ]
        if episode.source:
            own.append((names.SOURCE, episode.source))
        own += told
        own += _repeated((run,))
        if self._is_root():
            own += self._of_one_record()
        halted = record.halted
        if halted is not None:
            own += [(names.HALTED, halted.cause), (names.HALTED_AT, halted.where)]
        kind = CONSUMER if episode.cause in _COMES_FROM_OUTSIDE else INTERNAL
        made = Draft(
            self._trace,
            self._root,
            inside[1] if inside else "",
            _root_name(episode.cause, episode.name),
            kind,
            self._start,
            self._end + 1,
            self._of_episode,
            tuple(own),
        )
        made.links = (*links, run)
        if halted is not None:
            made.status, made.message = ERROR, halted.error
        self.made.append(made)

    def _of_one_record(self) -> list[tuple[str, Value]]:
        """What is known of the first entry of an episode that it also ends."""
        record = self._record
        own: list[tuple[str, Value]] = []
        if record.ignored:
            own.append((names.IGNORED, record.ignored))
        if record.who:
            own.append((names.WHO, record.who))
        if record.why and record.cause == "order":
            own.append((names.WHY, record.why))
        if record.late:
            own.append((names.LATE, record.late))
        if record.cause in _COMES_FROM_OUTSIDE:
            own += content.of_event(record)
        return own

    # -- the run trace ---------------------------------------------------------------------------------------------

    def _runs(self) -> str:
        self._run_trace = self._run_trace or run_trace(self._record.run)
        return self._run_trace

    def _in_runs(
        self, id_: str, parent: str, name: str, times: tuple[int, int], common: Common, own: Attributes
    ) -> Draft:
        made = Draft(self._runs(), id_, parent, name, INTERNAL, times[0], max(times), common, own)
        self.made.append(made)
        return made

    def _visits(self) -> None:
        """The state and the superstates that were left."""
        record = self._record
        run = record.run
        # A final state's own superstates are told as left as well: nobody has been in them, and nothing hangs on them.
        moved = record.left[0].visit != record.visit
        left = tuple([group for group in record.left if not (moved and group.visit == record.visit)])
        around = (*left, *record.within[:1])
        end = _visit_ns(record.at, record.visit)
        root = span_id("run", run)
        for index, visit in enumerate(left):
            outer = around[index + 1] if index + 1 < len(around) else None
            parent = span_id("visit", run, outer.visit, outer.name) if outer else root
            own: Attributes = (
                (names.STATE, visit.name),
                (names.VISIT, visit.visit),
                (names.LEFT_BY, names.of_cause(record.cause, record.name)),
                (names.TO, record.to),
            )
            id_ = span_id("visit", run, visit.visit, visit.name)
            times = _visit_ns(visit.entered, visit.visit), end
            self._in_runs(id_, parent, f"visit {visit.name}", times, self._base, own)

    def _in_run(self) -> None:
        """The episode as the run trace shows it, and where the run stands after it."""
        record, episode = self._record, self._episode
        run = record.run
        link = Link(self._trace, self._root, "episode")
        over = record.status == "finished" and not record.began and record.visit == episode.visit
        visit = span_id("visit", run, episode.visit, episode.state) if episode.state and not over else ""
        parent = visit or span_id("run", run)
        end = _visit_ns(record.at, record.visit)
        words = _root_name(episode.cause, episode.name)
        own: Attributes = (
            (names.CAUSE, names.of_cause(episode.cause, episode.name)),
            (names.STATUS, record.status),
            *_repeated((link,)),
        )
        times = _visit_ns(episode.at, episode.visit), end
        id_ = span_id("during", run, episode.seq)
        made = self._in_runs(id_, parent, f"episode: {words}", times, self._of_episode, own)
        made.links = (link,)
        if record.halted is not None:
            made.status, made.message = ERROR, record.halted.error
        if record.status != "finished":
            self._stay(link, end)

    def _stay(self, link: Link, at: int) -> None:
        record = self._record
        state = record.to or record.from_
        parent = span_id("visit", record.run, record.visit, state) if state else span_id("run", record.run)
        own: list[tuple[str, Value]] = [(names.VISIT, record.visit), (names.WAITS_FOR, waits_of(record))]
        if record.wakes:
            own.append((names.WAITS_UNTIL, until_of(record)))
        own += _repeated((link,))
        word = "halted in" if record.halted is not None else "waits in"
        id_ = span_id("stay", record.run, record.seq)
        made = self._in_runs(id_, parent, f"{word} {state or 'start'}", (at, at), self._of_episode, tuple(own))
        made.links = (link,)
        if record.halted is not None:
            made.status, made.message = ERROR, record.halted.error

    def _run_root(self) -> None:
        record = self._record
        own: Attributes = (
            (names.STATE, record.to or record.from_),
            (names.OPERATION, names.INVOKE_WORKFLOW),
            (names.AI_WORKFLOW, record.workflow),
            (names.OUTCOME, "cancelled" if record.cause == "order" else record.to),
            (names.CAUSE, names.of_cause(record.cause, record.name)),
        )
        times = record.began * MS, _visit_ns(record.at, record.visit)
        id_ = span_id("run", record.run)
        self._in_runs(id_, "", f"{names.INVOKE_WORKFLOW} {record.workflow}", times, self._base, own)


# -- pieces ------------------------------------------------------------------------------------------------------------


def _base(record: Record) -> Attributes:
    base: Attributes = (
        (names.WORKFLOW, record.workflow),
        (names.KEY, record.key),
        (names.RUN, record.run),
        (names.VERSION, record.version),
        (names.SEQ, record.seq),
    )
    if record.fields:
        base += tuple([(names.FIELD + name, value) for name, value in record.fields.items()])
    return base


def _event(cause: str, name: str, id_: str) -> Attributes:
    if cause not in ("event", "question"):
        return ()
    return ((names.EVENT_TYPE, name), (names.EVENT_ID, id_)) if id_ else ((names.EVENT_TYPE, name),)


def _message(cause: str, name: str, id_: str) -> Attributes:
    """What the messaging conventions want of what came from outside."""
    if cause not in ("event", "question"):
        return ()
    own: Attributes = (
        (names.MESSAGING, names.SERVICE),
        (names.MESSAGING_NAME, names.PROCESS),
        (names.MESSAGING_TYPE, names.PROCESS),
        (names.DESTINATION, name),
    )
    return (*own, (names.MESSAGE_ID, id_)) if id_ else own


def _call(step: str, call: str, attempt: int) -> list[tuple[str, Value]]:
    own: list[tuple[str, Value]] = [(names.STEP, step)] if step else []
    return [*own, (names.CALL, call), (names.ATTEMPT, attempt)]


def _part(record: Record) -> tuple[str, int, Attributes]:
    """Name, kind and attributes of a kept result."""
    own = [*_call(record.name, record.id, record.attempt), (names.PART, record.inner), (names.TOOK, record.took / US)]
    if record.again:
        own.append((names.AGAIN, True))
    if record.used is not None:
        own += _used(record.used)
        return f"{names.CHAT} {record.used.model}", CLIENT, (*own, *content.of_model(record))
    if record.kind == "tool":
        tool = record.inner.rpartition(" ")[0] or record.inner
        own += [(names.OPERATION, names.EXECUTE_TOOL), (names.TOOL, tool), (names.TOOL_TYPE, "function")]
        return f"{names.EXECUTE_TOOL} {tool}", INTERNAL, (*own, *content.of_tool(record))
    return f"{record.name}: {record.inner}", INTERNAL, (*own, *content.of_result(record))


def _used(used: Used) -> list[tuple[str, Value]]:
    """What the GenAI conventions want of a model call."""
    own: list[tuple[str, Value]] = [
        (names.OPERATION, names.CHAT),
        (names.MODEL_ASKED, used.model),
        (names.INPUT_TOKENS, used.input),
        (names.OUTPUT_TOKENS, used.output),
    ]
    more: Attributes = (
        (names.PROVIDER, used.provider),
        (names.MODEL_ANSWERED, used.answered),
        (names.CACHED_TOKENS, used.cached),
        (names.THOUGHT_TOKENS, used.thought),
        (names.FINISH, (used.finish,) if used.finish else ()),
        (names.RESPONSE_ID, used.request),
    )
    own += [pair for pair in more if pair[1]]
    own.append((names.UNPRICED, True) if used.cost is None else (names.COST, used.cost / 1_000_000))
    return own


def _producer(text: str) -> tuple[tuple[Link, ...], Attributes]:
    """The link to the span that caused an event, and what is said of it on the span."""
    if not text:
        return (), ()
    found = parse_traceparent(text)
    if found is None:
        return (), ((names.TRACEPARENT, text),)
    links = (Link(found[0], found[1], "producer"),)
    return links, _repeated(links)


def _repeated(links: tuple[Link, ...]) -> Attributes:
    return tuple([(names.LINK + link.reason, f"{link.trace}/{link.id}") for link in links])


def _root_name(cause: str, name: str) -> str:
    if cause in ("event", "question"):
        return f"{names.PROCESS} {name or 'event'}"
    return names.of_cause(cause, name)


def _visit_ns(at: int, visit: int) -> int:
    return at * MS + min(max(visit, 0), LAST) * US


def _is_id(text: str) -> bool:
    """16 hex digits, not all zero."""
    return _SPAN_ID.fullmatch(text) is not None


def _value(value: object) -> Value:
    if isinstance(value, list):
        return tuple(each for each in value if isinstance(each, str | bool | int | float))
    return value if isinstance(value, str | bool | int | float) else str(value)
