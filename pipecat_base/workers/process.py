"""The launcher's side of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pipecat_base.errors import StartupError
from pipecat_base.server.rate_limit import RateLimit
from pipecat_base.sessions.registry import SessionState
from pipecat_base.workers.fork_client import ForkedProcess
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc.allowance import EventRateLimit
from pipecat_base.workers.ipc.messages import (
    BotImported,
    Close,
    EventEmitted,
    Exited,
    FileStored,
    LoopStarted,
    Message,
    MoqServing,
    Reply,
    Request,
    ServeConnection,
    SessionEnded,
    StartupFailed,
    StateEntered,
    WorkerIdle,
)

EXIT_STATUS_TIMEOUT_SECONDS = 1.0

PROCESS_EVENT = "process_loop_lag"
"""Belongs to no session."""

MESSAGES_PER_SECOND = 100
"""Averaged over ten seconds, on top of events and replies to requests."""

STATES = frozenset(state.value for state in SessionState)

MAX_UPLOADS = 1000
"""Files remembered for one session, however many its process reports."""

R = TypeVar("R", bound=Request)


class WorkerDied(Exception):
    """The text says how: "was killed by SIGKILL"."""


class WorkerLease:
    """A worker given to a session. ``offers`` counts WebRTC offers that were answered, or are being."""

    def __init__(self, worker: WorkerProcess, session_id: str) -> None:
        self.worker = worker
        self.session_id = session_id
        self.ended: asyncio.Future[SessionEnded] = asyncio.get_running_loop().create_future()
        self.uploads: list[str] = []
        self.offers = 0
        self.on_state: Callable[[str], None] = _ignore
        self.on_serving: Callable[[Sequence[str]], None] = _ignore


class WorkerProcess:
    """A worker. ``idle`` is done once the bot is set up (or raises); ``died`` has in words how the process ended."""

    def __init__(self, child: ForkedProcess, on_event: Callable[[EventEmitted], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = child.pid
        self.exited: Exited | None = None
        self._on_event = on_event
        self._events = EventRateLimit()
        self._messages = RateLimit(MESSAGES_PER_SECOND)
        self.loop_started: asyncio.Future[None] = loop.create_future()
        self.idle: asyncio.Future[WorkerIdle] = loop.create_future()
        self.died: asyncio.Future[str] = loop.create_future()
        self.is_used = False
        self.reason: str | None = None
        """Why the launcher has killed it."""
        self._leases: dict[str, WorkerLease] = {}
        self._child = child
        self._channel = child.channel
        self._numbers = itertools.count(1)
        self._last_number = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._status: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._channel.attach(loop, self._on_message, self._on_end)
        # Children of the bot may hold its channel open after it has ended.
        child.exited.add_done_callback(lambda _: self._channel.finish())

    def lease(self, session_id: str) -> WorkerLease:
        lease = self._leases[session_id] = WorkerLease(self, session_id)
        return lease

    @property
    def is_busy(self) -> bool:
        return bool(self._leases)

    @property
    def has_other_sessions(self) -> bool:
        return len(self._leases) > 1

    def release(self, lease: WorkerLease) -> None:
        if self._leases.get(lease.session_id) is lease:
            del self._leases[lease.session_id]

    async def request(self, kind: type[R], *fields: Any, descriptors: Sequence[int] = ()) -> Any:
        """Return the value of the reply; raises Refusal, RemoteError or WorkerDied."""
        number = self._last_number = next(self._numbers)
        reply = self._pending[number] = asyncio.get_running_loop().create_future()
        if self.died.done():
            raise WorkerDied(self.died.result())
        self._channel.send(kind(number, *fields), descriptors)
        try:
            message: Reply = await reply
        finally:
            self._pending.pop(number, None)
        return message.result()

    def send(self, message: Message) -> None:
        self._channel.send(message)

    def serve(self, descriptor: int, head: bytes, early: bytes, client: Any, scheme: str) -> None:
        """Have the worker serve a connection whose first request was read here."""
        self._channel.send(ServeConnection(head, early, None if client is None else list(client), scheme), [descriptor])

    def connect(self, client: Any, scheme: str) -> socket.socket:
        """Have the worker serve a new connection, and return its other end."""
        message = ServeConnection(b"", b"", None if client is None else list(client), scheme)
        launchers, workers = socket.socketpair()
        with workers:
            self._channel.send(message, [workers.fileno()])
        launchers.setblocking(False)
        return launchers

    def close(self, within: float) -> None:
        self.send(Close())
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(within, self.kill, None)

    def kill(self, reason: str | None) -> None:
        """Kill the process. ``reason`` replaces "was killed by SIGKILL"."""
        if self.died.done() or self._child.exited.done():
            return
        self.reason = self.reason or reason
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, Reply) and message.number in self._pending:
            _settle(self._pending[message.number], message)
        elif isinstance(message, EventEmitted) and self._events.take(message.name):
            if message.session_id in self._leases or message.name == PROCESS_EVENT:
                self._on_event(message)
        elif not self._messages.take():
            self._reject("was killed, as it sent too many messages")
        elif isinstance(message, EventEmitted):
            pass  # over the rate limit; an honest process drops and logs these itself
        elif isinstance(message, LoopStarted):
            _settle(self.loop_started, None)
        elif isinstance(message, WorkerIdle):
            _settle(self.idle, message)
        elif isinstance(message, StartupFailed):
            self._fail(message.error())
        elif isinstance(message, StateEntered) and message.state not in STATES:
            self._reject("was killed, as it sent a state that no session has")
        elif isinstance(message, StateEntered | MoqServing | FileStored | SessionEnded):
            self._on_session_message(message)
        elif isinstance(message, Reply) and message.number <= self._last_number:
            pass  # a late reply
        elif not isinstance(message, BotImported):  # a standalone worker sends that first
            self._reject(f"was killed, as it sent {type(message).__name__}, which workers do not")

    def _reject(self, reason: str) -> None:
        self.kill(reason)
        self._on_end()

    def _on_session_message(self, message: StateEntered | MoqServing | FileStored | SessionEnded) -> None:
        if isinstance(message, StateEntered) and message.state == SessionState.RUNNING.value:
            self.is_used = True
        lease = self._leases.get(message.session_id)
        if lease is None:
            return
        if isinstance(message, StateEntered):
            lease.on_state(message.state)
        elif isinstance(message, MoqServing):
            lease.on_serving(message.fingerprints)
        elif isinstance(message, FileStored):
            if len(lease.uploads) < MAX_UPLOADS:
                lease.uploads.append(message.url)
        else:
            _settle(lease.ended, message)

    def _on_end(self) -> None:
        if self._status is not None:
            return
        if self._channel.fault is not None:
            self.kill(f"was killed, as it sent {self._channel.fault}")
        self._channel.close()
        self._status = asyncio.ensure_future(self._finish())

    async def _finish(self) -> None:
        await asyncio.wait({self._child.exited}, timeout=EXIT_STATUS_TIMEOUT_SECONDS)
        if not self._child.exited.done():  # it has closed its descriptors, and still runs
            self.kill("closed its connection to the launcher")
            await asyncio.wait({self._child.exited}, timeout=EXIT_STATUS_TIMEOUT_SECONDS)
        self.exited = self._child.exited.result() if self._child.exited.done() else None
        how = self.reason or how_it_ended(self.exited)
        if self._deadline is not None:
            self._deadline.cancel()
        self.died.set_result(how)
        died = WorkerDied(how)
        self._fail(died)
        for reply in list(self._pending.values()):
            if not reply.done():
                reply.set_exception(died)

    def _fail(self, error: StartupError | WorkerDied) -> None:
        for future in (self.loop_started, self.idle):
            if not future.done():
                future.set_exception(error)
                future.exception()  # or asyncio would log it as never retrieved


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _ignore(*values: Any) -> None: ...
