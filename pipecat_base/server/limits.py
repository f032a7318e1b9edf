"""The bounds of connections, and who has used how much of those that all share."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

MAX_HEADERS = 128
"""Of one request, and of the trailers after its body."""
MAX_TRAILERS = 16 * 1024
"""Bytes."""
SLICE = 2048
"""Bytes that a parser gets at once: a frame of audio, or a few hundred of the smallest frames."""
TURN = 0.001
"""Seconds that one connection may parse in one turn of the event loop."""
LINGER = 2.0
"""Seconds that a peer gets to take the last words of a connection and close its end."""
MAX_DISCARDED = 8 * 1024 * 1024
"""Bytes that it may send on meanwhile."""
SPARE_CONNECTIONS = 64
"""Past the bound, for probes and for refusals."""
SMALL_BODY = 64 * 1024
"""Bytes of a body that are taken in any case."""
MOST_CONNECTIONS = 4096
"""Unless the system allows fewer descriptors."""


@dataclass(frozen=True)
class ServerLimits:
    """Times are seconds, sizes bytes.

    Attributes:
        head_timeout: From a request's first byte, or from the connection's begin, to the end of its head.
        body_timeout: From the head to the end of the body; also how long a peer may leave an answer unread.
        max_head: Of a request's line and headers.
        max_connections: At once, WebSockets too.
        max_unfinished: Of all bodies and messages that have not come whole.
        frame_rate: Frames a second that a WebSocket may send, on average.
    """

    head_timeout: float = 10.0
    body_timeout: float = 120.0
    max_head: int = 1024 * 1024
    max_connections: int = 1024
    max_unfinished: int = 128 * 1024 * 1024
    frame_rate: float = 1000.0


class BufferBudget:
    """Bytes that wait for the rest of their body or message.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0

    def share(self) -> BufferLease:
        """One connection's part of it."""
        return BufferLease(self)

    def change(self, difference: int) -> bool:
        """Count it; whether the sum is within the limit."""
        self.size += difference
        return self.size <= self._limit


class BufferLease:
    """What one connection holds."""

    def __init__(self, buffer_budget: BufferBudget) -> None:
        self._buffer_budget = buffer_budget
        self._size = 0
        self._is_closed = False

    def add(self, size: int) -> bool:
        """More has come; False when that is more than there is room for."""
        if self._is_closed:
            return True
        self._size += size
        return self._buffer_budget.change(size) or self._size <= SMALL_BODY

    def clear(self) -> None:
        """It is whole, or given up."""
        self.keep(0)

    def keep(self, size: int) -> None:
        """It is whole, and so much of it waits to be taken."""
        self._buffer_budget.change(size - self._size)
        self._size = size

    def close(self) -> None:
        """The connection is over, whatever is still parsed of it."""
        self.clear()
        self._is_closed = True


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS says "unlimited" and does not mean it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 3 * MOST_CONNECTIONS


def connections_for(descriptors: int) -> int:
    """How many of so many descriptors may be connections: sessions need some of their own."""
    return max(1, min(MOST_CONNECTIONS, descriptors // 3))
