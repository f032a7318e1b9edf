"""A connection between two processes: whole messages with descriptors, over a Unix socket.

A message is a head (its length, the number of descriptors) and JSON. Descriptors travel with the head's first byte
(SCM_RIGHTS, unix(7)).
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
CHUNK_BYTES = 64 * 1024
MAX_DESCRIPTORS = 4
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
MAX_MESSAGE_TO_LAUNCHER_BYTES = 4 * 1024 * 1024

Received = tuple[Message, list[int]]


class Channel:
    """Never waits to write; reading is attached to an event loop, or done with :meth:`receive`.

    Received descriptors belong to the receiver; sent ones are duplicated. The launcher's end takes none,
    because the other end runs users' code.
    """

    def __init__(self, sock: socket.socket, *, is_launchers: bool = False) -> None:
        sock.setblocking(False)
        self._is_launchers = is_launchers
        self._sock = sock
        self._incoming = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_message: Callable[[Message, list[int]], None] = _close_descriptors
        self._on_end: Callable[[], None] = _ignore_end
        self.ended = False
        self.fault: str | None = None

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Return the launcher's end, and the socket for the other end."""
        launchers, other = socket.socketpair()
        return cls(launchers, is_launchers=True), other

    def fileno(self) -> int:
        return self._sock.fileno()

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop, self._on_message, self._on_end = loop, on_message, on_end
        loop.add_reader(self._sock.fileno(), self.poll)
        if self._outgoing:
            self._write()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        if self.ended:
            return
        content = encode(message)
        head = HEAD.pack(len(content), len(descriptors))
        self._outgoing.append((head + content, [os.dup(descriptor) for descriptor in descriptors]))
        if len(self._outgoing) == 1:
            self._write()

    def receive(self, timeout: float | None = None) -> Received | None:
        """Return the next message, or None after the end; raises TimeoutError after ``timeout`` seconds."""
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
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        while self._outgoing and not self.ended and poll.poll(timeout * 1000):
            self._write()

    def close(self) -> None:
        self.detach()
        self.ended = True
        self._sock.close()
        for descriptor in (*self._descriptors, *(d for _, held in self._outgoing for d in held)):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()
        self._outgoing.clear()

    def detach(self) -> None:
        if self._loop is not None and self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._loop = None

    def finish(self) -> None:
        """Deliver what an ended process has sent; its children may hold its end open."""
        if self._loop is None:
            return
        while self._fill():
            pass
        self.ended = True
        self._deliver()

    def poll(self) -> None:
        """Deliver what the other end has sent so far."""
        self._fill()
        self._deliver()

    def _deliver(self) -> None:
        while self._loop is not None:  # a handler may close this
            received = self._next()
            if received is None:
                break
            self._on_message(*received)
        if self.ended and self._loop is not None:
            self.detach()
            self._on_end()

    def _fill(self) -> bool:
        ancillary: list[tuple[int, int, bytes]] = []
        try:
            if self._is_launchers:
                data = self._sock.recv(CHUNK_BYTES)
            else:
                space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
                data, ancillary, _, _ = self._sock.recvmsg(CHUNK_BYTES, space, socket.MSG_CMSG_CLOEXEC)
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
        if length > (MAX_MESSAGE_TO_LAUNCHER_BYTES if self._is_launchers else MAX_MESSAGE_BYTES):
            self.ended, self.fault = True, f"a message of {length} bytes"
            return None
        end = HEAD.size + length
        if len(self._incoming) < end:
            return None
        content = bytes(self._incoming[HEAD.size : end])
        del self._incoming[:end]
        descriptors = [self._descriptors.popleft() for _ in range(min(count, len(self._descriptors)))]
        try:
            if self._is_launchers:
                return decode_untrusted(content, Message.kinds), descriptors
            return decode(content), descriptors
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
                self._loop.call_soon(self._deliver)
                return
        if self._loop is not None:
            self._loop.remove_writer(self._sock.fileno())


def _close_descriptors(message: Message, descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _ignore_end() -> None: ...
