"""A Grafana to push to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.grafana.grafana_server import Grafana, serve


@pytest.fixture
def server() -> Iterator[Grafana]:
    with serve(Grafana()) as running:
        yield running
