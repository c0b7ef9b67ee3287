"""The spans that began in one attempt, or in one part of it, until they are put into its entry."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from observability.inner_span import InnerSpan, write_inner

MOST_SPANS: Final = 100
"""In one entry: the first that begin, so that what is above a span is there whenever the span is."""
MOST_BYTES: Final = 64 << 10
CUT: Final = "longwatch.cut"
"""Stands on a span whose attributes were too many for its entry."""


class Collected:
    """Spans by their ids, as numbers. Whoever calls it sees to it that one thread does at a time."""

    def __init__(self, own: int) -> None:
        self.own = own
        """The span of the attempt or of the part itself."""
        self.above: dict[int, int] = {}
        """Of each span that was taken: its parent."""
        self.open: set[int] = set()
        """Those that have not ended."""
        self.spans: list[InnerSpan] = []
        self.elsewhere: set[int] = set()
        """Of an attempt: what may be a parent too, since it is recorded with one of its parts."""
        self.dropped = 0

    def begin(self, span: int, parent: int) -> bool:
        """A span begins; whether it is taken."""
        if len(self.above) >= MOST_SPANS:
            self.dropped += 1
            return False
        self.above[span] = parent
        self.open.add(span)
        return True

    def end(self, span: int, found: InnerSpan | None) -> None:
        """A span that was taken has ended; None: it is told otherwise."""
        self.open.discard(span)
        if found is not None:
            self.spans.append(found)

    def written(self) -> bytes:
        """The JSON array, in the order in which they began, each below one that is recorded."""
        recorded = self._recorded() | self.elsewhere
        spans = sorted(self.spans, key=lambda span: span.start)
        return _bounded([_below(span, self._parent(int(span.id, 16), recorded)) for span in spans], self.dropped)

    def leave(self, part: Collected) -> list[int]:
        """A part is kept: what is open in it will end here, and stands below what is recorded there. Gives these."""
        recorded = part._recorded()
        taken = []
        for span in part.open:
            parent = part._parent(span, recorded)
            self.elsewhere.add(parent)
            if self.begin(span, parent):
                taken.append(span)
        return taken

    def take_over(self, part: Collected) -> list[int]:
        """A part has failed, and will not be recorded: all of it stands here. Gives what was taken."""
        self.dropped += part.dropped
        taken = [span for span, parent in part.above.items() if self.begin(span, parent)]
        self.open -= part.above.keys() - part.open
        ids = {f"{span:016x}" for span in taken}
        self.spans += [span for span in part.spans if span.id in ids]
        return taken

    def _recorded(self) -> set[int]:
        return {int(span.id, 16) for span in self.spans} | {self.own}

    def _parent(self, span: int, recorded: set[int]) -> int:
        """The nearest above it that is recorded."""
        above = self.above.get(span, self.own)
        while above not in recorded:
            above = self.above.get(above, self.own)
        return above


def _below(span: InnerSpan, parent: int) -> InnerSpan:
    above = f"{parent:016x}"
    return span if span.parent == above else replace(span, parent=above)


def _bounded(spans: list[InnerSpan], dropped: int) -> bytes:
    """Within the bound of bytes: the largest spans lose their attributes first."""
    written = write_inner(spans, dropped)
    if len(written) <= MOST_BYTES:
        return written
    sizes = [len(write_inner([span])) for span in spans]
    for index in sorted(range(len(spans)), key=lambda index: -sizes[index]):
        spans[index] = replace(spans[index], attributes={CUT: True}, message="")
        written = write_inner(spans, dropped)
        if len(written) <= MOST_BYTES:
            return written
    while len(written) > MOST_BYTES:
        spans.pop()
        dropped += 1
        written = write_inner(spans, dropped)
    return written
