"""OTLP over gRPC: bytes in, bytes out, without generated classes.

Source: OpenTelemetry, "OTLP Specification 1.9.0", "OTLP/gRPC": which codes may be tried again, and after what time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped,unused-ignore]

from observability import protobuf
from observability.sender import USER_AGENT, Answer, Collector, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

_METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_PORT: Final = 4317
_LATER: Final = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
_BUSY: Final = "RESOURCE_EXHAUSTED"
_MISCONFIGURED: Final = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND"}
_REFUSED: Final = {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "ALREADY_EXISTS"}
_DETAILS: Final = "grpc-status-details-bin"


class GrpcSender:
    """One channel."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._timeout = collector.timeout
        self._metadata = collector.headers
        self._channel = _channel(collector)
        self._export = self._channel.unary_unary(_METHOD)

    def send(self, body: bytes) -> Answer:
        """See `Sender.send`."""
        try:
            answer: bytes = self._export(body, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            failed = _failed(error)
            return failed._replace(words=self._collector.quote(failed.words))
        partial = protobuf.message(answer, 1)
        return Answer(
            Verdict.TAKEN,
            "partial success" if partial else "",
            self._collector.quote(protobuf.text(partial, 2)),
            rejected=protobuf.integer(partial, 1),
        )

    def close(self) -> None:
        self._channel.close()


def _channel(collector: Collector) -> Any:  # noqa: ANN401 (grpcio has no types)
    parts = urlsplit(collector.url)
    target = f"{parts.hostname}:{parts.port or _PORT}" if ":" not in (parts.hostname or "") else parts.netloc
    options = [("grpc.primary_user_agent", USER_AGENT), ("grpc.max_send_message_length", -1)]
    compression = grpc.Compression.Gzip if collector.gzip else grpc.Compression.NoCompression
    if parts.scheme == "http":
        return grpc.insecure_channel(target, options, compression)
    credentials = grpc.ssl_channel_credentials(
        *(_read(path) for path in (collector.certificate, collector.client_key, collector.client_certificate))
    )
    return grpc.secure_channel(target, credentials, options, compression)


def _read(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _failed(error: Any) -> Answer:  # noqa: ANN401 (likewise)
    code: str = error.code().name
    words = error.details() or ""
    reason = f"grpc {code.lower()}"
    if code in _LATER:
        return Answer(Verdict.LATER, reason, words, after=_after(error.trailing_metadata()))
    if code == _BUSY:
        if "larger than max" in words:
            return Answer(Verdict.TOO_LARGE, reason, words)
        return Answer(Verdict.LATER, reason, words, after=_after(error.trailing_metadata()))
    if code in _MISCONFIGURED:
        return Answer(Verdict.MISCONFIGURED, reason, words)
    return Answer(Verdict.REFUSED if code in _REFUSED else Verdict.BROKEN, reason, words)


def _after(metadata: Iterable[tuple[str, bytes]] | None) -> float | None:
    """Seconds of a `google.rpc.RetryInfo` among the details of a status."""
    for name, raw in metadata or ():
        if name != _DETAILS:
            continue
        for number, detail in protobuf.fields(raw):
            if number == 3 and isinstance(detail, bytes) and protobuf.text(detail, 1).endswith("google.rpc.RetryInfo"):  # noqa: PLR2004 (field `details` of google.rpc.Status)
                delay = protobuf.message(protobuf.message(detail, 2), 1)
                return protobuf.integer(delay, 1) + protobuf.integer(delay, 2) / 1e9
    return None
