"""What a transport reads, and when it is parsed: in pieces, and not while anybody has a reason to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from pipecat_base.server.limits import LINGER, MAX_DISCARDED, SLICE, TURN


class BoundedReader:
    """Gives a parser what has come.

    It stands in for the transport where uvicorn's flow control pauses and resumes reading.

    Args:
        parse: Takes at most :data:`~pipecat_base.server.limits.SLICE` bytes.
    """

    def __init__(self, transport: asyncio.Transport, parse: Callable[[bytes], None]) -> None:
        self.transport = transport
        self._parse = parse
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._reasons: set[str] = set()
        self._going_on: asyncio.Handle | None = None
        self._reads = True
        self._parsing = False
        self._discarded = 0
        self._unread: asyncio.TimerHandle | None = None
        self._is_left = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    @property
    def goes_on(self) -> bool:
        """Whether more is parsed in the next turn of the loop."""
        return self._going_on is not None

    def feed(self, data: bytes) -> None:
        """This has been read."""
        if not (self._waiting or self._reasons) and len(data) <= SLICE:
            self._parse(data)
            return
        self._waiting += data
        self._go_on()

    def hold(self, reason: str) -> None:
        """Neither read nor parse until :meth:`release` of the same reason."""
        self._reasons.add(reason)
        self._read(False)

    def release(self, reason: str) -> None:
        """The reason is gone."""
        if reason not in self._reasons:
            return
        self._reasons.discard(reason)
        if self._reasons:
            return
        if self._waiting and not self._parsing:
            self._soon()
        elif not self._waiting:
            self._read(True)

    def pause_reading(self) -> None:
        """As a transport's."""
        self.hold("flow")

    def resume_reading(self) -> None:
        """As a transport's."""
        self.release("flow")

    def expect_reader(self, seconds: float) -> None:
        """The peer does not read: it has so long to begin again, else the connection is cut off."""
        self._unread = self._loop.call_later(seconds, self.transport.abort)

    def note_reader(self) -> None:
        """It reads, or that is of no account any more."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def leave(self) -> bytes:
        """Another one reads on, with what is returned first: it was read, and not parsed."""
        self._reasons.clear()
        self._read(True)
        self._is_left = True
        return self.stop()

    def stop(self) -> bytes:
        """Parse nothing more; what was read and not parsed."""
        self._parse = self._discard
        rest, self._waiting = bytes(self._waiting), bytearray()
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        return rest

    def end(self) -> None:
        """Close; what the peer has not taken within LINGER is dropped."""
        self.stop()
        if not self.transport.is_closing():
            self.transport.close()
        self._loop.call_later(LINGER, self.transport.abort)

    def close_gently(self) -> None:
        """Close, but read on for a while, to no use: unread bytes would make a reset of it, and lose the last words."""
        self.stop()
        self._reasons.clear()
        self._read(True)
        if self.transport.is_closing():
            return
        try:
            self.transport.write_eof()
        except OSError:  # the peer has reset the connection, and the loop does not know yet
            self.transport.abort()
        else:
            self._loop.call_later(LINGER, self.transport.abort)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED:
            self.transport.abort()

    def _soon(self) -> None:
        if self._going_on is None:
            self._going_on = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._parsing:
            return
        if self._going_on is not None:
            self._going_on.cancel()
            self._going_on = None
        until = perf_counter() + TURN
        self._parsing = True
        try:
            while self._waiting and not self._reasons:
                piece = bytes(self._waiting[:SLICE])
                del self._waiting[:SLICE]
                self._parse(piece)
                if perf_counter() > until:
                    break
        finally:
            self._parsing = False
        if self._waiting and not self._reasons:
            self._soon()
        self._read(not (self._waiting or self._reasons))

    def _read(self, reads: bool) -> None:
        if reads == self._reads or self._is_left or self.transport.is_closing():
            return
        self._reads = reads
        if reads:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()
