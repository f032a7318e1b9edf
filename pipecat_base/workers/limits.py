"""What bounds a pool and its processes."""

from __future__ import annotations

from dataclasses import dataclass

from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.sessions.registry import CLOSE_TIMEOUT

EXIT_GRACE = 1.0
"""Seconds that a worker gets for the end of its interpreter, beside its teardown."""


@dataclass(frozen=True)
class WorkerLimits:
    """Seconds, and bytes.

    Attributes:
        idle: Workers that wait.
        take_timeout: A session's wait for one.
        max_memory: Of one session's process; None for no limit.
    """

    idle: int
    take_timeout: float
    setup_timeout: float
    teardown_timeout: float
    cancel_grace: float
    readyz_timeout: float
    max_memory: int | None

    @property
    def closing(self) -> float:
        """What a worker gets to tear down and exit."""
        return 2 * self.teardown_timeout + FINAL_REQUESTS_SECONDS + EXIT_GRACE

    @property
    def cancelling(self) -> float:
        """What a worker gets to end its session."""
        return self.cancel_grace + CLOSE_TIMEOUT + EXIT_GRACE
