"""Workers and their pool as the launcher sees them, without a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import h11

from pipecat_base.errors import NoProcess
from pipecat_base.sessions.registry import SessionRegistry
from pipecat_base.workers.fork_client import ForkedProcess, ForkServerProcess, TemplateConnection
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import BotImported, EventEmitted, Exited, Message, Serve
from pipecat_base.workers.lease import WorkerLease
from pipecat_base.workers.limits import WorkerLimits
from pipecat_base.workers.pool import WorkerPool
from pipecat_base.workers.process import WorkerProcess

UNUSED_PID = 2**22 + 1
"""No process has this id (proc(5), pid_max)."""
IMPORTED = BotImported("bot in bot.py", "bot.py", [], None, False, False, False, [], [])


@dataclass
class HandedOver:
    """A connection that the launcher has handed to a worker."""

    request: Serve
    sock: socket.socket
    was_read: bool = False

    async def read(self) -> tuple[h11.Request, bytes]:
        """The request and its body; the worker has read the head of a WebSocket already."""
        self.was_read = True
        connection, body = h11.Connection(h11.SERVER), b""
        if self.request.head:
            connection.receive_data(self.request.head)
        request: Any = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await asyncio.get_running_loop().sock_recv(self.sock, 65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return request, body

    async def answer(self, content: Any, status: int = 200) -> None:
        if not self.was_read:  # or the end of the connection would be a reset
            await self.read()
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        head = b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
        await asyncio.get_running_loop().sock_sendall(self.sock, head + body)
        self.sock.close()


class UnstartedWorker(WorkerProcess):
    """``messages`` of the launcher, other than requests, are kept; a kill always works."""

    def __init__(self, on_event: Callable[[EventEmitted], None] = lambda event: None, *, max_calls: int = 1) -> None:
        ours, end = Channel.pair()
        self.exit: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        super().__init__(ForkedProcess(UNUSED_PID, ours, self.exit), on_event, max_calls=max_calls)
        self.messages: list[Message] = []
        self.requests: asyncio.Queue[HandedOver] = asyncio.Queue()
        self.is_killed = False
        self._sockets: list[socket.socket] = []
        self._bots_end = Channel(end)
        self._bots_end.attach(asyncio.get_running_loop(), self._on_sent, lambda: None)

    def _on_sent(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Serve):
            self._sockets.append(socket.socket(fileno=descriptors[0]))
            self._sockets[-1].setblocking(False)
            self.requests.put_nowait(HandedOver(message, self._sockets[-1]))
        else:
            self.messages.append(message)

    def say(self, *messages: Message) -> None:
        for message in messages:
            self._bots_end.send(message)

    def die(self, exited: Exited | None = None) -> None:
        self._bots_end.close()
        for sock in self._sockets:
            sock.close()
        if not self.exit.done():
            self.exit.set_result(exited)

    def kill(self, reason: str | None) -> None:
        super().kill(reason)
        self.is_killed = True
        self.die()


class ShortLimits(WorkerLimits):
    def __init__(
        self, take_timeout: float = 1.0, *, calls: int = 1, calls_before_restart: int | None = 1, idle: int = 1
    ) -> None:
        super().__init__(idle, calls, calls_before_restart, take_timeout, 1, 1, 1, 1, None, 1)

    @property
    def closing(self) -> float:
        return 0.2

    @property
    def cancelling(self) -> float:
        return 0.2


class PoolOfUnstarted(WorkerPool):
    """Leases these workers, each to one session."""

    def __init__(
        self, *workers: UnstartedWorker, channels: list[Channel], shared: bool = False, **options: Any
    ) -> None:
        self.events: list[tuple[str, str | None]] = []
        super().__init__(
            SessionRegistry(**{"max_sessions": None, "max_seconds": None, "refusal": lambda: None, **options}),
            cast(ForkServerProcess, type("Nothing", (), {"channel": channels[0]})()),
            TemplateConnection(IMPORTED, channels[1]),
            "fork",
            ShortLimits(),
            shared=shared,
            lines_of=lambda session_id: contextlib.nullcontext(),
            emit=lambda name, session_id, *args: self.events.append((name, session_id)),
        )
        self.ready_workers = deque(workers)

    async def _take_worker(self, lease: WorkerLease) -> WorkerProcess:
        if not self.ready_workers:
            raise NoProcess("No process was ready.", session_id=lease.session.id)
        worker = self.ready_workers.popleft()
        worker.add(lease.session.id, lease)
        return worker


@contextlib.contextmanager
def pool_of(*workers: UnstartedWorker, **options: Any) -> Iterator[PoolOfUnstarted]:
    channels = [Channel(end) for end in socket.socketpair()]
    pool = PoolOfUnstarted(*workers, channels=channels, **options)
    try:
        yield pool
    finally:
        for worker in workers:
            worker.die()
        for channel in channels:
            channel.close()
