"""Real servers for tests. What is not on this machine is built, once: minutes, told on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from observability.servers.install import ensure, find
from observability.servers.jaeger import Jaeger
from observability.servers.prometheus import Prometheus
from observability.servers.tool import JAEGER, PROMETHEUS, Installed, Tool


class StartPrometheus(Protocol):
    """Starts one with these targets and rules; it ends with the test."""

    def __call__(self, **options: Any) -> Prometheus: ...


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Callable[[Tool], Installed]:
    """Finds a server's programs; shows how a build goes, which pytest would hide."""

    def see_to(tool: Tool) -> Installed:
        if there := find(tool):
            return there
        capture = request.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else ExitStack():
            return ensure(tool)

    return see_to


@pytest.fixture(scope="session")
def jaeger(installed: Callable[[Tool], Installed], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """One Jaeger for all tests: each has runs of its own, so traces of its own."""
    with Jaeger(tmp_path_factory.mktemp("servers"), installed=installed(JAEGER)) as server:
        yield server


@pytest.fixture
def prometheus(
    installed: Callable[[Tool], Installed], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartPrometheus]:
    """Starts a Prometheus: `prometheus(targets={"engine": ["127.0.0.1:9464"]}, rules=[...], interval="1s")`."""
    with ExitStack() as started:

        def start(**options: Any) -> Prometheus:
            options.setdefault("interval", "1s")
            folder = tmp_path_factory.mktemp("servers")
            return started.enter_context(Prometheus(folder, installed=installed(PROMETHEUS), **options))

        yield start
