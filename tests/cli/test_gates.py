from __future__ import annotations

from engine.cli.gates import gate_facts, gate_words
from engine.limits import AtGate, GateState, Limit

NOON = 1_763_812_800_000
"""2025-11-22 12:00:00Z."""


def test_a_provider_that_is_down_is_told_with_the_reason_and_the_next_try() -> None:
    gate = GateState(
        "model:judge",
        workers={"subtask-0": AtGate(waiting=4_980, since=NOON)},
        waits_for="shut",
        shut_since=NOON,
        next_probe=NOON + 60_000,
        reason="ProviderUnavailable",
    )

    assert gate_words(gate_facts(gate)) == (
        "model:judge is shut since 2025-11-22 12:00:00Z (ProviderUnavailable), is tried again at 2025-11-22 12:01:00Z"
        "; 4,980 wait"
    )


def test_a_probe_that_is_under_way_is_told() -> None:
    gate = GateState("model:judge", shut_since=NOON, next_probe=NOON, probing="subtask-1")

    assert gate_words(gate_facts(gate)) == "model:judge is shut since 2025-11-22 12:00:00Z, is tried now"


def test_a_limit_is_told_with_what_is_used_of_it() -> None:
    gate = GateState(
        "model:shared",
        Limit(calls=3, requests=24),
        {"subtask-0": AtGate(running=2, waiting=10, since=NOON), "subtask-1": AtGate(running=1)},
        requests=24,
        waits_for="requests",
    )

    assert gate_words(gate_facts(gate)) == (
        "model:shared has 3 of 3 calls at once, 24 of 24 requests a minute; 10 wait"
    )


def test_a_gate_that_opens_after_an_outage_is_told() -> None:
    gate = GateState("step:fetch", workers={"subtask-0": AtGate(waiting=1, since=NOON)}, waits_for="easing")

    assert gate_words(gate_facts(gate)) == "step:fetch opens by and by; 1 wait"
