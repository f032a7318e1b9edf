"""Who is connected: how many may be, and who goes when there are too many."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

from pipecat_base.errors import Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.server.limits import SPARE_CONNECTIONS, BufferBudget, ServerLimits

FRESH = 0.2
"""Seconds that a new connection gets for its request, however many others come."""
QUIET = 10.0
"""Seconds between two lines on the same thing."""


class OpenConnection(Protocol):
    """One of them."""

    def give_up(self) -> None:
        """Close it at once: another one needs its place."""


class Connections:
    """The connections of one listener.

    Args:
        members: All of them.
        on_refusal: Learns of those that are refused here.
        clock: Seconds.
    """

    def __init__(
        self,
        limits: ServerLimits,
        members: Collection[Any],
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_refusal = on_refusal
        self.limits = limits
        self.buffer_budget = BufferBudget(limits.max_unfinished)
        self._members = members
        self._clock = clock
        self._idle: dict[OpenConnection, float] = {}
        """Those that wait for a request, and since when."""
        self._leaving: dict[OpenConnection, None] = {}
        """Those that were refused, and whose peers get time to take that."""
        self._told: dict[str, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._members)

    @property
    def is_full(self) -> bool:
        """Whether there are more than may be."""
        return len(self) > self.limits.max_connections

    def is_packed(self, coming: int) -> bool:
        """Whether there are so many, with those that come, that one more is not even refused."""
        spare = max(2, min(SPARE_CONNECTIONS, self.limits.max_connections // 4))
        return len(self) + coming >= self.limits.max_connections + spare

    def waits(self, connection: OpenConnection) -> None:
        """It waits for a request; what it sends of one changes nothing."""
        self._idle.setdefault(connection, self._clock())

    def works(self, connection: OpenConnection) -> None:
        """It waits no more."""
        self._idle.pop(connection, None)

    def leaves(self, connection: OpenConnection) -> None:
        """It was refused, and is still there."""
        self.works(connection)
        self._leaving[connection] = None

    def forget(self, connection: OpenConnection) -> None:
        """It is gone."""
        self.works(connection)
        self._leaving.pop(connection, None)

    def make_room(self) -> bool:
        """Close one that was refused, or the one that has waited longest; False when there is none.

        One that has come a moment ago may have asked already: that was not read yet.
        """
        found = next(iter(self._leaving), None) or self._longest_idle()
        if found is None:
            return False
        self.forget(found)
        found.give_up()
        return True

    def _longest_idle(self) -> OpenConnection | None:
        connection, since = next(iter(self._idle.items()), (None, 0.0))
        return connection if self._clock() - since >= FRESH else None

    def tell(self, kind: str, message: str) -> None:
        """Log it; what comes again and again is counted and told every ten seconds."""
        now = self._clock()
        since, more = self._told.get(kind, (-QUIET, 0))
        if now - since < QUIET:
            self._told[kind] = (since, more + 1)
            return
        self._told[kind] = (now, 0)
        again = f" (and {more} times more since the last such line)" if more else ""
        logger.warning(f"{message}{again}")
