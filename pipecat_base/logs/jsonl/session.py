"""The session that printed lines belong to, in memory that the launcher and the tee process share.

Bytes in a pipe carry no session id. While exactly one session runs, printed lines get its id, and for a moment after
its end. While several run, and for a moment after one of them has ended, lines get no id.
"""

from __future__ import annotations

import math
import mmap
import struct
import time
from collections.abc import Callable

LINGER_SECONDS = 0.25
MAX_READ_ATTEMPTS = 1000

_HEAD = struct.Struct("=IddH")  # version (odd during a write), valid from and until, length of the session id
_SIZE_BYTES = 4096


class CurrentSession:
    """Written by one process; readable by any process that it forks later."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._memory = mmap.mmap(-1, _SIZE_BYTES)
        self._version = 0
        self._running: list[str] = []

    def begin(self, session_id: str) -> None:
        self._running.append(session_id)
        self._publish(since=0.0)

    def end(self, session_id: str) -> None:
        self._running.remove(session_id)
        later = self._clock() + LINGER_SECONDS
        if self._running:
            self._publish(since=later)  # the ended session's output may still be in the pipe
        else:
            self._write(session_id, until=later)

    def read(self) -> str | None:
        for _ in range(MAX_READ_ATTEMPTS):
            version, since, until, length = _HEAD.unpack_from(self._memory)
            content = self._memory[_HEAD.size : _HEAD.size + length]
            if version % 2 == 0 and _HEAD.unpack_from(self._memory)[0] == version:
                break
        else:
            return None  # the writer died during a write
        if not length or not since <= self._clock() <= until:
            return None
        return content.decode(errors="replace")

    def _publish(self, *, since: float) -> None:
        self._write(self._running[0] if len(self._running) == 1 else "", since=since)

    def _write(self, session_id: str, *, since: float = 0.0, until: float = math.inf) -> None:
        content = session_id.encode(errors="replace")[: _SIZE_BYTES - _HEAD.size]
        _HEAD.pack_into(self._memory, 0, self._version + 1, since, until, len(content))
        self._memory[_HEAD.size : _HEAD.size + len(content)] = content
        self._version += 2
        _HEAD.pack_into(self._memory, 0, self._version, since, until, len(content))
