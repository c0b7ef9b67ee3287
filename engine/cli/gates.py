"""How a limit and a provider that is down are told, to programs and to people. Their times are wall times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.cli.client import time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.limits import GateState


def gate_facts(gate: GateState) -> dict[str, Any]:
    from engine.reports import when

    limit = gate.limit
    return {
        "name": gate.name,
        "at_most": {"calls": limit.calls, "requests": limit.requests, "tokens": limit.tokens} if limit else None,
        "running": gate.running,
        "requests": gate.requests,
        "tokens": gate.tokens,
        "waiting": gate.waiting,
        "waiting_since": when(gate.since),
        "waits_for": gate.waits_for or None,
        "shut_since": when(gate.shut_since),
        "next_probe": when(gate.next_probe),
        "probing": bool(gate.probing),
        "reason": gate.reason or None,
    }


def gate_words(facts: dict[str, Any]) -> str:
    """The same for people, on one line."""
    waiting = f"; {facts['waiting']:,} wait" if facts["waiting"] else ""
    return f"{facts['name']} {_state(facts)}{waiting}"


def _state(facts: dict[str, Any]) -> str:
    if facts["shut_since"]:
        why = f" ({facts['reason']})" if facts["reason"] else ""
        again = "is tried now" if facts["probing"] else f"is tried again at {time(facts['next_probe'])}"
        return f"is shut since {time(facts['shut_since'])}{why}, {again}"
    if facts["waits_for"] == "easing":
        return "opens by and by"
    return f"has {', '.join(_used(facts))}" if facts["at_most"] else "is open"


def _used(facts: dict[str, Any]) -> Iterator[str]:
    for bound, used, words in (
        ("calls", "running", "calls at once"),
        ("requests", "requests", "requests a minute"),
        ("tokens", "tokens", "tokens a minute"),
    ):
        most = facts["at_most"][bound]
        if most is not None:
            yield f"{facts[used]:,} of {most:,} {words}"
