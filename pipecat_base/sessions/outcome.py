"""Outcomes: the ways a session can end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The first cause counts: a bot that fails while it is being cancelled was cancelled."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DISCONNECTED = "disconnected"
    DRAINED = "drained"


# For the documentation.
MEANINGS = {
    Outcome.COMPLETED: "the bot returned",
    Outcome.FAILED: "the bot raised an exception, or its process died",
    Outcome.CANCELLED: "its end was requested (`DELETE /sessions/{id}`), or the bot cancelled itself",
    Outcome.EXPIRED: "its time was up: `MAX_SESSION_SECONDS` or `X-PCC-Max-Session-Seconds`",
    Outcome.DISCONNECTED: "the caller disconnected, and the bot ended because of it",
    Outcome.DRAINED: "the launcher was shutting down, and `SHUTDOWN_TIMEOUT` had passed; or newer code was loaded "
    "before the caller connected (`dev --reload`)",
}

MAX_LINE = 300  # characters of each line of a BotError
MAX_REPORTS = 1000  # of ended sessions, that are kept
MAX_FRAMES = 13  # the frames of a traceback, and a line that counts those left out


@dataclass(frozen=True)
class BotError:
    """An exception of the bot. It holds the exception's text, so only the bot's developer may see it."""

    summary: str  # "KeyError: 'name'", on one line
    frames: tuple[str, ...]  # the user's own lines in the traceback, outermost first


@dataclass(frozen=True)
class Report:
    """The end of a session, for the route that started it. ``message`` is for the caller, without text of the bot's."""

    outcome: Outcome
    message: str
    seconds: float
    bot_error: BotError | None = None


# For callers. A failed bot gets a message of its own.
MESSAGES = {
    Outcome.COMPLETED: "The bot returned.",
    Outcome.CANCELLED: "The session was cancelled.",
    Outcome.EXPIRED: "The session's time was up.",
    Outcome.DISCONNECTED: "The caller went away.",
    Outcome.DRAINED: "The launcher was shut down.",
}

# RFC 6455 section 7.4; 4000-4999 are for applications.
CLOSE_CODES = {
    Outcome.COMPLETED: (1000, "the bot returned"),
    Outcome.DISCONNECTED: (1000, "the caller went away"),
    Outcome.FAILED: (1011, "the bot failed"),
    Outcome.DRAINED: (1001, "shutting down"),
    Outcome.EXPIRED: (4008, "the session's time was up"),
    Outcome.CANCELLED: (4009, "the session was cancelled"),
}
