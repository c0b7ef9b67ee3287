"""Runs in memory, with a calendar that the test moves. Nothing sleeps, nothing is written.

    run = Simulation(insurance_claim)
    run.fake(fetch_policy, lambda policy_id: Policy(limit_eur=1_000))
    run.send(ClaimFiled(claim=CLAIM))
    run.advance(days=15)
    assert run.state() == Expired(claim=CLAIM)

Every entry is folded twice, each time from the stored bytes as after a crash: a handler that does not answer the same
twice, and a state that does not come back from its bytes, are found at once. A handler that raises halts the run, as it
would in the engine: `run.halted()` says why.
"""

from engine.testing.model import ProviderError
from engine.testing.recorded import NotRecorded, RecordedAnswers
from engine.testing.run import NotRepeatable
from engine.testing.simulation import Simulation
from engine.testing.simulations import Simulations
from engine.testing.thinking import NotFaked
from engine.testing.world import START

__all__ = [
    "START",
    "NotFaked",
    "NotRecorded",
    "NotRepeatable",
    "ProviderError",
    "RecordedAnswers",
    "Simulation",
    "Simulations",
]
