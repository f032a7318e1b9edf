"""Parses what a transport reads in small pieces, and pauses reading while the parser must wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from pipecat_base.server.limits import LINGER_SECONDS, MAX_DISCARDED_BYTES, MAX_PARSE_BYTES, PARSE_TURN_SECONDS

HEAD_START = b"HTTP/1."


class BoundedReader:
    """Feeds a parser at most MAX_PARSE_BYTES at a time and PARSE_TURN_SECONDS per turn of the event loop.

    Stands in for the transport where uvicorn pauses and resumes reading, and where it writes. A response's head leaves
    with the start of its body, in one packet, if that follows in the same turn of the event loop: the command line of
    Pipecat Cloud loses a body that comes later (``agent deployments``).
    """

    def __init__(self, transport: asyncio.Transport, parse: Callable[[bytes], None]) -> None:
        self.transport = transport
        self._parse = parse
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._reasons: set[str] = set()
        self._scheduled: asyncio.Handle | None = None
        self._is_reading = True
        self._is_parsing = False
        self._discarded = 0
        self._write_timeout: asyncio.TimerHandle | None = None
        self._is_detached = False
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    @property
    def is_scheduled(self) -> bool:
        return self._scheduled is not None

    @property
    def is_held(self) -> bool:
        return bool(self._reasons or self._waiting)

    def feed(self, data: bytes) -> None:
        if not (self._waiting or self._reasons) and len(data) <= MAX_PARSE_BYTES:
            self._parse(data)
            return
        self._waiting += data
        self._parse_waiting()

    def hold(self, reason: str) -> None:
        """Neither read nor parse until :meth:`release` is called with the same reason."""
        self._reasons.add(reason)
        self._set_reading(False)

    def release(self, reason: str) -> None:
        if reason not in self._reasons:
            return
        self._reasons.discard(reason)
        if self._reasons:
            return
        if self._waiting and not self._is_parsing:
            self._schedule()
        elif not self._waiting:
            self._set_reading(True)

    def pause_reading(self) -> None:
        self.hold("flow")

    def resume_reading(self) -> None:
        self.release("flow")

    def write(self, data: bytes) -> None:
        if not self._head and data.startswith(HEAD_START):
            self._head = data
            self._loop.call_soon(self._write_head)
        else:
            self._head, head = b"", self._head
            self.transport.write(head + data if head else data)

    def close(self) -> None:
        self._write_head()
        self.transport.close()

    def _write_head(self) -> None:
        if self._head:
            self.write(b"")

    def start_write_timeout(self, seconds: float) -> None:
        """Abort the connection unless the peer starts to read within ``seconds``."""
        self._write_timeout = self._loop.call_later(seconds, self.transport.abort)

    def stop_write_timeout(self) -> None:
        if self._write_timeout is not None:
            self._write_timeout.cancel()
            self._write_timeout = None

    def detach(self) -> bytes:
        """Hand the transport to another protocol; returns the bytes that were read but not parsed."""
        self._write_head()
        self._reasons.clear()
        self._set_reading(True)
        self._is_detached = True
        return self.stop()

    def stop(self) -> bytes:
        """Parse no more; returns the bytes that were read but not parsed."""
        self._parse = self._discard
        rest, self._waiting = bytes(self._waiting), bytearray()
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        return rest

    def close_with_deadline(self) -> None:
        """Close; output that the peer has not read within LINGER_SECONDS is dropped."""
        self.stop()
        if not self.transport.is_closing():
            self.close()
        self._loop.call_later(LINGER_SECONDS, self.transport.abort)

    def close_gently(self) -> None:
        """Close, but discard input for a while: unread bytes would cause a reset, and the answer would be lost."""
        self.stop()
        self._reasons.clear()
        self._set_reading(True)
        if self.transport.is_closing():
            return
        self._write_head()
        try:
            self.transport.write_eof()
        except OSError:  # the peer has reset the connection, and the loop does not know yet
            self.transport.abort()
        else:
            self._loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED_BYTES:
            self.transport.abort()

    def _schedule(self) -> None:
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self._parse_waiting)

    def _parse_waiting(self) -> None:
        if self._is_parsing:
            return
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        until = perf_counter() + PARSE_TURN_SECONDS
        self._is_parsing = True
        try:
            while self._waiting and not self._reasons:
                piece = bytes(self._waiting[:MAX_PARSE_BYTES])
                del self._waiting[:MAX_PARSE_BYTES]
                self._parse(piece)
                if perf_counter() > until:
                    break
        finally:
            self._is_parsing = False
        if self._waiting and not self._reasons:
            self._schedule()
        self._set_reading(not (self._waiting or self._reasons))

    def _set_reading(self, is_reading: bool) -> None:
        if is_reading == self._is_reading or self._is_detached or self.transport.is_closing():
            return
        self._is_reading = is_reading
        if is_reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()
