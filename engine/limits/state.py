"""What gates look like from outside, for `longwatch status` and `show`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from engine.limits.limit import Limit, Pace
from engine.limits.scripts import BEATS, NAMES, WORKERS, gate_key, window_key
from engine.log.redis_keys import pairs
from engine.log.redis_wire import Address, Wire, encode


@dataclass(frozen=True)
class AtGate:
    """What one worker has at a gate."""

    running: int = 0
    waiting: int = 0
    """As of a second ago, or two."""
    since: int = 0
    """When its queue began, wall ms; 0: nobody waits."""


@dataclass(frozen=True)
class GateState:
    """A gate over all workers. Times are wall ms, 0: never."""

    name: str
    limit: Limit | None = None
    """None: it has none, and stands here since its provider is or was down."""
    workers: Mapping[str, AtGate] = field(default_factory=dict)
    """The living ones that run or wait here."""
    requests: int = 0
    """Let through in the last minute; counted only where requests or tokens are limited."""
    tokens: int = 0
    """Likewise, as of the last question."""
    waits_for: str = ""
    """What the first that waits waits for: `calls`, `requests`, `tokens`, `shut` or `easing` (just opened)."""
    shut_since: int = 0
    next_probe: int = 0
    probing: str = ""
    """The worker whose call tries the provider now."""
    reason: str = ""
    """Why it is shut, or what the last outage was."""
    failures: int = 0
    """Outages without a success between them."""

    @property
    def running(self) -> int:
        """How many are through and not done; counted only where there is a limit."""
        return sum(worker.running for worker in self.workers.values())

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(worker.waiting for worker in self.workers.values())

    @property
    def since(self) -> int:
        """When the oldest queue began, wall ms; 0: nobody waits."""
        return min((worker.since for worker in self.workers.values() if worker.since), default=0)

    @property
    def is_shut(self) -> bool:
        """Whether the provider is taken to be down."""
        return self.shut_since > 0


def read_gates(url: str, *, pace: Pace | None = None) -> list[GateState]:
    """All gates that a log has had, by name; `pace` is the workers'.

    Raises:
        LogError: the server does not answer.
    """
    pace = pace or Pace()
    with closing(Wire(Address.parse(url))) as wire:
        seconds, micros = wire.call("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        names = sorted(name.decode() for name in wire.call("SMEMBERS", NAMES))
        resumed = int(wire.call("HGET", WORKERS, "resumed") or 0)
        beats = pairs(wire.call("ZRANGE", BEATS, 0, -1, "WITHSCORES"))
        alive = {who for who, beat in beats.items() if now - max(float(beat), resumed) <= pace.lease * 1000}
        oldest = now - int((pace.minute + pace.slack) * 1000)
        requests = [encode("HGETALL", gate_key(name)) for name in names]
        requests += [encode("ZCOUNT", window_key(name), f"({oldest}", "+inf") for name in names]
        replies = wire.call_all(requests) if requests else []
    states = zip(names, replies[: len(names)], replies[len(names) :], strict=True)
    return [_state(name, pairs(flat), counted, alive) for name, flat, counted in states]


def _state(name: str, found: dict[str, str], counted: int, alive: set[str]) -> GateState:
    shut = int(found.get("shut", 0))
    workers = _workers(found, alive)
    waits = any(worker.waiting for worker in workers.values())
    return GateState(
        name=name,
        limit=_limit(found),
        workers=workers,
        requests=counted,
        tokens=int(found.get("used", 0)) if counted else 0,
        waits_for=found.get("blocked", "") if waits else "",
        shut_since=shut,
        next_probe=int(found.get("next", 0)),
        probing=found.get("probe", ""),
        reason=found.get("why", ""),
        failures=int(found.get("failures", 0)),
    )


def _workers(found: dict[str, str], alive: set[str]) -> dict[str, AtGate]:
    by_worker: dict[str, dict[str, int]] = {}
    for name, value in found.items():
        kind, _, worker = name.partition(":")
        if kind in ("running", "waiting", "since") and worker in alive:
            by_worker.setdefault(worker, {})[kind] = int(value)
    return {worker: AtGate(**numbers) for worker, numbers in sorted(by_worker.items())}


def _limit(found: dict[str, str]) -> Limit | None:
    numbers = [int(found.get(name, -1)) for name in ("calls", "requests", "tokens")]
    calls, requests, tokens = (number if number > 0 else None for number in numbers)
    return Limit(calls, requests, tokens) if any((calls, requests, tokens)) else None
