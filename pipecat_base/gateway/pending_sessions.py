"""WebSocket sessions that ``/start`` has promised: their ids and bodies, until the clients connect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipecat_base.auth.tokens import LIFETIME_SECONDS
from pipecat_base.errors import AtCapacity, TooLarge
from pipecat_base.server import large_json

MOST = 1000
"""Invitations at once."""
LARGEST = 64 * 1024 * 1024
"""Bytes of all their bodies."""
LARGEST_BODY = 700 * 1024
"""Bytes of one: as much as a request's line holds in base64."""


@dataclass(frozen=True)
class PendingSession:
    """``body`` is JSON, ``until`` on the clock of :class:`PendingSessions`."""

    body: bytes
    until: float


class PendingSessions:
    """Remembers what ``/start`` has promised, until its caller comes or the time is up.

    Args:
        lifetime: Seconds.
        clock: Seconds.
    """

    def __init__(self, lifetime: float = LIFETIME_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._open: dict[str, PendingSession] = {}

    async def invite(self, session_id: str, body: Any) -> None:
        """Promise a session. Promises that were made before are kept.

        Raises:
            TooLarge: the body is larger than one may be.
            AtCapacity: too many sessions, or too large ones, wait for their clients.
        """
        content = await large_json.dumps(body)
        now = self._clock()
        self._open = {key: value for key, value in self._open.items() if value.until > now}
        if len(content) > LARGEST_BODY:
            raise TooLarge(f"The body of a WebSocket's session takes more than {LARGEST_BODY} bytes.", field="body")
        size = sum(len(invitation.body) for invitation in self._open.values())
        if len(self._open) >= MOST or size + len(content) > LARGEST:
            raise AtCapacity(f"{len(self._open)} sessions that /start has promised wait for their clients.")
        self._open[session_id] = PendingSession(content, now + self._lifetime)

    def withdraw(self, session_id: str) -> bool:
        """Its session has ended, or is not wanted; False when there is no such invitation."""
        return self._open.pop(session_id, None) is not None

    def find(self, session_id: str) -> PendingSession | None:
        """The invitation of this session, while it is good."""
        invitation = self._open.get(session_id)
        return invitation if invitation is not None and invitation.until > self._clock() else None
