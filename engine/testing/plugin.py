"""Fixtures for pytest; it finds them by itself where Longwatch is installed.

    def test_a_claim_is_paid(simulate: Simulate) -> None:
        run = simulate(insurance_claim)

When a test fails, the history of each run that it simulated stands in its report.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import pytest

if TYPE_CHECKING:
    from engine.core.application import Application
    from engine.core.definition import Workflow
    from engine.core.model import Event
    from engine.core.record import Record
    from engine.testing import Simulation, Simulations

E = TypeVar("E", bound="Event")
PROVIDERS = "engine.testing.providers"
LINES = 50
_simulated = pytest.StashKey[list[Any]]()


class Simulate(Protocol):
    """Makes a `Simulation` of a workflow, `Simulations` of an application."""

    @overload
    def __call__(
        self, what: Workflow[E], /, now: datetime | None = None, *, others: Sequence[Workflow[Any]] = ()
    ) -> Simulation[E]: ...
    @overload
    def __call__(self, what: Application, /, now: datetime | None = None) -> Simulations: ...


class Providers(Protocol):
    """Starts a model provider on loopback, as `engine.testing.providers.Provider`; it ends with the test."""

    def __call__(self, *script: Any, **more: Any) -> Any: ...  # noqa: ANN401 - as Provider takes and is


@pytest.fixture
def simulate(request: pytest.FixtureRequest) -> Simulate:
    """Runs in memory, with a calendar that the test moves."""
    from engine.core.application import Application  # noqa: PLC0415 - likewise
    from engine.testing import START, Simulation, Simulations  # noqa: PLC0415 - most tests want none

    made: list[Any] = request.node.stash.setdefault(_simulated, [])

    def make(what: Any, /, now: datetime | None = None, *, others: Sequence[Workflow[Any]] = ()) -> Any:  # noqa: ANN401
        if isinstance(what, Application):
            made.append(Simulations(what, now or START))
        else:
            made.append(Simulation(what, now or START, others=others))
        return made[-1]

    return make


@pytest.fixture
def providers() -> Iterator[Providers]:
    """Model providers on loopback that misbehave on order."""
    provider = import_module(PROVIDERS).Provider
    with ExitStack() as stack:
        yield lambda *script, **more: stack.enter_context(provider(*script, **more))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Put the histories of what was simulated into the report of a test that failed."""
    report: Any = yield
    if report.failed:
        for made in item.stash.get(_simulated, []):
            for name, records in made.histories():
                report.sections.append((f"history of {name}", "\n".join(map(_line, records[-LINES:]))))
    return report


def _line(record: Record) -> str:
    from engine.core.context import moment  # noqa: PLC0415 - only after a failure

    told = record.ignored or record.error or (record.halted.error if record.halted else "")
    what = f"{record.cause} {record.name} {record.inner}".strip()
    moved = record.to if record.from_ in ("", record.to) else f"{record.from_} -> {record.to}"
    return f"{moment(record.at):%Y-%m-%d %H:%M:%S}  {what:<40}  {moved}{f'  ({told})' if told else ''}"
