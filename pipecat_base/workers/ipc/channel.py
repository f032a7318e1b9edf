"""A connection between two processes of the launcher: whole messages, with open files, over a Unix socket.

A message is a head (its length, the number of descriptors) and JSON. Descriptors travel with the head's first byte
(SCM_RIGHTS, unix(7)), so they arrive with it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from pipecat_base.workers.ipc.messages import Message, decode, encode
from pipecat_base.workers.ipc.untrusted import decode_untrusted

HEAD = struct.Struct("!IB")
CHUNK = 64 * 1024
MAX_DESCRIPTORS = 4
MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes, from the launcher. A peer that announces more counts as gone."""
MAX_REPLY = 4 * 1024 * 1024
"""Bytes, to the launcher."""

Received = tuple[Message, list[int]]


class Channel:
    """One end. Writing never waits; reading is either attached to a loop or done with :meth:`receive`.

    Whoever receives descriptors owns them. Those that are sent are duplicated: the sender keeps its own.

    Args:
        is_launchers: Whether this is the launcher's end. It takes no descriptors, and no large messages: what runs at
            the other end may be anything.
    """

    def __init__(self, sock: socket.socket, *, is_launchers: bool = False) -> None:
        sock.setblocking(False)
        self._is_launchers = is_launchers
        self._sock = sock
        self._incoming = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_message: Callable[[Message, list[int]], None] = _drop
        self._on_end: Callable[[], None] = _nothing
        self.ended = False
        self.fault: str | None = None
        """What the other end has sent in place of a message."""

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """The launcher's end, and the socket for the other one."""
        ours, theirs = socket.socketpair()
        return cls(ours, is_launchers=True), theirs

    def fileno(self) -> int:
        """For ``select``."""
        return self._sock.fileno()

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        """From now on the loop reads; ``on_end`` is called once, when the other end is gone."""
        self._loop, self._on_message, self._on_end = loop, on_message, on_end
        loop.add_reader(self._sock.fileno(), self._read)
        if self._outgoing:
            self._write()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send it: now, or when there is room. Nothing happens when the other end is gone."""
        if self.ended:
            return
        content = encode(message)
        head = HEAD.pack(len(content), len(descriptors))
        self._outgoing.append((head + content, [os.dup(descriptor) for descriptor in descriptors]))
        if len(self._outgoing) == 1:
            self._write()

    def receive(self, timeout: float | None = None) -> Received | None:
        """The next message, without a loop; None when the other end is gone.

        Raises:
            TimeoutError: none came within ``timeout`` seconds.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            received = self._next()
            if received is not None:
                return received
            if self.ended:
                return None
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError
            self._fill()

    def flush(self, timeout: float) -> None:
        """Without a loop: wait until what was sent is on its way."""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        while self._outgoing and not self.ended and poll.poll(timeout * 1000):
            self._write()

    def close(self) -> None:
        """Close this end."""
        self._detach()
        self.ended = True
        self._sock.close()
        for descriptor in (*self._descriptors, *(d for _, held in self._outgoing for d in held)):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()
        self._outgoing.clear()

    def detach(self) -> None:
        """The loop reads no more; what comes waits for the next one."""
        self._detach()

    def _detach(self) -> None:
        if self._loop is not None and self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._loop = None

    def finish(self) -> None:
        """The other process has ended: take what it has said. Something that it has started may hold its end open."""
        if self._loop is None:
            return
        while self._fill():
            pass
        self.ended = True
        self._take()

    def _read(self) -> None:
        self._fill()
        self._take()

    def _take(self) -> None:
        while self._loop is not None:  # a handler may close this
            received = self._next()
            if received is None:
                break
            self._on_message(*received)
        if self.ended and self._loop is not None:
            self._detach()
            self._on_end()

    def _fill(self) -> bool:
        """Read what is there; whether there was anything."""
        ancillary: list[tuple[int, int, bytes]] = []
        try:
            if self._is_launchers:
                data = self._sock.recv(CHUNK)
            else:
                space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
                data, ancillary, _, _ = self._sock.recvmsg(CHUNK, space, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                self._descriptors.extend(found)
        self._incoming += data
        self.ended = self.ended or not data
        return bool(data)

    def _next(self) -> Received | None:
        if len(self._incoming) < HEAD.size:
            return None
        length, count = HEAD.unpack_from(self._incoming)
        if length > (MAX_REPLY if self._is_launchers else MAX_MESSAGE):
            self.ended, self.fault = True, f"a message of {length} bytes"
            return None
        end = HEAD.size + length
        if len(self._incoming) < end:
            return None
        content = bytes(self._incoming[HEAD.size : end])
        del self._incoming[:end]
        descriptors = [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]
        try:
            return (decode_untrusted if self._is_launchers else decode)(content), descriptors
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self.ended, self.fault = True, str(error)
            return None

    def _write(self) -> None:
        try:
            while self._outgoing:
                content, descriptors = self._outgoing[0]
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                sent = self._sock.sendmsg([content], rights, socket.MSG_NOSIGNAL)
                for descriptor in descriptors:
                    os.close(descriptor)
                if sent < len(content):
                    self._outgoing[0] = (content[sent:], [])
                else:
                    self._outgoing.popleft()
        except (BlockingIOError, InterruptedError):
            if self._loop is not None:
                self._loop.add_writer(self._sock.fileno(), self._write)
            return
        except OSError:
            for _, descriptors in self._outgoing:
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            self._outgoing.clear()
            self.ended = True
            if self._loop is not None:
                self._loop.call_soon(self._take)
                return
        if self._loop is not None:
            self._loop.remove_writer(self._sock.fileno())


def _drop(message: Message, descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _nothing() -> None: ...
