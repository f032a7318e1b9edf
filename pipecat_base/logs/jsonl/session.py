"""Whose words printed lines are: a slot that the launcher writes and the pump reads, in memory that both share.

Bytes in a pipe carry no session. While exactly one session runs, what is printed is its own, and for a moment after its
end too. While several run, and for that moment after one of them has ended, nobody can tell: such lines carry no id.
"""

from __future__ import annotations

import math
import mmap
import struct
import time
from collections.abc import Callable

LINGER = 0.25
"""Seconds after its end during which a session is still the one that speaks."""

MOST_TRIES = 1000
"""Looks at the slot while it is being written."""

_HEAD = struct.Struct("=IddH")
"""A version, odd while it is being written; from when and until when the session speaks; the length of its id."""
_SIZE = 4096


class CurrentSession:
    """The slot. One process writes; any that was forked after this was made may read.

    Args:
        clock: Seconds, the same in both processes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._memory = mmap.mmap(-1, _SIZE)
        self._version = 0
        self._running: list[str] = []

    def begin(self, session_id: str) -> None:
        """A session's bot begins."""
        self._running.append(session_id)
        self._publish(since=0.0)

    def end(self, session_id: str) -> None:
        """It has ended."""
        self._running.remove(session_id)
        later = self._clock() + LINGER
        if self._running:
            self._publish(since=later)  # what it has printed may still be on its way
        else:
            self._write(session_id, until=later)

    def read(self) -> str | None:
        """The session that speaks now, if that can be told."""
        for _ in range(MOST_TRIES):
            version, since, until, length = _HEAD.unpack_from(self._memory)
            content = self._memory[_HEAD.size : _HEAD.size + length]
            if version % 2 == 0 and _HEAD.unpack_from(self._memory)[0] == version:
                break
        else:
            return None  # whoever was writing has died
        if not length or not since <= self._clock() <= until:
            return None
        return content.decode(errors="replace")

    def _publish(self, *, since: float) -> None:
        self._write(self._running[0] if len(self._running) == 1 else "", since=since)

    def _write(self, session_id: str, *, since: float = 0.0, until: float = math.inf) -> None:
        content = session_id.encode(errors="replace")[: _SIZE - _HEAD.size]
        _HEAD.pack_into(self._memory, 0, self._version + 1, since, until, len(content))
        self._memory[_HEAD.size : _HEAD.size + len(content)] = content
        self._version += 2
        _HEAD.pack_into(self._memory, 0, self._version, since, until, len(content))
