"""A collector on loopback that speaks OTLP over HTTP or gRPC, keeps what it took, and misbehaves as it is told."""

from __future__ import annotations

import gzip
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Reply:
    """What is answered; by default success."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    """Hang up instead."""
    takes: bool = False
    """The spans count as received all the same."""
    slow: float = 0.0
    code: str = "OK"
    """Of gRPC."""
    words: str = ""
    metadata: tuple[tuple[str, bytes], ...] = ()


Behave = Callable[[list[Span]], Reply | None]


class Store:
    """What a collector has received."""

    def __init__(self) -> None:
        self.bodies: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.requests: list[int] = []
        """Spans of each request, in order."""
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.behave: Behave = lambda _spans: None
        self.changed = threading.Condition(self.lock)

    def answer(self, raw: bytes, headers: dict[str, str]) -> Reply:
        spans = spans_of(raw)
        with self.lock:
            self.requests.append(len(spans))
            self.headers.append(headers)
            reply = self.behave(spans) or Reply(body=ExportTraceServiceResponse().SerializeToString())
            if reply.takes or (reply.status == 200 and reply.code == "OK" and not reply.cut):
                for span in spans:
                    self.bodies[span.trace_id.hex(), span.span_id.hex()].append(
                        span.SerializeToString(deterministic=True)
                    )
            self.changed.notify_all()
        return reply

    def wait(self, until: Callable[[Store], bool], seconds: float = 20.0) -> bool:
        with self.lock:
            return self.changed.wait_for(lambda: until(self), seconds)

    @property
    def names(self) -> set[str]:
        return {Span.FromString(bodies[0]).name for bodies in self.bodies.values()}

    @property
    def doubled(self) -> dict[tuple[str, str], list[bytes]]:
        return {name: bodies for name, bodies in self.bodies.items() if len(bodies) > 1}

    @property
    def differing(self) -> list[tuple[str, str]]:
        return [name for name, bodies in self.bodies.items() if len(set(bodies)) > 1]


def spans_of(raw: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(raw)
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


@contextmanager
def http_collector(store: Store, port: int = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()} | {"path": self.path}
            reply = store.answer(gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw, headers)
            if reply.slow:
                time.sleep(reply.slow)
            if reply.cut:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"content-type": "application/x-protobuf", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the exporter was killed, or has waited long enough
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_collector(store: Store, port: int = 0) -> Iterator[str]:
    def export(raw: bytes, context: grpc.ServicerContext) -> bytes:
        reply: Reply = store.answer(raw, {name: str(value) for name, value in context.invocation_metadata()})
        if reply.slow:
            time.sleep(reply.slow)
        if reply.code != "OK":
            context.set_trailing_metadata(reply.metadata)
            context.abort(getattr(grpc.StatusCode, reply.code), reply.words)
        body: bytes = reply.body
        return body

    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    handlers = grpc.method_handlers_generic_handler(service, {"Export": grpc.unary_unary_rpc_method_handler(export)})
    server = grpc.server(ThreadPoolExecutor(2), handlers=(handlers,))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"http://127.0.0.1:{bound}"
    finally:
        server.stop(0).wait()


def a_span(number: int, name: str = "") -> bytes:
    """An element of a request, as `observability.otlp` makes it."""
    span = Span(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=name or f"span {number}")
    return _field(2, span.SerializeToString())


def envelope(spans: Sequence[bytes]) -> bytes:
    """A request of them."""
    return _field(1, _field(2, b"".join(spans))) if spans else b""


def _field(number: int, value: bytes) -> bytes:
    length, rest = b"", len(value)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + value


def rejecting(count: int, words: str) -> Reply:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    answer.partial_success.error_message = words
    return Reply(body=answer.SerializeToString())
