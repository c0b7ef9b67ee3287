"""One gate as a worker sees it: who waits here, who is through, and what the server must be told. No I/O.

The server is told all that is held, never a difference: when an answer is lost with its connection, the next question
puts right what was counted for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from engine.limits.limit import Limit, Pace
from engine.limits.outcome import LONGEST_REASON, Ok, Outage, Outcome
from engine.limits.passes import Pass
from engine.limits.scripts import Answer, Ask
from engine.limits.waiters import Waiter, Waiters

BATCH = 128
"""So many may pass by one question."""
CORRECT_SECONDS = 0.02
"""A correction waits so long for others."""
FRESH_SECONDS = 0.25
"""So long a call may take from its pass to its request; the rest of `Pace.slack` is for the way."""


class Gate:
    """Waiters and passes of one name. `Gates` carries its questions to the server while `due` says so."""

    def __init__(self, name: str, limit: Limit | None, pace: Pace, alarm: Callable[[], None]) -> None:
        """Begin open; `alarm` is called when `due` came nearer."""
        self.name, self.limit = name, limit
        self.guarded = False
        """It has no limit, but its provider is down, so the server is asked all the same."""
        self.due = math.inf
        """When there is something to say to the server, on the clock of `time.monotonic`."""
        self._pace, self._alarm = pace, alarm
        self._waiters = Waiters()
        self._asked: list[Waiter[Any]] = []
        self._asking = 0
        self._blocked = False
        self._held = 0
        self._since = 0
        self._spoke = self._told_at = -math.inf
        self._told = 0
        self._used: dict[int, int] = {}
        self._saying: dict[int, int] = {}
        self._probe: Pass | None = None
        self._report = _Report()
        self._reporting = _Report()
        self._trouble = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters) + self._asking

    @property
    def is_open(self) -> bool:
        """Whether one may pass without a question."""
        return self.limit is None and not self.guarded and not self.waiting

    # -- from those who want to pass -----------------------------------------------------------------------------

    def put(self, waiter: Waiter[Any]) -> None:
        """Let one wait."""
        if not self.waiting:
            self._since = int(time.time() * 1000)
            self._blocked = False
        self._waiters.put(waiter)
        if not self._blocked:
            self._hurry(0)

    def drop(self, waiter: Waiter[Any]) -> None:
        """One waits no longer."""
        if waiter in self._asked:
            waiter.gone = True
            self._asking -= 1
        else:
            self._waiters.drop(waiter)
        self._hurry(self._pace.tell)

    def wake(self) -> None:
        """The server has news."""
        if self.waiting:
            self._hurry(0)

    def guard(self, shut: bool) -> None:  # noqa: FBT001 - its one argument
        """The provider is down, or comes back: then the server says when one may pass without a question."""
        if self.limit is None and (shut or self.guarded):
            self.guarded = True
            self._hurry(0)
        if not shut:
            self.wake()

    # -- from passes ---------------------------------------------------------------------------------------------

    def ended(self, passed: Pass) -> None:
        """See `Pass.end`."""
        if self.limit is not None:
            self._held -= 1
            self._hurry(self._pace.tell if self.limit.calls is None else 0)
        if passed is self._probe:
            self._probe = None
            self._report.probed = "ended"
            self._hurry(0)

    def returned(self, passed: Pass) -> None:
        """See `Pass.give_back`."""
        if passed.entry:
            self._used[passed.entry] = -1
        self.ended(passed)

    def serves(self, passed: Pass, tokens: int) -> bool:
        """See `Pass.serves`."""
        if not passed.entry or self.limit is None:
            return True
        fits = self.limit.tokens is None or tokens <= passed.tokens
        return fits and time.monotonic() - passed.at <= FRESH_SECONDS

    def corrected(self, passed: Pass, tokens: int) -> None:
        """See `Pass.used`."""
        if passed.entry and self.limit is not None and self.limit.tokens is not None:
            self._used[passed.entry] = tokens
            self._hurry(CORRECT_SECONDS)

    def reported(self, outcome: Outcome, passed: Pass | None) -> None:
        """See `Pass.report`; without a pass it is the word on the probe, if this worker makes one."""
        probe = self._probe is not None and (passed is None or passed is self._probe)
        if probe:
            self._probe = None
        match outcome:
            case Ok():
                if not probe and not self._trouble:
                    return
                self._report.succeed(probe=probe)
            case Outage():
                self._trouble = True
                self._report.fail(outcome, self._pace.longest_retry_after, probe=probe)
        self._hurry(0)

    # -- from the conversation -----------------------------------------------------------------------------------

    def ask(self, worker: str, incarnation: str, now: float) -> Ask:
        """What to say to the server now; ends in `answered` or `failed`."""
        limit, pace = self.limit or _NONE, self._pace
        waiting = self.waiting
        self.due = math.inf
        self._asked = self._waiters.take(BATCH)
        self._asking = len(self._asked)
        self._saying, self._used = self._used, {}
        self._reporting, self._report = self._report, _Report()
        self._spoke = now
        tell = waiting != self._told and now - self._told_at >= pace.tell
        if tell:
            self._told, self._told_at = waiting, now
        report = self._reporting
        return Ask(
            worker=worker,
            incarnation=incarnation,
            name=self.name,
            lease=_ms(pace.lease),
            calls=-1 if limit.calls is None else limit.calls,
            requests=-1 if limit.requests is None else limit.requests,
            tokens=-1 if limit.tokens is None else limit.tokens,
            window=_ms(pace.minute + pace.slack),
            held=self._held,
            waiting=waiting,
            since=self._since if waiting else 0,
            tell=tell,
            costs=[waiter.tokens for waiter in self._asked],
            used=list(self._saying.items()),
            ok=report.ok,
            outages=report.outages,
            retry_after=_ms(report.retry_after),
            reason=report.reason,
            probed=report.probed,
            first_wait=_ms(pace.first_wait),
            longest_wait=_ms(pace.longest_wait),
            ease=_ms(pace.ease),
            outages_to_shut=pace.outages,
            forget=_ms(pace.forget),
        )

    def answered(self, answer: Answer, now: float) -> list[tuple[Waiter[Any], Pass]]:
        """Who may pass; the others wait on. Their callbacks are the caller's business."""
        asked, self._asked, self._asking, self._saying = self._asked, [], 0, {}
        self._trouble = answer.shut or answer.failures > 0
        if self.limit is None:
            self.guarded = answer.shut or answer.easing
        passing = []
        for number, waiter in enumerate(asked[: answer.admitted]):
            entry = answer.first + number if answer.first else 0
            if waiter.gone:
                self._never_started(entry, probe=answer.probe)
            else:
                passing.append((waiter, self._pass(waiter, entry, probe=answer.probe)))
        self._put_back(asked[answer.admitted :])
        self._plan(answer, blocked=answer.admitted < len(asked), now=now)
        return passing

    def failed(self) -> None:
        """The server did not answer; all that was said will be said again."""
        asked, self._asked, self._asking = self._asked, [], 0
        self._put_back(asked)
        self._used = self._saying | self._used
        self._report = self._reporting.merged(self._report)
        self._saying, self._reporting = {}, _Report()
        self._told = -1
        self._hurry(0)

    def _pass(self, waiter: Waiter[Any], entry: int, *, probe: bool) -> Pass:
        passed = Pass(self, self.name, waiter.tokens, entry=entry, probe=probe)
        if self.limit is not None:
            self._held += 1
        if probe:
            self._probe = passed
        return passed

    def _never_started(self, entry: int, *, probe: bool) -> None:
        """It was let through in the moment in which it went away."""
        if entry:
            self._used[entry] = -1
        if probe:
            self._report.probed = "ended"
        self._hurry(0)

    def _put_back(self, waiters: list[Waiter[Any]]) -> None:
        for waiter in waiters:
            if not waiter.gone:
                self._waiters.put(waiter)

    def _plan(self, answer: Answer, *, blocked: bool, now: float) -> None:
        """When to speak next: at once while more may pass, else when told, and in time for what others look at."""
        pace = self._pace
        self._blocked = blocked
        if self.waiting:
            told = answer.wait / 1000 if answer.wait >= 0 else math.inf
            self._hurry(min(told, pace.poll) if blocked else 0)
        if self.waiting or self._held:
            self._hurry(pace.lease / 3)
        if self.guarded and not answer.shut:
            self._hurry(pace.poll)
        if self.waiting != self._told:
            self._hurry(max(0.0, self._told_at + pace.tell - now))

    def _hurry(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if due < self.due:
            self.due = due
            self._alarm()


class _Report:
    """What calls said about the provider since the server was told last."""

    __slots__ = ("ok", "outages", "probed", "reason", "retry_after")

    def __init__(self) -> None:
        self.ok = False
        self.outages = 0
        self.retry_after = 0.0
        self.reason = ""
        self.probed = ""

    def succeed(self, *, probe: bool) -> None:
        self.ok, self.outages = True, 0
        if probe:
            self.probed = "ok"

    def fail(self, outage: Outage, longest: float, *, probe: bool) -> None:
        self.retry_after = max(self.retry_after, min(outage.wait_seconds, longest))
        self.reason = outage.reason[:LONGEST_REASON] or self.reason
        if probe:
            self.probed = "outage"
        else:
            self.outages += 1

    def merged(self, later: _Report) -> _Report:
        """This one, which did not arrive, and a later one."""
        both = _Report()
        both.ok = self.ok or later.ok
        both.outages = later.outages if later.ok else self.outages + later.outages
        both.retry_after = max(self.retry_after, later.retry_after)
        both.reason = later.reason or self.reason
        both.probed = later.probed or self.probed
        return both


class _NoLimit:
    calls = requests = tokens = None


_NONE = _NoLimit()


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)
