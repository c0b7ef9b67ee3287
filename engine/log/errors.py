"""What can go wrong with the log.

LogError
  LogUnavailable    the server is away, loading, full or read-only: wait and try again
  LogBusy           another engine lives on this log
  Fenced            another engine took this log over: stop
  LogLost           the log is not the one that was read before, or its end is gone
  LogMismatch       the log was made with other settings
"""

from __future__ import annotations


class LogError(Exception):
    """Anything that the log refuses; the message names the thing, the rule and what to do."""


class LogUnavailable(LogError):
    """The log cannot answer now. What was queued is kept: call `reconnect()` and go on."""


class LogBusy(LogError):
    """A living engine holds the lease of this log.

    `host` and `pid` say which.
    """

    def __init__(self, message: str, *, host: str = "", pid: int = 0) -> None:
        super().__init__(message)
        self.host = host
        self.pid = pid


class Fenced(LogError):
    """A newer epoch writes to this log. The holder of the older one must stop; nothing that it sent was written."""


class LogLost(LogError):
    """A reader knows a place that this log does not have: going on would silently lose or repeat work."""


class LogMismatch(LogError):
    """Something is asked of the log that was fixed otherwise when it was made."""
