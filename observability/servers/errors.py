"""What can be wrong with a server that Longwatch starts.

LongwatchError
├── ServerMissing    there is no program of it, and none can be built
└── ServerFailed     it does not come up, or it ended
"""

from __future__ import annotations

from engine import LongwatchError


class ServerMissing(LongwatchError):
    """No program to start: the message says what was tried and what to do."""


class ServerFailed(LongwatchError):
    """A server that ended or is silent; the message ends with its last words."""
