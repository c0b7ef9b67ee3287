"""Limits that hold across all workers, and a provider that is down is probed, not hammered.

| file | what |
| --- | --- |
| limit.py, outcome.py | what a user of the room says: how much, and what became of a call |
| gates.py | the front: who may pass, and the conversation with the server |
| gate.py, waiters.py, passes.py | one gate as a worker sees it, without I/O |
| scripts.py, link.py | what stands in Redis, and the script that decides; the connection |
| state.py | the same from outside, for people |

**Why no library.** A call may start when its provider is not down, a slot is free, and the last minute has room for one
more request *and* for its tokens; all of it or nothing, in one step on the server, or a worker that is refused by the
second limit has used up the first. Each of what we looked at does one window, and not quite ours:

- `limits` (5.8): its moving window is exact, but stands an item for each token, takes the caller's clock, does not
  say how long to wait for more than one, and an estimate cannot be corrected; its sliding window counter is a guess.
- `throttled-py` (3.5): the sliding window is such a counter too, and GCRA lets twice the limit through in a bad minute.
- `pyrate-limiter` (4.5): exact, one member a token, the caller's clock; wants redis>=6.2, which apache-beam forbids.

None has a semaphore with leases. So it is one script of ours, over the server's clock, one entry for each call.

**What is promised.**
- *At once*: never more than `calls` hold a pass, over all living workers. A dead worker's passes come free after the
  lease, or when it starts again under its name. A worker that is cut off from the server for longer than the lease is
  taken for dead while its calls may still run; time in which the server was away for all is not counted.
- *A minute*: the admissions of any minute never exceed `requests`, nor their tokens (estimates, corrected by what was
  used) `tokens`. The window is a second longer than a minute, since requests are not equally long on their way.
- *Order*: in a worker strictly by priority, what has begun first, arrival. Workers are served in turn, so none starves.
- *Down*: after a few outages, or one with a `Retry-After`, nobody passes but one probe at a time, at growing distances.
  Its success opens the gate: for four, then for twice as many each quarter of a second, and soon for all.
- *Server away*: nobody passes a gate that needs it, and all go on by themselves when it is back.
"""

from __future__ import annotations

from engine.limits.gates import Gates
from engine.limits.limit import Limit, NeverFits, Pace
from engine.limits.link import Replaced
from engine.limits.outcome import OK, Ok, Outage, Outcome
from engine.limits.passes import Pass
from engine.limits.state import AtGate, GateState, read_gates

__all__ = [
    "OK",
    "AtGate",
    "GateState",
    "Gates",
    "Limit",
    "NeverFits",
    "Ok",
    "Outage",
    "Outcome",
    "Pace",
    "Pass",
    "Replaced",
    "read_gates",
]
