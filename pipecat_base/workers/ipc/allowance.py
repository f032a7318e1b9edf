"""Rate limits of a worker, for each call that it may run: enforced by the launcher, kept by honest workers."""

from __future__ import annotations

from pipecat_base.server.rate_limit import RateLimit

EVENTS_PER_SECOND = 100

# Event types with a rate limit of their own, so that a flood of others cannot crowd them out.
VITAL_EVENTS = ("failure", "process", "caller", "error")
VITAL_EVENTS_PER_SECOND = 5


class EventRateLimit:
    def __init__(self, max_calls: int) -> None:
        self._vital = RateLimit(VITAL_EVENTS_PER_SECOND * max_calls)
        self._others = RateLimit(EVENTS_PER_SECOND * max_calls)

    def take(self, name: str) -> bool:
        return (self._vital if name in VITAL_EVENTS else self._others).take()
