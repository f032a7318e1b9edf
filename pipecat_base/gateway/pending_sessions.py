"""WebSocket sessions between ``/start`` and the client's connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipecat_base.auth.tokens import LIFETIME_SECONDS
from pipecat_base.errors import AtCapacity, TooLarge
from pipecat_base.server import large_json

MAX_PENDING_SESSIONS = 1000
MAX_TOTAL_BYTES = 64 * 1024 * 1024  # of all bodies and flows
MAX_BODY_BYTES = 700 * 1024  # in base64, it fits into a request's line


@dataclass(frozen=True)
class PendingSession:
    body: bytes  # JSON
    flow_config: str | None
    expires_at: float  # on the clock of PendingSessions

    @property
    def size(self) -> int:
        return len(self.body) + len((self.flow_config or "").encode())


class PendingSessions:
    def __init__(self, lifetime: float = LIFETIME_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._pending: dict[str, PendingSession] = {}

    async def add(self, session_id: str, body: Any, flow_config: str | None = None) -> None:
        """Raises TooLarge for a large body, AtCapacity if too many sessions, or too large ones, are pending."""
        content = await large_json.dumps(body)
        now = self._clock()
        self._pending = {key: value for key, value in self._pending.items() if value.expires_at > now}
        if len(content) > MAX_BODY_BYTES:
            raise TooLarge(f"The body of a WebSocket's session takes more than {MAX_BODY_BYTES} bytes.", field="body")
        added = PendingSession(content, flow_config, now + self._lifetime)
        size = sum(pending.size for pending in self._pending.values())
        if len(self._pending) >= MAX_PENDING_SESSIONS or size + added.size > MAX_TOTAL_BYTES:
            raise AtCapacity(f"{len(self._pending)} sessions from /start wait for their clients.")
        self._pending[session_id] = added

    def remove(self, session_id: str) -> bool:
        """False if this session is not pending."""
        return self._pending.pop(session_id, None) is not None

    def find(self, session_id: str) -> PendingSession | None:
        pending = self._pending.get(session_id)
        return pending if pending is not None and pending.expires_at > self._clock() else None
