"""Bounds of connections, and the budget of buffered bytes that they share."""

from __future__ import annotations

import contextlib
import resource

MAX_HEADERS = 128
MAX_TRAILER_BYTES = 16 * 1024
# A parser gets at most this much at once: one frame of audio, or a few hundred of the smallest frames.
MAX_PARSE_BYTES = 2048
PARSE_TURN_SECONDS = 0.001
LINGER_SECONDS = 2.0  # a closing connection waits this long for its peer to read the answer and close
MAX_DISCARDED_BYTES = 8 * 1024 * 1024
FINAL_REQUESTS_SECONDS = 3  # requests other than sessions get this long when the server shuts down
SPARE_CONNECTIONS = 64
SMALL_BODY_BYTES = 64 * 1024  # a body of this size is accepted even when the shared budget is used up
DEFAULT_MAX_CONNECTIONS = 4096


class BufferBudget:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0

    def lease(self) -> BufferLease:
        return BufferLease(self)

    def adjust(self, difference: int) -> bool:
        self.size += difference
        return self.size <= self._limit


class BufferLease:
    def __init__(self, buffer_budget: BufferBudget) -> None:
        self._buffer_budget = buffer_budget
        self._size = 0
        self._is_closed = False

    def add(self, size: int) -> bool:
        """Count received bytes; False when there is no room for them."""
        if self._is_closed:
            return True
        self._size += size
        return self._buffer_budget.adjust(size) or self._size <= SMALL_BODY_BYTES

    def clear(self) -> None:
        self.keep(0)

    def keep(self, size: int) -> None:
        """The body or message is complete; ``size`` bytes still wait for the application."""
        self._buffer_budget.adjust(size - self._size)
        self._size = size

    def close(self) -> None:
        self.clear()
        self._is_closed = True


def raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS reports "unlimited", but has a limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def descriptor_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 3 * DEFAULT_MAX_CONNECTIONS


def connections_for(descriptors: int) -> int:
    """Connections that a process with this many descriptors may have: sessions need descriptors too."""
    return max(1, min(DEFAULT_MAX_CONNECTIONS, descriptors // 3))
