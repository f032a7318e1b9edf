"""States of the launcher, and which requests each of them accepts."""

from __future__ import annotations

from enum import Enum

from pipecat_base.errors import Draining, Refusal, Starting
from pipecat_base.server.startup_problem import StartupProblem


class LifecycleState(Enum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """Running sessions continue, new ones are refused with 503 (DRAIN_TAKES_CALLS: later), all else is served."""
    STOPPED = "stopped"
    FAILED = "failed"


class Lifecycle:
    """The launcher's state, which only moves forward."""

    def __init__(self) -> None:
        self.state = LifecycleState.STARTING
        self._takes_sessions = False
        self.problem: StartupProblem | None = None
        """Reason why the newest code is not running; None while it is."""

    def ready(self) -> None:
        if self.state is LifecycleState.STARTING:
            self.state = LifecycleState.READY

    def drain(self, *, takes_sessions: bool = False) -> None:
        """Drain; ``takes_sessions`` until the next call without it."""
        self._takes_sessions = takes_sessions
        if self.state in (LifecycleState.STARTING, LifecycleState.READY):
            self.state = LifecycleState.DRAINING

    def stopped(self) -> None:
        if self.state is LifecycleState.DRAINING:
            self.state = LifecycleState.STOPPED

    def failed(self) -> None:
        if self.state is LifecycleState.STARTING:
            self.state = LifecycleState.FAILED

    def refusal(self) -> Refusal | None:
        is_last_call = self.state is LifecycleState.DRAINING and self._takes_sessions
        if self.state is LifecycleState.READY or is_last_call:
            return None
        if self.state is LifecycleState.STARTING:
            return Starting("The bot is still starting.")
        return Draining("This launcher is shutting down and takes no new sessions.")
