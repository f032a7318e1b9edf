"""Bounds the number of connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.logs.throttle import LogThrottle
from pipecat_base.server.limits import MAX_HEADERS, SPARE_CONNECTIONS, BufferBudget, connections_for, descriptor_limit

# A new connection is not evicted this soon: its request may have arrived and not been read yet.
NEW_CONNECTION_GRACE_SECONDS = 0.2
LOG_THROTTLE_SECONDS = 10.0


class OpenConnection(Protocol):
    def abort(self) -> None:
        pass


class Connections:
    """Connections of one listener. uvicorn adds to ``members`` and discards from it."""

    def __init__(
        self,
        limits: ServerLimits,
        members: Collection[Any],
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
        clock: Callable[[], float] = time.monotonic,
        max_headers: int = MAX_HEADERS,
    ) -> None:
        self.on_refusal = on_refusal
        self.max_headers = max_headers
        self.limits = limits
        self.max_connections = limits.max_connections or connections_for(descriptor_limit())
        self.buffer_budget = BufferBudget(limits.max_unfinished_bytes)
        self._members = members
        self._clock = clock
        self._idle: dict[OpenConnection, float] = {}
        """Connections without a complete request, by the time they became idle; the oldest first."""
        self._refused: dict[OpenConnection, None] = {}
        """Refused connections, kept open until their peers have read the answer."""
        self._throttle = LogThrottle(LOG_THROTTLE_SECONDS, clock=clock)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def is_full(self) -> bool:
        return len(self) > self.max_connections

    def is_at_hard_limit(self, accepting: int) -> bool:
        spare = max(2, min(SPARE_CONNECTIONS, self.max_connections // 4))
        return len(self) + accepting >= self.max_connections + spare

    def mark_idle(self, connection: OpenConnection) -> None:
        self._idle.setdefault(connection, self._clock())

    def mark_busy(self, connection: OpenConnection) -> None:
        self._idle.pop(connection, None)

    def mark_refused(self, connection: OpenConnection) -> None:
        self.mark_busy(connection)
        self._refused[connection] = None

    def remove(self, connection: OpenConnection) -> None:
        self.mark_busy(connection)
        self._refused.pop(connection, None)

    def evict(self) -> bool:
        """Close a refused connection, else the one that has been idle longest; False if there is none."""
        found = next(iter(self._refused), None) or self._longest_idle()
        if found is None:
            return False
        self.remove(found)
        found.abort()
        return True

    def _longest_idle(self) -> OpenConnection | None:
        connection, since = next(iter(self._idle.items()), (None, 0.0))
        return connection if self._clock() - since >= NEW_CONNECTION_GRACE_SECONDS else None

    def log_throttled(self, kind: str, message: str) -> None:
        """Log a warning; repeats of the same ``kind`` are counted and logged every ten seconds."""
        if (line := self._throttle.admit(message, kind=kind)) is not None:
            logger.warning(line)
