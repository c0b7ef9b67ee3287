"""What stands around the attempts of steps: their place in the trace for those who send, and what libraries trace.

How it works. While an attempt runs, a span that is not recording is OpenTelemetry's current one, with the ids that the
attempt's own span will have when it is computed from the record (`engine.core.trace`); within `once` it is that of the
kept part. So every client that is instrumented hands on the right `traceparent`, and everything traced stands below it.
A span processor takes what begins inside; `drain` hands what has ended to the engine, which puts it into the entry.

Nothing is exported from here, and nothing is sampled: the exporter decides, from the records. An exporter that a user
has set up goes on beside it. An attempt in which nobody traces costs two objects and a context variable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextvars import Token
from functools import cached_property
from os import environ
from threading import RLock
from typing import Final, Self

from opentelemetry import context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED, OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from observability.collected import Collected
from observability.inner_attributes import attributes_of, clean, forms_of, is_chat
from observability.inner_span import InnerSpan
from observability.instrumentations import instrument

logger = logging.getLogger(__name__)

LONGEST_NAME: Final = 200
LONGEST_MESSAGE: Final = 500
_AROUND: Final = context.create_key("longwatch-around")
(_SPAN,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
_lock = RLock()
"""Of all that is collected. The thread that holds it may come again: the garbage collector may end a span."""


class Place(NonRecordingSpan):
    """The attempt or the part as libraries see it: the parent of what they trace, with its ids made when asked for."""

    _made: SpanContext | None = None

    def __init__(self, around: Around) -> None:
        self.around = around

    def get_span_context(self) -> SpanContext:
        """See `opentelemetry.trace.Span`."""
        if self._made is None:
            around = self.around
            flags = TraceFlags(TraceFlags.SAMPLED)
            state = TraceState.from_header([around.tracestate]) if around.tracestate else None
            self._made = SpanContext(around.trace_id, around.id, is_remote=False, trace_flags=flags, trace_state=state)
        return self._made

    def __repr__(self) -> str:
        return f"Place({self.around.trace!r})"


class Around:
    """`engine.flink.inside.Around`: one attempt or one part of it.

    There is one for every attempt, and most trace nothing: what is not said otherwise stands on the class.
    """

    attempt: Around | None = None
    """Of a part: whose."""
    model = False
    is_over = False
    is_kept = False
    _token: Token[Context] | None = None
    _found: Collected | None = None

    def __init__(
        self,
        trace: str,
        tracestate: str,
        baggage: str,
        *,
        content: bool = False,
        secrets: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self.trace = trace
        self.tracestate = tracestate
        self.baggage = baggage
        self.content = content
        self._secrets = secrets

    @property
    def trace_id(self) -> int:
        return int(self.trace[3:35], 16)

    @property
    def id(self) -> int:
        """Of its own span."""
        return int(self.trace[36:52], 16)

    def __enter__(self) -> Self:
        here = Context({_SPAN: Place(self), _AROUND: self} if self.trace else ())
        if self.baggage:
            here = W3CBaggagePropagator().extract({"baggage": self.baggage}, here)
        self._token = context.attach(here)
        return self

    def __exit__(self, *error: object) -> None:
        if self._token is not None:
            context.detach(self._token)
            self._token = None
        if not self.is_over:
            if self._found is not None:
                self._give_up(self._found)
            self.is_over = True

    def part(self, trace: str, *, model: bool) -> Around:
        """See `engine.flink.inside.Around`."""
        part = Around(trace, self.tracestate, self.baggage, content=self.content, secrets=self._secrets)
        part.model, part.attempt = model, self
        return part

    def drain(self) -> bytes:
        """See `engine.flink.inside.Around`."""
        found = self._found
        if found is None:
            self.is_over = self.is_kept = True
            return b""
        if self.is_over:
            return b""
        with _lock:
            collector.forget(found)
            if self.attempt is None:
                found.dropped += len(found.open)
            elif not self.attempt.is_over:
                collector.give(self.attempt, self.attempt.collected.leave(found))
            self.is_over = self.is_kept = True
            return found.written()

    @property
    def collected(self) -> Collected:
        """What has begun here. With the lock held."""
        if self._found is None:
            self._found = Collected(self.id)
        return self._found

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What may not be told, in each form that it is sent in; the longest first."""
        return forms_of(self._secrets())

    @property
    def taker(self) -> Around | None:
        """Who takes what begins here now; None: it is too late."""
        if not self.is_over:
            return self
        return self.attempt if self.attempt is not None and not self.attempt.is_over else None

    def _give_up(self, found: Collected) -> None:
        """Of a part that failed, its attempt tells; of an attempt that ends without a word, nobody."""
        with _lock:
            collector.forget(found)
            if self.attempt is not None and not self.attempt.is_over:
                collector.give(self.attempt, self.attempt.collected.take_over(found))


class Collector(SpanProcessor):
    """Takes the spans that begin in an attempt, wherever they end."""

    def __init__(self) -> None:
        self._owners: dict[int, Around] = {}
        self.late = 0
        """Spans that began in an attempt that was over."""

    def give(self, owner: Around, spans: list[int]) -> None:
        """These end there."""
        for span in spans:
            self._owners[span] = owner

    def forget(self, found: Collected) -> None:
        """Nobody waits for these."""
        for span in found.above:
            self._owners.pop(span, None)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See `SpanProcessor`. What goes wrong here must not hit the library that traces."""
        try:
            with _lock:
                self._begin(span, parent_context)
        except Exception:
            logger.exception("a span inside a step is not taken")

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor`."""
        try:
            with _lock:
                self._end(span)
        except Exception:
            logger.exception("a span inside a step is lost")

    def _begin(self, span: Span, parent_context: Context | None) -> None:
        owner = self._owner(span, parent_context)
        if owner is None:
            return
        taker = owner.taker
        if taker is None:
            self.late += 1
            return
        if owner.is_kept:
            taker.collected.elsewhere.add(owner.id)
        parent = taker.id if span.parent is None else span.parent.span_id
        if taker.collected.begin(span.context.span_id, parent):
            self._owners[span.context.span_id] = taker

    def _owner(self, span: Span, parent_context: Context | None) -> Around | None:
        """By its parent; else by where it begins, if it is of the same trace. A trace of its own is not ours."""
        parent = trace.get_current_span(parent_context)
        if isinstance(parent, Place):
            return parent.around
        if span.parent is not None and (owner := self._owners.get(span.parent.span_id)) is not None:
            return owner
        here = context.get_value(_AROUND)
        return here if isinstance(here, Around) and here.trace_id == span.context.trace_id else None

    def _end(self, span: ReadableSpan) -> None:
        owner = self._owners.get(span.context.span_id)
        if owner is not None:
            told = owner.model and is_chat(span.attributes)  # the kept part itself is the request to the model
            owner.collected.end(span.context.span_id, None if told else _inner(span, owner))


collector: Final = Collector()


class Inside:
    """`engine.flink.inside.Inside`, for everything that runs in this process."""

    _started = False

    def start(self) -> None:
        """Be told of every span, and have the libraries traced whose instrumentation is installed."""
        with _lock:
            if Inside._started:
                return
            Inside._started = True
            if environ.get(OTEL_SDK_DISABLED, "").strip().lower() != "true":
                _listen()
                names = instrument(_tells)
                logger.info("traced inside steps: %s", ", ".join(names) or "what traces itself")

    def around(
        self, trace: str, tracestate: str, baggage: str, *, content: bool, secrets: Callable[[], Collection[str]]
    ) -> Around:
        """See `engine.flink.inside.Inside`."""
        return Around(trace, tracestate, baggage, content=content, secrets=secrets)


def _tells() -> bool:
    """Whether the workflow whose step runs lets prompts and answers be told."""
    here = context.get_value(_AROUND)
    return isinstance(here, Around) and here.content


def _listen() -> None:
    """To the provider that is set, by code or by the environment; else to one of our own."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        service = {} if environ.get(OTEL_SERVICE_NAME) else {SERVICE_NAME: "longwatch"}
        provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(service), shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(collector)
    else:
        logger.warning("spans inside steps are not recorded: %r is no provider of OpenTelemetry's SDK", provider)


def _inner(span: ReadableSpan, owner: Around) -> InnerSpan:
    scope, secrets = span.instrumentation_scope, owner.secrets
    return InnerSpan(
        f"{span.context.span_id:016x}",
        f"{span.parent.span_id:016x}" if span.parent is not None else "",
        clean(span.name, LONGEST_NAME, secrets),
        span.kind.value,
        span.start_time or 0,
        span.end_time or 0,
        span.status.status_code.value,
        clean(span.status.description or "", LONGEST_MESSAGE, secrets),
        attributes_of(span.attributes or {}, content=owner.content, secrets=secrets),
        len(span.events),
        clean(scope.name, LONGEST_NAME) if scope is not None else "",
    )
