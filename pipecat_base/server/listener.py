"""Accepts a few connections per turn of the event loop, and retries when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from pipecat_base.server.connections import Connections

MAX_ACCEPTS_PER_TURN = 32
RETRY_SECONDS = 0.05
EVICTION_RETRY_SECONDS = 0.005  # evicted connections need this long to close
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], connections: Connections
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._accepting: set[asyncio.Task[object]] = set()
        self._start()

    def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        if self._retry is not None:
            self._retry.cancel()

    def _start(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _pause(self, seconds: float = RETRY_SECONDS) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._retry = self._loop.call_later(seconds, self._start)

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS_PER_TURN):
            if self._connections.is_at_hard_limit(len(self._accepting)) and not self._connections.evict():
                self._connections.log_throttled(
                    "connections", f"Not accepting connections: {len(self._connections)} are open"
                )
                self._pause()
                return
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                self._connections.log_throttled(
                    "descriptors", f"No connection can be accepted: {error.strerror}; see ulimit -n"
                )
                has_room = sum(self._connections.evict() for _ in range(MAX_ACCEPTS_PER_TURN))
                self._pause(EVICTION_RETRY_SECONDS if has_room else RETRY_SECONDS)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._serve(sock))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, sock)
        except OSError:  # disconnected already
            sock.close()
