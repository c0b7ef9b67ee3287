"""Gets a batch of spans to the collector, whatever the collector does meanwhile.

A collector that is away, busy or wrongly addressed is waited for, for as long as it takes; nothing is dropped for it. A
request that it *refuses* is sent again in halves until the spans are found that it does not take; those are counted
and named, and all others get through. So that a server which refuses everything (a wrong one, a broken one) does not
pass for one which refuses these spans, it is asked in between to take an empty request, which every OTLP server takes.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from observability import protobuf
from observability.sender import Answer, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from observability.sender import Sender

_log = logging.getLogger(__name__)

_NAMED: Final = 20
"""Refused spans of a batch that the log names; the rest are counted there."""
_SPANS, _TRACE_ID, _SPAN_ID, _NAME = 2, 1, 2, 5
"""Fields of OTLP's `ScopeSpans` and `Span`."""


class Pace(NamedTuple):
    """How long to wait before the same is sent again, seconds."""

    first: float = 0.2
    longest: float = 30.0
    asked_for: float = 600.0
    """The longest that a collector may ask for."""
    tries: int = 5
    """Of a request over which the collector fails, before a span in it is held to be at fault."""


@dataclass
class Tally:
    """What has become of spans and requests. Written by one thread; a reader sees whole numbers."""

    sent: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """Refused spans by reason."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that failed by reason."""
    trouble: str = ""
    """Why nothing gets through now; empty: it does."""

    @property
    def refused(self) -> int:
        return self.refusals.total()


class Delivery:
    """Delivers batches one after the other. One thread's."""

    def __init__(
        self,
        sender: Sender,
        envelope: Callable[[Sequence[bytes]], bytes],
        tally: Tally,
        stopping: Event,
        pace: Pace | None = None,
        where: str = "",
    ) -> None:
        """Prepare.

        Args:
            sender: sends one request.
            envelope: makes a request of encoded spans.
            tally: counts what becomes of them.
            stopping: once it is set, nothing is waited for any more.
            pace: how long to wait.
            where: the collector's address, as words may show it.

        """
        self._sender, self._envelope, self.tally = sender, envelope, tally
        self._stopping, self._pace, self._where = stopping, pace or Pace(), where
        self._since = 0.0
        self._waits = 0

    def deliver(self, spans: Sequence[bytes]) -> bool:
        """Return when each span was taken or refused; False: it was told to stop before that, so all count as unsent.

        Parts that were taken by then are sent again with the batch: the same bytes.
        """
        refused = _Refused(self.tally)
        parts = [spans]
        proven = False
        while parts:
            part = parts.pop()
            answer = self._ask(part)
            if answer is None:
                return False
            if answer.verdict is Verdict.TAKEN:
                proven = True
                self._count(part, answer)
            elif answer.verdict is Verdict.REFUSED and not (proven and len(part) > 1) and not self._takes_anything():
                proven = False
                parts.append(part)
                if not self._wait(self._with_words(answer, "it refuses an empty request too"), None):
                    return False
            elif len(part) == 1:
                refused.add(part[0], answer)
            else:
                proven = True
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
        refused.tell()
        return True

    def _ask(self, part: Sequence[bytes]) -> Answer | None:
        """Send until there is an answer that is about these spans; None: told to stop."""
        body = self._envelope(part)
        tries = 0
        while True:
            answer = self._sender.send(body)
            match answer.verdict:
                case Verdict.TAKEN:
                    self._is_back()
                    return answer
                case Verdict.REFUSED | Verdict.TOO_LARGE:
                    self.tally.failures[answer.reason] += 1
                    return answer
                case Verdict.BROKEN if (tries := tries + 1) >= self._pace.tries:
                    self.tally.failures[answer.reason] += 1
                    return answer._replace(verdict=Verdict.REFUSED)
            if not self._wait(answer, answer.after):
                return None

    def _takes_anything(self) -> bool:
        taken = self._sender.send(self._envelope(())).verdict is Verdict.TAKEN
        if taken:
            self._is_back()
        return taken

    def _count(self, part: Sequence[bytes], answer: Answer) -> None:
        rejected = min(answer.rejected, len(part))
        self.tally.sent += len(part) - rejected
        if rejected:
            self.tally.refusals["partial success"] += rejected
            _log.warning("%d of %d spans were rejected by %s: %s", rejected, len(part), self._where, answer.words)
        elif answer.words:
            _log.info("%s took %d spans and says: %s", self._where, len(part), answer.words)

    # -- trouble

    def _wait(self, answer: Answer, after: float | None) -> bool:
        """Wait before the next try, longer each time; False: told to stop."""
        self.tally.failures[answer.reason] += 1
        self._tell(answer)
        wait = min(self._pace.first * 2**self._waits, self._pace.longest)
        if answer.verdict in {Verdict.MISCONFIGURED, Verdict.REFUSED}:
            wait = self._pace.longest
        self._waits = min(self._waits + 1, 30)
        wait *= random.uniform(0.5, 1)  # noqa: S311 (so that many exporters do not come back at once)
        if after is not None:
            wait = max(wait, min(after, self._pace.asked_for))
        return not self._stopping.wait(wait) and not self._stopping.is_set()

    def _tell(self, answer: Answer) -> None:
        """Say once what is wrong, and again when it is something else."""
        words = f"{answer.reason}: {answer.words}" if answer.words else answer.reason
        if not self.tally.trouble:
            self._since = time.monotonic()
        if self.tally.trouble != words:
            if answer.verdict is Verdict.MISCONFIGURED:
                advice = f"see to address, protocol and key; tried again every {self._pace.longest:.0f} s"
            else:
                advice = "spans wait for it and are sent when it is back"
            _log.warning("the collector %s takes no spans (%s): %s", self._where, words, advice)
        self.tally.trouble = words

    def _is_back(self) -> None:
        if self.tally.trouble:
            _log.info("the collector %s is back after %.0f s", self._where, time.monotonic() - self._since)
        self.tally.trouble, self._waits = "", 0

    @staticmethod
    def _with_words(answer: Answer, more: str) -> Answer:
        return answer._replace(words=f"{answer.words} ({more})" if answer.words else more)


class _Refused:
    """The spans of a batch that were refused one by one."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._count = 0

    def add(self, span: bytes, answer: Answer) -> None:
        self._count += 1
        self._tally.refusals[answer.reason] += 1
        if self._count <= _NAMED:
            why = f"{answer.reason}: {answer.words}" if answer.words else answer.reason
            _log.warning("refused: %s (%d bytes): %s", name_of(span), len(span), why)

    def tell(self) -> None:
        if self._count > _NAMED:
            _log.warning("refused: %d more spans of this batch", self._count - _NAMED)


def name_of(element: bytes) -> str:
    """Name an encoded span, an element of a request as `observability.otlp` makes it."""
    span = protobuf.message(element, _SPANS)
    trace, own = protobuf.message(span, _TRACE_ID).hex(), protobuf.message(span, _SPAN_ID).hex()
    return f"trace {trace} span {own} {protobuf.text(span, _NAME)!r}"
