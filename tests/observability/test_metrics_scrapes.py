"""What a scraper gets, read by the real parsers of prometheus_client."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from engine.core.entry import Used
from engine.core.record import Episode, Group, Halted, Published
from engine.core.trace import run_trace
from engine.gauges import Figures, PartitionLag
from engine.instruments import ExporterSigns, Readings
from engine.limits import AtGate, GateState
from engine.view.survey import Found
from engine.view.view import Count
from engine.vitals import VitalSigns
from observability import metrics_server
from observability.metric import CATALOGUE
from observability.metrics import Exposition
from observability.metrics_server import address, listed
from observability.scrapes import PortTaken, ScrapeServer
from observability.tally import SeenLetter, Tally
from tests.observability.counted import record, tally_of

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
NOW = 1_700_000_000_000


def full_tally() -> Tally:
    """One of everything that is counted."""
    tally = tally_of(
        [
            record(seq=1, name="Submitted", to="Review", since=NOW, starts=2, episode=Episode(1, NOW)),
            record(
                cause="kept", name="assess", again=True, used=Used("m", input=10, output=4, cached=1, cost=1_500_000)
            ),
            record(cause="kept", name="assess", used=Used("m", input=10)),
            record(cause="result", name="assess", attempt=1, started=1, took=30_000, episode=Episode(1, NOW)),
            record(cause="failure", name="assess", attempt=1, started=1, took=9_000_000_000, error="InvalidAnswer: no"),
            record(cause="timer", name="Review.expire", late=20, published=(Published("p", "Decided"),)),
            record(halted=Halted("ValueError: no")),
            record(
                name="Decided",
                from_="Review",
                to="Paid",
                since=NOW,
                left=(Group("Review", 1, NOW - 5_000),),
                began=NOW - 5_000,
                status="finished",
            ),
        ]
    )
    tally.take_letter(SeenLetter("claims"))
    return tally


def full_readings() -> Readings:
    """One of everything that is read."""
    return Readings(
        at=NOW,
        log_time=NOW,
        figures=Figures({"waiting": 3}, 1_500, 2, NOW, (PartitionLag(0, "5-0", "4-0", 1_500),)),
        counts=(Count("claims", "Review", "waiting", 3),),
        found=Found({("claims", "Review"): NOW - 90_000}, {"claims": 1}),
        gates=(GateState("model:m", workers={"w": AtGate(0, 4)}), GateState("provider:p", shut_since=5)),
        budgets={"claims": 0.25},
        vitals=VitalSigns(NOW, "running", 1, 2, NOW - 3_000),
        view_lag_ms=40,
        exporter=ExporterSigns(NOW, records={0: 1}, sent=10, refused=1, failures={"http 503": 4}),
        exporter_lag_ms=2_000,
    )


def whole() -> Exposition:
    tally = full_tally()
    exposition = Exposition(tally)
    exposition.is_whole = True
    exposition.show(full_readings())
    return exposition


@pytest.fixture
def serve() -> Iterator[Callable[..., ScrapeServer]]:
    with ExitStack() as ended:

        def start(exposition: Exposition | None = None, port: int = 0) -> ScrapeServer:
            server = ScrapeServer("127.0.0.1", port, exposition or whole())
            ended.callback(server.server_close)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            ended.callback(server.shutdown)
            return server

        yield start


def get(server: ScrapeServer, path: str = "/metrics", **headers: str) -> tuple[bytes, dict[str, str]]:
    asked = {name.replace("_", "-"): value for name, value in headers.items()}
    with urlopen(Request(f"http://127.0.0.1:{server.port}{path}", headers=asked), timeout=5) as answer:
        return answer.read(), dict(answer.headers)


def values(text: str, parse: Any = parse_text) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    samples = [each for family in parse(text) for each in family.samples]
    return {(s.name, tuple(v for _, v in sorted(s.labels.items()))): s.value for s in samples}


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "parse"), [("text/plain", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_every_metric_of_the_catalogue_is_there_with_exactly_its_labels(accept: str, parse: Any) -> None:
    body, _ = whole().render(accept)
    found: dict[str, set[frozenset[str]]] = {}
    for family in parse(body.decode()):
        for sample in family.samples:
            name = next(
                (sample.name.removesuffix(end) for end in ("_bucket", "_sum", "_count") if sample.name.endswith(end)),
                sample.name,
            )
            found.setdefault(name, set()).add(frozenset(sample.labels) - {"le"})

    assert found == {metric.name: {frozenset(metric.labels)} for metric in CATALOGUE}


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_is_sent_is_what_prometheus_client_writes_byte_for_byte(accept: str, is_whole: bool) -> None:
    exposition = whole()
    exposition.is_whole = is_whole
    exposition.tally.take(record(name='a"b\\c\nd', starts=10**7))
    encoder, _ = choose_encoder(accept)

    assert exposition.render(accept)[0].decode() == encoder(exposition).decode()


def test_the_numbers_are_those_that_were_counted_and_read() -> None:
    found = values(whole().render("text/plain")[0].decode())

    assert found["longwatch_runs_started_total", ("claims",)] == 1
    assert found["longwatch_runs_finished_total", ("Paid", "claims")] == 1
    assert found["longwatch_run_duration_seconds_sum", ("claims",)] == 5
    assert found["longwatch_run_duration_seconds_bucket", ("1.0", "claims")] == 0
    assert found["longwatch_run_duration_seconds_bucket", ("10.0", "claims")] == 1
    assert found["longwatch_run_duration_seconds_bucket", ("+Inf", "claims")] == 1
    assert found["longwatch_step_duration_seconds_bucket", ("+Inf", "assess", "claims")] == 2
    assert found["longwatch_step_duration_seconds_bucket", ("3600.0", "assess", "claims")] == 1
    assert found["longwatch_step_duration_seconds_sum", ("assess", "claims")] == 9_000.03
    assert found["longwatch_llm_cost_euros_total", ("m", "claims")] == 1.5
    assert found["longwatch_runs", ("Review", "waiting", "claims")] == 3
    assert found["longwatch_state_oldest_age_seconds", ("Review", "claims")] == 90
    assert found["longwatch_timers_overdue", ("claims",)] == 1
    assert found["longwatch_gate_open", ("model:m",)] == 1
    assert found["longwatch_gate_open", ("provider:p",)] == 0
    assert found["longwatch_gate_waiting", ("model:m",)] == 4
    assert found["longwatch_log_lag_seconds", ()] == 1.5
    assert found["longwatch_exporter_lag_records", ()] == 7
    assert found["longwatch_checkpoint_age_seconds", ()] == 3
    assert found["longwatch_budget_used_ratio", ("claims",)] == 0.25
    assert found["longwatch_engine_up", ()] == 0  # its supervisor is not there


def test_both_forms_say_the_same() -> None:
    exposition = whole()
    text, metrics = exposition.render("text/plain")[0], exposition.render(OPENMETRICS)[0]

    assert values(text.decode()) == values(metrics.decode(), parse_openmetrics)


def test_exemplars_carry_the_trace_into_openmetrics_and_no_time() -> None:
    body, _ = whole().render(OPENMETRICS)
    found = {
        sample.name: sample.exemplar
        for family in parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }

    assert found["longwatch_run_duration_seconds_bucket"].labels == {"trace_id": run_trace("ab" * 8)}
    assert found["longwatch_run_duration_seconds_bucket"].value == 5
    assert found["longwatch_step_duration_seconds_bucket"].timestamp is None


def test_counters_are_left_out_until_all_is_counted_so_that_none_goes_back() -> None:
    exposition = whole()
    exposition.is_whole = False
    found = values(exposition.render("text/plain")[0].decode())

    assert not [name for name, _ in found if "runs_started" in name or "duration" in name]
    assert found["longwatch_log_lag_seconds", ()] == 1.5


def test_what_cannot_be_read_is_left_out_and_the_engine_is_not_up() -> None:
    exposition = Exposition(Tally())
    exposition.show(Readings(NOW))
    found = values(exposition.render("text/plain")[0].decode())

    assert {name for name, _ in found} == {"longwatch_engine_up", "longwatch_build_info"}


def test_odd_label_values_are_read_back_as_they_were() -> None:
    exposition = Exposition(tally_of([record(name='a"b\\c\nd')]))
    exposition.is_whole = True
    found = values(exposition.render("text/plain")[0].decode())

    assert ("longwatch_events_total", ("yes", 'a"b\\c\nd', "claims")) in found


def test_the_catalogue_and_the_page_about_it_say_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()

    assert listed() in page


# -- http --------------------------------------------------------------------------------------------------------------


def test_a_scraper_gets_the_form_that_it_asks_for(serve: Callable[..., ScrapeServer]) -> None:
    server = serve()
    _, plain = get(server)
    _, openmetrics = get(server, Accept=OPENMETRICS)

    assert plain["Content-Type"].startswith("text/plain; version=0.0.4")
    assert openmetrics["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")


def test_it_is_packed_for_those_who_can_unpack_it(serve: Callable[..., ScrapeServer]) -> None:
    server = serve()
    packed, headers = get(server, Accept_Encoding="gzip")

    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == get(server)[0]


def test_it_tells_that_it_lives_and_what_it_does_not_have(serve: Callable[..., ScrapeServer]) -> None:
    server = serve()

    assert get(server, "/-/healthy")[0] == b"healthy\n"
    assert b"/metrics" in get(server, "/")[0]
    with pytest.raises(HTTPError, match="404"):
        get(server, "/nothing")


def test_its_head_can_be_asked_for_alone(serve: Callable[..., ScrapeServer]) -> None:
    server = serve()
    with urlopen(Request(f"http://127.0.0.1:{server.port}/metrics", method="HEAD")) as answer:
        assert answer.read() == b""
        assert int(answer.headers["Content-Length"]) > 0


def test_nobody_is_asked_for_its_name(serve: Callable[..., ScrapeServer], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str) -> str:
        pytest.fail(f"a name server was asked for {name}")

    monkeypatch.setattr(socket, "getfqdn", never)

    assert get(serve(), "/-/healthy")[0] == b"healthy\n"


def test_clients_that_never_read_or_never_ask_hold_nobody_up(serve: Callable[..., ScrapeServer]) -> None:
    server = serve()
    with ExitStack() as slow:
        for number in range(20):
            client = slow.enter_context(closing(socket.create_connection(("127.0.0.1", server.port))))
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            else:
                client.sendall(b"GET /metr")
        body, _ = get(server)

    assert b"longwatch_runs_started_total" in body


def test_a_client_that_goes_away_is_no_error(
    serve: Callable[..., ScrapeServer], capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve()
    with closing(socket.create_connection(("127.0.0.1", server.port))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    get(server)

    assert capsys.readouterr().err == ""


def test_a_port_that_is_taken_is_told_in_one_line(serve: Callable[..., ScrapeServer]) -> None:
    server = serve()
    with pytest.raises(PortTaken) as caught:
        ScrapeServer("127.0.0.1", server.port, whole())

    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "Address already in use" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("[::]:9464", ("::", 9464)),
        ("metrics.example:1", ("metrics.example", 1)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_a_port_alone_is_one_of_this_machine(text: str, place: tuple[str, int]) -> None:
    assert address(text) == place


@pytest.mark.parametrize("text", ["", "nine", "9464:", "70000"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give a port"):
        address(text)


def test_the_list_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics_server.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CATALOGUE) + 2
