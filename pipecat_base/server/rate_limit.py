"""A token bucket."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds of its average rate that a sender may use at once: a file, or what a stalled network kept back.
BURST_SECONDS = 10.0


class RateLimit:
    """Allows ``rate`` units a second, on average over :data:`BURST_SECONDS`. Called for every WebSocket frame."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = BURST_SECONDS * rate
        self._clock = clock
        self._tokens = self._burst
        self._refilled_at = clock()

    def take(self, count: int = 1) -> bool:
        """Use ``count`` units; False, and none is used, when that many are not left."""
        now = self._clock()
        tokens = self._tokens + (now - self._refilled_at) * self._rate
        self._refilled_at = now
        self._tokens = tokens = min(self._burst, tokens)
        if tokens < count:
            return False
        self._tokens = tokens - count
        return True
