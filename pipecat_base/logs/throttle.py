"""A limit on log lines that would repeat."""

from __future__ import annotations

import time
from collections.abc import Callable


class LogThrottle:
    """Admits a line of each kind once per interval; the next one admitted gives the number of lines left out."""

    def __init__(self, interval_seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval_seconds
        self._clock = clock
        self._admitted: dict[str, tuple[float, int]] = {}  # per kind: when last, and how many were left out since

    def admit(self, message: str, *, kind: str | None = None) -> str | None:
        """The line to log, or None. A message is its own kind unless ``kind`` is given."""
        kind = message if kind is None else kind
        now = self._clock()
        last, omitted = self._admitted.get(kind, (-self._interval, 0))
        if now - last < self._interval:
            self._admitted[kind] = last, omitted + 1
            return None
        self._admitted[kind] = now, 0
        return f"{message} (and {omitted} times more since the last such line)" if omitted else message
