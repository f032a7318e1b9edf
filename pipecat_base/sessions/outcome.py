"""How sessions end, in one word and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pipecat_base.logs.tracebacks import MAX_USER_FRAMES


class Outcome(Enum):
    """How a session ended. The first cause counts: a bot that fails while it is being cancelled was cancelled."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DISCONNECTED = "disconnected"
    DRAINED = "drained"


MEANINGS = {
    Outcome.COMPLETED: "the bot returned",
    Outcome.FAILED: "the bot raised an exception, or its process died",
    Outcome.CANCELLED: "somebody asked for its end (`DELETE /sessions/{id}`), or the bot cancelled itself",
    Outcome.EXPIRED: "its time was up: `MAX_SESSION_SECONDS` or `X-PCC-Max-Session-Seconds`",
    Outcome.DISCONNECTED: "the caller went away, and the bot ended because of it",
    Outcome.DRAINED: "the launcher was told to stop, and `SHUTDOWN_TIMEOUT` had passed",
}
"""For the documentation."""


MAX_LINE = 300
"""Characters of a line of a mistake."""
MAX_FRAMES = MAX_USER_FRAMES + 1
"""Those of :mod:`pipecat_base.logs.tracebacks`, and how many more there were."""


@dataclass(frozen=True)
class BotError:
    """What the bot raised, for whoever works on it: no caller of a pod may see it, as it quotes.

    Attributes:
        said: ``KeyError: 'name'``, on one line.
        frames: The user's own lines that were being run, outermost first.
    """

    said: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a route learns of a session that has ended. ``message`` is fit for the caller: it quotes nothing."""

    outcome: Outcome
    message: str
    seconds: float
    bot_error: BotError | None = None


MESSAGES = {
    Outcome.COMPLETED: "The bot returned.",
    Outcome.CANCELLED: "The session was cancelled.",
    Outcome.EXPIRED: "The session's time was up.",
    Outcome.DISCONNECTED: "The caller went away.",
    Outcome.DRAINED: "The launcher was shut down.",
}
"""For callers. A bot that failed has a sentence of its own."""

CLOSE_CODES = {
    Outcome.COMPLETED: (1000, "the bot returned"),
    Outcome.DISCONNECTED: (1000, "the caller went away"),
    Outcome.FAILED: (1011, "the bot failed"),
    Outcome.DRAINED: (1001, "shutting down"),
    Outcome.EXPIRED: (4008, "the session's time was up"),
    Outcome.CANCELLED: (4009, "the session was cancelled"),
}
"""RFC 6455 section 7.4; 4000-4999 are for applications."""
