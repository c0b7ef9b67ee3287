"""`make observe` and `longwatch up` but for the engine: what they wire, what they compare, how they end."""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import grafana
from engine.cli import up
from engine.cli.app import app
from engine.cli.exits import code_of
from observability import observe
from observability.jaeger import Comparison
from observability.observe import DemoProcess, NotSeen, Seen, own_folder, see_alerts, see_panels
from observability.servers.errors import ServerFailed
from observability.servers.jaeger import Jaeger
from observability.servers.prometheus import QueryFailed, Sample
from observability.servers.stack import Stack
from observability.servers.tool import JAEGER, PROMETHEUS, Installed, Tool

STAND_IN = "tests.observability.stand_in"
APP = "workflows.insurance_claim:application"


class Answers:
    """A Prometheus that answers as it is told."""

    def __init__(self, answer: Callable[[str], list[Sample]], rules: list[dict[str, Any]] | None = None) -> None:
        self.query, self._rules = answer, rules or []

    def rules(self) -> list[dict[str, Any]]:
        return self._rules


def rule(name: str, **changes: str) -> dict[str, Any]:
    return {"name": name, "health": "ok", "lastError": "", "state": "inactive"} | changes


def wired() -> Any:
    return SimpleNamespace(otlp="http://127.0.0.1:4318", metrics="127.0.0.1:9464")


def test_a_panel_without_figures_counts_unless_its_board_says_why() -> None:
    asked = grafana.queries()
    silent: Any = Answers(lambda expression: [])
    nan: Any = Answers(lambda expression: [Sample({}, math.nan)])
    full: Any = Answers(lambda expression: [Sample({}, 0.0)])
    seen = [Seen(), Seen(), Seen()]

    for prometheus, each in zip((silent, nan, full), seen, strict=True):
        see_panels(prometheus, each)

    panels = {(query.board, query.panel) for query in asked}
    must = {(query.board, query.panel) for query in asked if not query.may_be_empty}
    assert [each.panels for each in seen] == [len(panels)] * 3
    assert [len(each.panels_empty) for each in seen] == [len(must), len(must), 0]
    assert [each.panels_may_be_empty for each in seen] == [len(panels - must), len(panels - must), 0]


def test_a_query_that_prometheus_refuses_counts_whatever_its_board_says() -> None:
    def refuse(expression: str) -> list[Sample]:
        assert "$__" not in expression
        assert "$workflow" not in expression
        raise QueryFailed(f"no: {expression}")

    refusing: Any = Answers(refuse)
    seen = Seen()
    see_panels(refusing, seen)

    assert len(seen.panels_empty) == seen.panels


def test_alerts_in_error_and_those_that_prometheus_does_not_know_are_named() -> None:
    first, second, third, *rest = [alert.name for alert in grafana.alerts()]
    rules = [
        rule(first, health="err", lastError="many-to-many"),
        rule(third, state="firing"),
        *(rule(name) for name in rest),
    ]
    prometheus: Any = Answers(lambda expression: [], rules)
    seen = Seen()

    see_alerts(prometheus, seen)

    assert seen.alerts == len(rest) + 3
    assert sorted(seen.alerts_in_error) == sorted(
        [f"{first}: many-to-many", f"{second}: Prometheus does not have it among its rules"]
    )
    assert seen.alerts_firing == [third]


def test_the_facts_hold_only_when_everything_does() -> None:
    equal = Comparison(expected=3, found=3)
    good = Seen(spans=equal, again=equal)

    assert good.holds
    assert not Seen(spans=Comparison(), again=equal).holds
    assert not Seen(spans=equal, again=Comparison(expected=3, missing=1)).holds
    assert not Seen(spans=equal, again=equal, panels_empty=["x"]).holds
    assert not Seen(spans=equal, again=equal, alerts_in_error=["x"]).holds
    wanted = {
        "runs",
        "episodes",
        "spans_expected",
        "spans_in_jaeger",
        "spans_differing",
        "panels",
        "panels_empty",
        "alerts",
        "alerts_in_error",
    }
    assert wanted <= json.loads(json.dumps(good.facts())).keys()


def test_the_demo_is_wired_held_and_ended(tmp_path: Path) -> None:
    demo = DemoProcess(STAND_IN, tmp_path, wired(), ["--claims", "3"], piped=True)
    demo.until_held()
    summary = demo.end()

    assert summary["claims"] == 3
    assert summary["exit_code"] == 0
    assert summary["words"] == [
        *("--data", str(tmp_path), "--otlp", "http://127.0.0.1:4318", "--metrics", "127.0.0.1:9464", "--hold"),
        *("--claims", "3"),
    ]


def test_a_demo_ends_with_who_watches_it(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from observability.observe import DemoProcess;"
        "from tests.observability.test_observe import STAND_IN, wired;"
        "demo = DemoProcess(STAND_IN, Path(sys.argv[1]), wired(), [], piped=True);"
        "demo.until_held(); print(demo.process.pid, flush=True); demo.process.wait()"
    )
    watching = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with watching:
        assert watching.stdout is not None
        demo = os.pidfd_open(int(watching.stdout.readline()))
        watching.kill()
    try:
        assert select.select([demo], [], [], 60)[0]
    finally:
        os.close(demo)


def test_a_demo_that_fails_is_told(tmp_path: Path) -> None:
    demo = DemoProcess(STAND_IN, tmp_path, wired(), ["--fail"], piped=True)

    with pytest.raises(NotSeen, match="exit code 3"):
        demo.until_held()
    assert demo.end() == {"exit_code": 3}


def test_a_second_one_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with own_folder(tmp_path), pytest.raises(NotSeen, match="another `make observe`"), own_folder(tmp_path):
        pass
    (tmp_path / "servers" / "prometheus").mkdir(parents=True)

    with own_folder(tmp_path):
        left = (tmp_path / "servers").exists()
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert not left


def test_what_fails_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = observe.main(["--check", "--data", str(tmp_path), "--demo", STAND_IN, "--fail"])

    assert code == 1
    assert "make observe: the demo ended with exit code 3" in capsys.readouterr().err


@pytest.fixture
def there(installed: Callable[[Tool], Installed]) -> None:
    """See that both servers are there before a test's own limit of time counts."""
    for tool in (JAEGER, PROMETHEUS):
        installed(tool)


def test_a_stack_leaves_to_the_user_what_the_user_has(there: None, tmp_path: Path) -> None:
    stack = Stack(
        tmp_path, tmp_path / "targets.json", otlp="https://collector.example", metrics="0.0.0.0:9999", known_ports=False
    )
    with stack:
        stack.check()
        facts = stack.facts()

    assert stack.jaeger is None
    assert (stack.otlp, stack.metrics) == ("https://collector.example", "0.0.0.0:9999")
    assert facts["metrics"] == "http://127.0.0.1:9999/metrics"
    assert "jaeger" not in facts
    assert not stack.prometheus.lives


def test_a_stack_that_cannot_be_whole_leaves_nothing(
    there: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Jaeger] = []
    start = Jaeger.start

    def noted(self: Jaeger) -> Jaeger:
        started.append(self)
        return start(self)

    monkeypatch.setattr(Jaeger, "start", noted)

    with pytest.raises(Exception, match="promtool refuses"), Stack(tmp_path, tmp_path / "t", rules="groups: 1"):
        pass

    assert [each.lives for each in started] == [False]


def test_no_password_of_a_collector_is_shown(tmp_path: Path) -> None:
    stack = Stack(tmp_path, tmp_path / "targets.json", otlp="https://me:hush@collector:4318/v1/traces?key=hush")
    servers: Any = SimpleNamespace(url="http://127.0.0.1:9090", installed=SimpleNamespace(has_page=True))
    stack.prometheus = servers

    assert "hush" not in str((stack.facts(), stack.rows()))
    assert stack.facts()["otlp"] == "https://collector:4318/v1/traces"


def test_up_starts_servers_runs_the_engine_wired_to_them_and_ends_them(
    there: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: dict[str, Any] = {}

    def run(application: str | None, data: Path | None, **options: Any) -> None:
        ran.update(options, application=application, data=data)
        ran["told"] = json.loads((tmp_path / "d" / "servers" / "addresses.json").read_text())

    monkeypatch.setattr("engine.cli.run.run", run)
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["up", "--app", APP, "--data", "d", "--lapse", "9", "--json"])

    assert said.exit_code == 0, said.output
    servers = json.loads(said.stdout.splitlines()[0])
    assert servers["event"] == "servers"
    assert ran["told"] == {name: servers[name] for name in ("jaeger", "prometheus", "grafana") if name in servers}
    assert not (tmp_path / "d" / "servers" / "addresses.json").exists()
    assert {"jaeger", "prometheus", "otlp", "metrics"} <= servers.keys()
    assert ran["otlp"] == servers["otlp"]
    assert servers["metrics"] == f"http://{ran['metrics']}/metrics"
    assert (ran["application"], ran["data"], ran["lapse"]) == (APP, Path("d"), 9)
    assert (tmp_path / "d" / "servers" / "jaeger" / "jaeger.log").exists()
    assert "LongwatchEngineDown" in (tmp_path / "d" / "servers" / "alerts.yaml").read_text()
    configuration = json.loads((tmp_path / "d" / "servers" / "prometheus" / "prometheus.yml").read_text())
    assert configuration["scrape_configs"][0]["file_sd_configs"][0]["files"] == [str(tmp_path / "d" / "targets.json")]
    assert configuration["rule_files"]


def test_up_sends_as_the_settings_say(there: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: dict[str, Any] = {}
    monkeypatch.setattr("engine.cli.run.run", lambda *words, **options: ran.update(options))
    monkeypatch.setenv("LONGWATCH_OTLP_PROTOCOL", "grpc")
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["up", "--app", APP, "--json"])

    assert said.exit_code == 0, said.output
    receivers = json.loads((tmp_path / ".longwatch/servers/jaeger/jaeger.yaml").read_text())["receivers"]
    assert ran["otlp"] == f"http://{receivers['otlp']['protocols']['grpc']['endpoint']}"


def test_up_prints_where_to_look(there: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.cli.run.run", lambda *words, **options: None)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, ["up", "--app", APP])

    assert said.exit_code == 0, said.output
    for word in ("Jaeger", "Prometheus", "metrics", "traces to", "Grafana", "http://127.0.0.1:"):
        assert word in said.stdout


@pytest.mark.parametrize(
    ("environment", "words", "says"),
    [
        ({}, [], "no application in "),
        ({"LONGWATCH_TRACE_RULE": "banana"}, ["--app", APP], "LONGWATCH_TRACE_RULE: trace_rule = 'banana'"),
        ({"LONGWATCH_PARTITIONS": "three"}, ["--app", APP], "LONGWATCH_PARTITIONS"),
    ],
)
def test_up_refuses_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: list[str], says: str
) -> None:
    def enter(self: Stack) -> Stack:
        raise AssertionError("servers were started")

    monkeypatch.setattr(Stack, "__enter__", enter)
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    error = CliRunner().invoke(app, ["up", *words]).exception

    assert says in str(error)
    assert code_of(error or Exception()) == 2


class Mourned:
    """A server that ends when it is told."""

    def __init__(self, name: str, pid: int) -> None:
        self.name, self.pid, self.url, self.words = name, pid, f"http://{name}", ""

    def check(self) -> None:
        if self.words:
            raise ServerFailed(self.words)


def test_each_server_that_ends_by_itself_is_told_once(tmp_path: Path) -> None:
    stack = Stack(tmp_path, tmp_path / "targets.json")
    jaeger: Any = Mourned("jaeger", 1)
    prometheus: Any = Mourned("prometheus", 2)
    stack.jaeger, stack.prometheus = jaeger, prometheus
    assert stack.ended() == []

    jaeger.words = "jaeger ended with code -9"
    first = [stack.ended(), stack.ended()]
    prometheus.words = "prometheus ended with code -9"
    second = [stack.ended(), stack.ended()]

    assert (first, second) == ([["jaeger ended with code -9"], []], [["prometheus ended with code -9"], []])


@pytest.mark.parametrize("as_json", [False, True])
def test_up_tells_of_a_server_that_ends_while_the_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    asked = threading.Event()
    words = ["jaeger ended with code -9; nothing is in jaeger.log"]

    def ended() -> list[str]:
        if words:
            return [words.pop()]
        asked.set()
        return []

    stack: Any = SimpleNamespace(ended=ended)
    monkeypatch.setattr(up, "_LOOK_SECONDS", 0.001)
    with up._watched(stack, as_json=as_json):
        assert asked.wait(60)
    said = capsys.readouterr()

    if as_json:
        told = json.loads(said.out)
        assert (told["event"], told["message"]) == ("server", "jaeger ended with code -9; nothing is in jaeger.log")
    else:
        assert said.err == "longwatch: jaeger ended with code -9; nothing is in jaeger.log\n"


def test_addresses_of_servers_are_told_where_a_command_looks_for_them_while_they_run(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "servers", tmp_path / "targets.json")
    prometheus: Any = Mourned("prometheus", 2)
    stack.prometheus = prometheus

    stack.tell(tmp_path / "demo" / "servers")
    files = list((tmp_path / "demo" / "servers").iterdir())
    told = json.loads(files[0].read_text())
    stack.__exit__(None, None, None)

    assert [path.name for path in files] == ["addresses.json"]
    assert told == {"prometheus": "http://prometheus"}
    assert not files[0].exists()


def test_make_observe_tells_the_demos_own_folder_when_its_engine_has_one(tmp_path: Path) -> None:
    told: list[Path] = []
    (tmp_path / "engine.json").touch()
    os.utime(tmp_path / "engine.json", (1, 1))

    def ended() -> list[str]:
        if told:
            process.terminate()
        (tmp_path / "engine.json").touch()
        return []

    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        demo: Any = SimpleNamespace(process=process)
        stack: Any = SimpleNamespace(ended=ended, tell=told.append)
        observe.look(stack, demo, tmp_path)

    assert told == [tmp_path / "servers"]
