"""How sessions end, in one word and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How a session ended. The first cause counts: a bot that fails while it is being cancelled was cancelled."""

    COMPLETED = "completed"
    """The bot returned."""
    FAILED = "failed"
    """The bot raised an exception."""
    CANCELLED = "cancelled"
    """Somebody asked for its end, or the bot cancelled itself."""
    EXPIRED = "expired"
    """Its time was up."""
    DISCONNECTED = "disconnected"
    """The caller went away and the bot ended because of it."""
    DRAINED = "drained"
    """The launcher's shutdown deadline came."""


@dataclass(frozen=True)
class Report:
    """What a route learns of a session that has ended. ``message`` is fit for the caller: it quotes nothing."""

    outcome: Outcome
    message: str
    seconds: float


MESSAGES = {
    Outcome.COMPLETED: "The bot returned.",
    Outcome.CANCELLED: "The session was cancelled.",
    Outcome.EXPIRED: "The session's time was up.",
    Outcome.DISCONNECTED: "The caller went away.",
    Outcome.DRAINED: "The launcher was shut down.",
}
"""For callers. A bot that failed has a sentence of its own."""
