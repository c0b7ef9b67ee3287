"""`longwatch trace` and `longwatch lineage`, on a real log and without Flink."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from engine.cli import trace
from engine.cli.trace_shape import draw_run, lasting, wall
from observability.place import ExporterFile
from observability.trace_tree import AttemptNode, CallNode, EpisodeNode, RunNode
from tests.cli.inside import Call
from tests.plain_engine import PlainEngine
from tests.shop import POISON

OURS = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def _no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)


class Page(BaseHTTPRequestHandler):
    """Jaeger's page."""

    body: ClassVar[bytes] = b"<title>Jaeger UI</title>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def jaeger() -> Iterator[str]:
    with serving(HTTPServer(("127.0.0.1", 0), Page)) as address:
        yield address


@contextlib.contextmanager
def serving(server: HTTPServer) -> Iterator[str]:
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def send(call: Call, engine: PlainEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Send an event, and let the engine work."""
    monkeypatch.setenv("LONGWATCH_APP", "tests.shop:app")

    def send(kind: str = "OrderPlaced", key: str = "4711", id_: str = "", **data: Any) -> None:
        if kind == "OrderPlaced":
            data = {"order": {"order_id": key, "region": "north", "eur": 5} | data}
        envelope = {"specversion": "1.0", "id": id_ or f"{kind} {key}", "source": "shop", "type": kind, "subject": key}
        (tmp_path / "event.json").write_text(json.dumps({**envelope, "data": data, "traceparent": OURS}))
        assert call("send", "event.json").code == 0
        engine.work()

    return send


Send = Callable[..., None]


def test_a_run_that_waits_is_told_with_what_it_waits_for(call: Call, send: Send) -> None:
    send()
    shown = call("trace", "4711")

    assert shown.code == 0
    assert "orders/4711" in shown.out
    for words in ("event OrderPlaced", "charge", "Charging", "waits in Review until", "timer Review.expire", " left)"):
        assert words in shown.out


def test_a_run_that_is_over_is_told_to_its_end(call: Call, send: Send) -> None:
    send()
    send("Decided", approve=True)
    shown = call("trace", "orders/4711").out

    assert "finished in Shipped, after" in shown
    assert "publishes OrderShipped for 4711" in shown
    assert "Review" in shown


def test_failures_and_halts_are_told(call: Call, send: Send) -> None:
    send(key="1", eur=-1)
    send(key="2")
    send("Decided", key="2", approve=True, note=POISON)

    assert "failed" in call("trace", "1").out
    assert "card declined" in call("trace", "1").out
    halted = call("trace", "2").out
    assert "halted in Review" in halted
    assert "\x1b[31m" not in halted


def test_json_is_one_object(call: Call, send: Send) -> None:
    send()
    (told,) = call("trace", "4711", "--json").lines

    assert told["state"] == "Review"
    assert [visit["state"] for visit in told["visits"]] == ["Charging", "Review"]
    assert told["start"][0]["calls"][0]["attempts"][0]["result"] == "ok"
    assert told["start"][0]["trace"] != told["trace"]


def test_an_episode_is_told_span_by_span(call: Call, send: Send) -> None:
    send()
    shown = call("trace", "4711", "--episode", "1").out
    (told,) = call("trace", "4711", "--episode", "1", "--json").lines

    assert "process OrderPlaced" in shown
    assert "transition Charging -> Review" in shown
    assert "workflow.link.producer = 4bf92f3577b34da6a3ce929d0e0e4736/00f067aa0ba902b7" in shown
    assert {span["name"] for span in told["spans"]} >= {"process OrderPlaced", "charge"}
    assert " ms" not in next(line for line in shown.splitlines() if "transition Charging" in line).partition("+")[0]
    assert "e-0" not in shown


@pytest.mark.parametrize("wanted", ["99", "0", "no"])
def test_an_episode_that_is_not_there_is_refused_with_those_that_are(call: Call, send: Send, wanted: str) -> None:
    send()
    send("Decided", approve=True)
    node = call("trace", "4711", "--json").lines[0]
    begun = sorted(e["seq"] for e in [*node["start"], *(e for v in node["visits"] for e in v.get("episodes", ()))])
    refused = call("trace", "4711", "--episode", wanted)

    assert refused.code == 4
    assert f"has no episode '{wanted}'" in refused.err
    assert f"episodes begin at {', '.join(map(str, begun))}; its records are 1 to {node['records']}" in refused.err


def test_a_trace_leads_to_its_run(call: Call, send: Send) -> None:
    send(key="1")
    send(key="2")
    (told,) = call("trace", "2", "--json").lines

    assert call("trace", told["trace"], "--json").lines == [told]
    (episode,) = call("trace", told["start"][0]["trace"], "--json").lines
    assert episode["cause"] == "event OrderPlaced"
    unknown = call("trace", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert unknown.code == 4
    assert "goes by the name that its sender gave it" in unknown.err


@pytest.mark.parametrize("words", [("nobody",), ("4711", "--run", "ffff"), ("4711", "--workflow", "other")])
def test_what_is_not_there_is_told(call: Call, send: Send, words: tuple[str, ...]) -> None:
    send()
    ended = call("trace", *words)

    assert ended.code == 4
    assert "there is no run" in ended.err
    assert ("whose id begins with 'ffff'" in ended.err) == ("ffff" in words)


def test_a_run_is_named_by_workflow_or_by_its_id_too(call: Call, send: Send) -> None:
    send()
    (told,) = call("trace", "4711", "--workflow", "orders", "--json").lines

    assert call("trace", "4711", "--run", told["run_id"][:6], "--json").lines == [told]


def test_no_browser_means_that_the_address_is_printed(call: Call, send: Send, jaeger: str) -> None:
    send()
    (told,) = call("trace", "4711", "--json").lines
    opened = call("trace", "4711", "--open", "--jaeger", f"{jaeger}/").out.splitlines()

    assert opened == [f"{jaeger}/trace/{told['trace']}", "no browser here: open it on your own machine"]
    assert told["start"][0]["trace"] in call("trace", "4711", "--episode", "1", "--open", "--jaeger", jaeger).out
    assert call("trace", "4711", "--open", "--jaeger", jaeger, "--json").lines == [{"url": opened[0]}]


def test_a_jaeger_without_its_page_is_told(
    call: Call, send: Send, jaeger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send()
    monkeypatch.setattr(Page, "body", b"<h1>This is not the Jaeger UI</h1>")
    address, words = call("trace", "4711", "--open", "--jaeger", jaeger).out.splitlines()
    (told,) = call("trace", "4711", "--open", "--jaeger", jaeger, "--json").lines

    assert address.startswith(f"{jaeger}/trace/")
    assert "built without its page" in words
    assert told == {"url": address, "trouble": words}


def test_an_address_where_nothing_is_is_told(call: Call, send: Send) -> None:
    send()

    assert "nothing answers there" in call("trace", "4711", "--open", "--jaeger", "http://127.0.0.1:1").out


def test_the_jaeger_of_up_is_taken_before_the_usual_one(
    call: Call, send: Send, jaeger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send()
    file = tmp_path / ".longwatch" / "servers" / "addresses.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"jaeger": jaeger, "prometheus": "http://127.0.0.1:9090"}))
    monkeypatch.setattr(trace, "JAEGER", "http://127.0.0.1:1")

    def opened(*words: str) -> str:
        return call("trace", "4711", "--open", *words).out.partition("/trace/")[0]

    assert opened() == jaeger
    assert opened("--jaeger", "http://127.0.0.1:2") == "http://127.0.0.1:2"
    for broken in ('{"prometheus": "http://127.0.0.1:9090"}', "[]", "{", '{"jaeger": 5}'):
        file.write_text(broken)
        assert opened() == "http://127.0.0.1:1"
    file.unlink()
    assert opened() == "http://127.0.0.1:1"


# -- files and collectors ----------------------------------------------------------------------------------------------


def names_in(raw: bytes) -> list[str]:
    request: Any = ExportTraceServiceRequest.FromString(raw)
    return sorted(s.name for r in request.resource_spans for scoped in r.scope_spans for s in scoped.spans)


class Collector(HTTPServer):
    """Takes spans over HTTP, or says that it does not."""

    got: ClassVar[list[bytes]] = []
    status: ClassVar[int] = 200


class Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        Collector.got.append(body)
        self.send_response(Collector.status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[str]:
    Collector.got, Collector.status = [], 200
    with serving(Collector(("127.0.0.1", 0), Answers)) as address:
        yield address


def test_spans_go_into_a_file(call: Call, send: Send, tmp_path: Path) -> None:
    send()
    send("Decided", approve=True)
    (told,) = call("trace", "4711", "--otlp", "run.pb", "--json").lines
    call("trace", "4711", "--otlp", "run.json")

    names = names_in((tmp_path / "run.pb").read_bytes())
    assert len(names) == told["spans"]
    assert {"process OrderPlaced", "invoke_workflow orders", "publish OrderShipped"} <= set(names)
    (resource,) = json.loads((tmp_path / "run.json").read_text())["resourceSpans"]
    assert sorted(span["name"] for span in resource["scopeSpans"][0]["spans"]) == names


def test_spans_go_to_a_collector(call: Call, send: Send, collector: str) -> None:
    send()
    (told,) = call("trace", "4711", "--export", "--endpoint", collector, "--json").lines

    assert told["sent"] == told["spans"] == sum(len(names_in(raw)) for raw in Collector.got)
    (again,) = call("trace", "4711", "--export", "--endpoint", collector, "--json").lines
    assert Collector.got[0] == Collector.got[-1]
    assert again == told


def test_a_rule_that_leaves_a_run_out_does_not_count_for_it_alone(
    call: Call, send: Send, collector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send()
    monkeypatch.setenv("LONGWATCH_TRACE_RULE", "halted")

    (told,) = call("trace", "4711", "--export", "--endpoint", collector, "--json").lines
    assert told["sent"] > 0


def test_all_runs_are_sent_by_the_rule(call: Call, send: Send, collector: str) -> None:
    send(key="1", eur=-1)
    send(key="2")
    sent = ("trace", "--all", "--export", "--endpoint", collector, "--json")
    (every,) = call(*sent).lines
    (failed,) = call(*sent, "--rule", "errors").lines
    (alone,) = call("trace", "1", "--export", "--endpoint", collector, "--json").lines

    assert every["sent"] > failed["sent"] == alone["sent"]
    assert call(*sent, "--until", "2020-01-01").lines[0]["records"] == 0
    assert call(*sent, "--since", "1h").lines[0]["sent"] == every["sent"]
    assert call(*sent, "--workflow", "other").lines[0]["records"] == 0


def test_all_runs_go_into_a_file(call: Call, send: Send, tmp_path: Path) -> None:
    send(key="1")
    send(key="2")
    (told,) = call("trace", "--all", "--otlp", "all.pb", "--json").lines

    assert len(names_in((tmp_path / "all.pb").read_bytes())) == told["spans"]


def test_a_collector_that_does_not_answer_is_told(call: Call, send: Send) -> None:
    send()
    ended = call("trace", "4711", "--export", "--endpoint", "http://127.0.0.1:9")

    assert ended.code == 8
    assert "takes no spans" in ended.err
    assert "nothing is lost, --endpoint URL names another one" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_a_collector_that_takes_nothing_is_not_said_to_be_waited_for(
    call: Call, send: Send, collector: str, status: int
) -> None:
    send()
    Collector.status = status
    ended = call("trace", "4711", "--export", "--endpoint", collector)

    assert ended.code == 8
    assert "when it is back" not in ended.err
    assert "tried again" not in ended.err


def exporter_file(tmp_path: Path, endpoint: str, log_id: str) -> None:
    raw = msgspec.json.encode(ExporterFile(log_id, endpoint=endpoint))
    (tmp_path / ".longwatch" / "exporter.json").write_bytes(raw)


def test_where_the_engine_sends_its_traces_those_of_one_run_go_too(
    call: Call, send: Send, engine: PlainEngine, collector: str, tmp_path: Path
) -> None:
    send()
    exporter_file(tmp_path, collector, engine.log.header.log_id)
    (told,) = call("trace", "4711", "--export", "--json").lines
    (every,) = call("trace", "--all", "--export", "--json").lines

    assert told["endpoint"] == every["endpoint"] == collector
    assert told["sent"] == told["spans"]
    assert call("trace", "4711", "--export", "--endpoint", "http://127.0.0.1:1").code == 8


@pytest.mark.parametrize(
    ("endpoint", "log_id"),
    [("", ""), ("http://***@127.0.0.1:1", ""), ("http://me:key@127.0.0.1:1", ""), ("http://127.0.0.1:1", "another")],
)
def test_an_exporter_that_tells_no_address_for_this_log_is_no_collector(
    call: Call, send: Send, engine: PlainEngine, tmp_path: Path, endpoint: str, log_id: str
) -> None:
    send()
    exporter_file(tmp_path, endpoint, log_id or engine.log.header.log_id)
    ended = call("trace", "4711", "--export")

    assert ended.code == 2
    assert "give --endpoint URL" in ended.err


def test_sending_that_is_switched_off_is_told(call: Call, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    send()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    ended = call("trace", "4711", "--export", "--endpoint", "http://127.0.0.1:1")

    assert ended.code == 2
    assert "OTEL_SDK_DISABLED is true" in ended.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("trace",), "say which run, or --all"),
        (("trace", "--all"), "--export or --otlp FILE"),
        (("trace", "4711", "--export"), "there is no collector"),
        (("trace", "4711", "--otlp", "nodir/x.json"), "--otlp: there is no folder nodir: make it first"),
        (("trace", "--all", "--otlp", "nodir/x.pb"), "--otlp: there is no folder nodir: make it first"),
        (("trace", "4711", "--otlp", ".longwatch"), "--otlp: .longwatch cannot be written (Is a directory)"),
        (("trace", "4711", "--since", "1h"), "--since: goes with --all only"),
        (("trace", "4711", "--until", "1h"), "--until: goes with --all only"),
        (("trace", "4711", "--export", "--rule", "all"), "--rule: goes with --all only"),
        (("trace", "4711", "--export", "--endpoint", "nonsense"), "--endpoint: 'nonsense' must be a URL"),
        (("trace", "4711", "--export", "--endpoint", ""), "--endpoint: '' must be a URL"),
        (("trace", "4711", "--open", "--jaeger", "nonsense"), "--jaeger: 'nonsense' must be a URL"),
        (("trace", "4711", "--open", "--jaeger", "http://here:99999"), "--jaeger: 'http://here:99999' must be a URL"),
        (("trace", "--all", "--otlp", "x.pb", "--open"), "--all goes without a run"),
        (("trace", "--all", "--otlp", "x.pb", "--since", "yesterday"), "must be a time like"),
        (("trace", "--all", "--otlp", "x.json"), "protobuf only"),
        (("trace", "--all", "--otlp", "x.pb", "--rule", "some"), "is no part of a rule"),
    ],
)
def test_what_cannot_be_meant_is_a_wrong_argument(call: Call, send: Send, words: tuple[str, ...], why: str) -> None:
    send()
    ended = call(*words)

    assert ended.code == 2
    assert why in " ".join(ended.err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 ms"),
        (12.4, "12 ms"),
        (1_500, "1.5 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h"),
        (90_061_000, "1 d 1 h"),
    ],
)
def test_a_stretch_of_time_has_two_units(ms: float, words: str) -> None:
    assert lasting(ms) == words


@pytest.mark.parametrize(("ms", "words"), [(0, "0 ms"), (1e-06, "0 ms"), (0.001, "0.001 ms"), (12.34, "12.3 ms")])
def test_nothing_is_measured_below_a_microsecond(ms: float, words: str) -> None:
    assert wall(ms) == words


@pytest.mark.parametrize("attempts", [(1,), (2,), (1, 2)])
def test_the_number_of_an_attempt_does_not_hang_on_the_name_of_its_step(
    capsys: pytest.CaptureFixture[str], attempts: tuple[int, ...]
) -> None:
    call = CallNode("1.0", "attempt_payment", [AttemptNode(number, "failed", 5.0) for number in attempts])
    episode = EpisodeNode(1, "event Paid", "f" * 32, "f" * 16, 0, 0, calls=[call])
    draw_run(RunNode("orders", "1", "r", 1, "f" * 32, "", "waiting", 0, 0, 1, start=[episode]), 0)
    lines = [line for line in capsys.readouterr().out.splitlines() if "failed" in line]

    assert [f"attempt {number}" in line for number, line in zip(attempts, lines, strict=True)] == [
        number > 1 or len(attempts) > 1 for number in attempts
    ]
