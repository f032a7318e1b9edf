"""Whose words printed lines are: a slot that the launcher writes and the pump reads, in memory that both share.

Bytes in a pipe carry no session. While exactly one session runs, what is printed is its own, and for a moment after its
end too; while several run, nobody can tell, and such lines carry no id.
"""

from __future__ import annotations

import mmap
import struct
import time

LINGER = 0.25
"""Seconds after its end during which a session is still the one that speaks."""

MOST_TRIES = 1000
"""Looks at the slot while it is being written."""

_HEAD = struct.Struct("=IdH")
"""A version, odd while it is being written; when the session ended, 0 while it runs; the length of its id."""
_SIZE = 4096


class CurrentSession:
    """The slot. One process writes; any that was forked after this was made may read."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self._version = 0
        self._running: list[str] = []

    def begin(self, session_id: str) -> None:
        """A session's bot begins."""
        self._running.append(session_id)
        self._publish(0.0)

    def end(self, session_id: str) -> None:
        """It has ended."""
        self._running.remove(session_id)
        if self._running:
            self._publish(0.0)
        else:
            self._write(session_id, time.monotonic())

    def read(self) -> str | None:
        """The session that speaks now, if that can be told."""
        for _ in range(MOST_TRIES):
            version, ended, length = _HEAD.unpack_from(self._memory)
            content = self._memory[_HEAD.size : _HEAD.size + length]
            if version % 2 == 0 and _HEAD.unpack_from(self._memory)[0] == version:
                break
        else:
            return None  # whoever was writing has died
        if not length or (ended and time.monotonic() - ended > LINGER):
            return None
        return content.decode(errors="replace")

    def _publish(self, ended: float) -> None:
        self._write(self._running[0] if len(self._running) == 1 else "", ended)

    def _write(self, session_id: str, ended: float) -> None:
        content = session_id.encode(errors="replace")[: _SIZE - _HEAD.size]
        _HEAD.pack_into(self._memory, 0, self._version + 1, ended, len(content))
        self._memory[_HEAD.size : _HEAD.size + len(content)] = content
        self._version += 2
        _HEAD.pack_into(self._memory, 0, self._version, ended, len(content))
