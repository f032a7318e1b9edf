"""The launcher's own states, and which requests each of them takes."""

from __future__ import annotations

from enum import Enum

from pipecat_base.errors import Draining, Refusal, Starting
from pipecat_base.server.startup_problem import StartupProblem


class LifecycleState(Enum):
    """What the launcher is doing."""

    STARTING = "starting"
    """``bot.py`` is being imported or ``setup()`` runs: probes are answered, sessions refused with 503."""
    READY = "ready"
    """Sessions are taken."""
    DRAINING = "draining"
    """Asked to stop: running sessions go on, new ones are refused with 503, everything else is served."""
    STOPPED = "stopped"
    """Every session has ended."""
    FAILED = "failed"
    """The start did not succeed; the exit status says why."""


class Lifecycle:
    """Owns the launcher's state. It only ever moves forward."""

    def __init__(self) -> None:
        self.state = LifecycleState.STARTING
        self.problem: StartupProblem | None = None
        """Why the newest code is not what runs; None while it is."""

    def ready(self) -> None:
        """The bot is imported and set up."""
        if self.state is LifecycleState.STARTING:
            self.state = LifecycleState.READY

    def drain(self) -> None:
        """Take no more sessions."""
        if self.state in (LifecycleState.STARTING, LifecycleState.READY):
            self.state = LifecycleState.DRAINING

    def stopped(self) -> None:
        """The last session has ended."""
        if self.state is LifecycleState.DRAINING:
            self.state = LifecycleState.STOPPED

    def failed(self) -> None:
        """The start did not succeed."""
        if self.state is LifecycleState.STARTING:
            self.state = LifecycleState.FAILED

    def refusal(self) -> Refusal | None:
        """Why a new session is refused now, or None."""
        if self.state is LifecycleState.READY:
            return None
        if self.state is LifecycleState.STARTING:
            return Starting("The bot is still starting.")
        return Draining("This launcher is shutting down and takes no new sessions.")
