"""WebSocket sessions that ``/start`` has promised: their ids and bodies, until the clients connect."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipecat_base.access.tokens import LIFETIME

MOST = 1000
"""Invitations at once; the oldest goes first."""
LARGEST = 64 * 1024 * 1024
"""Bytes of all their bodies; the oldest goes first."""


@dataclass(frozen=True)
class Invitation:
    """``body`` is JSON, ``until`` on the clock of :class:`Invitations`."""

    body: bytes
    until: float


class Invitations:
    """Remembers what ``/start`` has promised, until its caller comes or the time is up.

    Args:
        lifetime: Seconds.
        clock: Seconds.
    """

    def __init__(self, lifetime: float = LIFETIME, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._open: dict[str, Invitation] = {}

    def invite(self, session_id: str, body: Any) -> None:
        """Promise a session."""
        now = self._clock()
        self._open = {key: value for key, value in self._open.items() if value.until > now}
        self._open[session_id] = Invitation(json.dumps(body).encode(), now + self._lifetime)
        size = sum(len(invitation.body) for invitation in self._open.values())
        while len(self._open) > MOST or size > LARGEST:
            size -= len(self._open.pop(next(iter(self._open))).body)

    def withdraw(self, session_id: str) -> bool:
        """Its session has ended, or is not wanted; False when there is no such invitation."""
        return self._open.pop(session_id, None) is not None

    def find(self, session_id: str) -> Invitation | None:
        """The invitation of this session, while it is good."""
        invitation = self._open.get(session_id)
        return invitation if invitation is not None and invitation.until > self._clock() else None
