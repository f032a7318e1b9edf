"""How much a process that runs a bot may say: the launcher enforces it, and an honest process keeps to it."""

from __future__ import annotations

import time

FACTS_PER_SECOND = 100
"""Of one process, on average over ten; what is more is dropped."""

VITAL_FACTS = ("failure", "process", "caller", "error")
"""A process that tells too much of other things may still tell these."""
VITAL_FACTS_PER_SECOND = 5


class RateLimit:
    """So many a second, on average over ten seconds."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = 10 * rate
        self._at = time.monotonic()

    def take(self) -> bool:
        """Whether one more is within it."""
        now = time.monotonic()
        self._left = min(10 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class EventRateLimit:
    """Facts of one process."""

    def __init__(self) -> None:
        self._vital = RateLimit(VITAL_FACTS_PER_SECOND)
        self._others = RateLimit(FACTS_PER_SECOND)

    def take(self, name: str) -> bool:
        """Whether one more of this name is within it."""
        return (self._vital if name in VITAL_FACTS else self._others).take()
