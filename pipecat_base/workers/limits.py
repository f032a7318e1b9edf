"""Limits of the pool and its worker processes."""

from __future__ import annotations

from dataclasses import dataclass

from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.sessions.registry import CLOSE_TIMEOUT

EXIT_GRACE = 1.0  # time for the end of a worker's interpreter, on top of its teardown


@dataclass(frozen=True)
class WorkerLimits:
    """Seconds; ``max_memory`` bytes for each session of a process; calls that can begin at once are ``idle``.

    A worker runs ``calls`` sessions at once, and ``calls_before_restart`` in all (None: any number).
    """

    idle: int
    calls: int
    calls_before_restart: int | None
    take_timeout: float
    setup_timeout: float
    teardown_timeout: float
    cancel_grace: float
    readyz_timeout: float
    max_memory: int | None
    exit_grace: float

    @property
    def closing(self) -> float:
        # At least a second of EXIT_GRACE is left for exit handlers.
        return self.exit_grace + 2 * self.teardown_timeout + FINAL_REQUESTS_SECONDS + 2 * EXIT_GRACE

    @property
    def cancelling(self) -> float:
        return self.cancel_grace + CLOSE_TIMEOUT + EXIT_GRACE
