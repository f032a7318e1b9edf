"""Accepts connections, a few in each turn of the event loop, and goes on when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from pipecat_base.server.connections import Connections

AT_ONCE = 32
"""Connections in one turn of the event loop."""
PAUSE = 0.05
"""Seconds without a place or a descriptor until the next try."""
SOON = 0.005
"""Seconds that connections need to close."""
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Of one listener.

    Args:
        listener: Does not block. Not closed here.
        protocol: Makes what handles one connection.
    """

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], connections: Connections
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._adopting: set[asyncio.Task[object]] = set()
        self._start()

    def close(self) -> None:
        """Accept nothing more."""
        self._loop.remove_reader(self._listener.fileno())
        if self._pause is not None:
            self._pause.cancel()

    def _start(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _rest(self, seconds: float = PAUSE) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(seconds, self._start)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._connections.is_packed(len(self._adopting)) and not self._connections.make_room():
                self._connections.tell("connections", f"No connection is accepted: there are {len(self._connections)}")
                self._rest()
                return
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                self._connections.tell("descriptors", f"No connection can be accepted: {error.strerror}; see ulimit -n")
                has_room = sum(self._connections.make_room() for _ in range(AT_ONCE))
                self._rest(SOON if has_room else PAUSE)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._adopt(sock))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

    async def _adopt(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except OSError:  # gone again
            sock.close()
