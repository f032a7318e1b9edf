"""How much a process that runs a bot may say: the launcher enforces it, and an honest process keeps to it."""

from __future__ import annotations

from pipecat_base.server.rate_limit import RateLimit

FACTS_PER_SECOND = 100
"""Of one process, on average over ten; what is more is dropped."""

VITAL_FACTS = ("failure", "process", "caller", "error")
"""A process that tells too much of other things may still tell these."""
VITAL_FACTS_PER_SECOND = 5


class EventRateLimit:
    """Facts of one process."""

    def __init__(self) -> None:
        self._vital = RateLimit(VITAL_FACTS_PER_SECOND)
        self._others = RateLimit(FACTS_PER_SECOND)

    def take(self, name: str) -> bool:
        """Whether one more of this name is within it."""
        return (self._vital if name in VITAL_FACTS else self._others).take()
