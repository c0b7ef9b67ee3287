"""A connection on which more came than the answer that was asked for.

HTTP/1.1 answers have no names: what stands in the connection after an answer is taken for the answer to the next
request, which may be another run's. A proxy that repeats an answer shifts all that follow by one. httpcore keeps such
a connection (it looks at an idle connection's socket, not at what h11 has read already); here it is told not to.
"""

from __future__ import annotations

from typing import Any, Final

_INWARD: Final = ("_httpcore_stream", "_stream", "_connection")
"""From a response's stream to its connection, by httpx2's and httpcore's private names; the test sees a change."""


def spoil_if_more_came(stream: object) -> bool:
    """Have the connection closed with this answer if more came; call it before the stream of an answer is closed.

    Returns:
        Whether more came. The answer itself is as good as any.
    """
    state = _h11_state(stream)
    if state is None or not state.trailing_data[0]:
        return False
    state.send_failed()  # a connection in error is not used again
    return True


def _h11_state(stream: object) -> Any:  # noqa: ANN401 - h11 has no types
    """None for HTTP/2, whose answers have names."""
    while stream is not None and not hasattr(stream, "_h11_state"):
        stream = next((getattr(stream, name) for name in _INWARD if hasattr(stream, name)), None)
    return getattr(stream, "_h11_state", None)
