"""The launcher's side of one worker process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Protocol

from pipecat_base.errors import StartupError
from pipecat_base.server.rate_limit import RateLimit
from pipecat_base.sessions.registry import SessionState
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers.fork_client import ForkedProcess
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc.allowance import EventRateLimit
from pipecat_base.workers.ipc.messages import (
    BotImported,
    Close,
    EventEmitted,
    Exited,
    Message,
    Noted,
    Progress,
    Serve,
    SessionEnded,
    Stage,
    StartupFailed,
    StateEntered,
)

EXIT_STATUS_TIMEOUT_SECONDS = 1.0

PROCESS_EVENT = "process_loop_lag"  # belongs to no session

MESSAGES_PER_SECOND = 100  # averaged over ten seconds, for each call that it may run, on top of events

STATES = frozenset(state.value for state in SessionState if state is not SessionState.ENDED)
TRANSPORTS = frozenset(kind.value for kind in TransportKind)


class WorkerDied(Exception):
    """The text says how: "was killed by SIGKILL"."""


class SessionInWorker(Protocol):
    """The launcher's side of a session that a worker runs; its methods are called as the worker's messages arrive."""

    def on_state(self, number: int, state: SessionState, transport: TransportKind) -> None: ...

    def on_noted(self, kind: str, values: list[str]) -> None: ...

    def on_ended(self, message: SessionEnded) -> None: ...

    def on_death(self, worker: WorkerProcess) -> None: ...


class WorkerProcess:
    """A worker. ``idle`` is done once the bot is set up (or raises); ``died`` has in words how the process ended."""

    def __init__(self, child: ForkedProcess, on_event: Callable[[EventEmitted], None], *, max_calls: int = 1) -> None:
        loop = asyncio.get_running_loop()
        self.pid = child.pid
        self.exited: Exited | None = None
        self._on_event = on_event
        self._events = EventRateLimit(max_calls)
        self._messages = RateLimit(MESSAGES_PER_SECOND * max_calls)
        self.loop_started: asyncio.Future[None] = loop.create_future()
        self.idle: asyncio.Future[Progress] = loop.create_future()
        self.died: asyncio.Future[str] = loop.create_future()
        self.most_calls = 0  # of the calls that it has run at once
        self.is_spoiled = False
        """True if it has broken a rule, or may still run a session that is over here: it takes no more."""
        self.calls_at_end = 0
        self.calls_run = 0  # calls of the past whose bot ran
        self.reason: str | None = None  # why the launcher has killed it
        self._numbered = 0
        self._unreported: set[int] = set()
        self._sessions: dict[str, SessionInWorker] = {}
        self._running: set[str] = set()  # sessions whose bot has run
        self._child = child
        self._channel = child.channel
        self._status: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._channel.attach(loop, self._on_message, self._on_end)
        # Children of the bot may hold its channel open after it has ended.
        child.exited.add_done_callback(lambda _: self._channel.finish())

    @property
    def calls(self) -> int:
        return len(self._sessions)

    def add(self, session_id: str, session: SessionInWorker) -> None:
        self._sessions[session_id] = session
        self.most_calls = max(self.most_calls, len(self._sessions))

    def remove(self, session_id: str, session: SessionInWorker) -> None:
        if self._sessions.get(session_id) is session:
            del self._sessions[session_id]
            self.calls_run += session_id in self._running
            self._running.discard(session_id)

    def send(self, message: Message) -> None:
        self._channel.send(message)

    def next_number(self) -> int:
        """Number a request whose end the worker reports."""
        self._numbered += 1
        self._unreported.add(self._numbered)
        return self._numbered

    def serve(self, descriptor: int, request: Serve) -> None:
        """Have the worker serve a duplicate of the connection."""
        self._channel.send(request, [descriptor])

    def connect(self, request: Serve) -> socket.socket:
        """Have the worker serve a new connection, and return its other end."""
        launchers, workers = socket.socketpair()
        with workers:
            self.serve(workers.fileno(), request)
        launchers.setblocking(False)
        return launchers

    def poll(self) -> None:
        """Handle the messages that have arrived."""
        self._channel.poll()

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
        if isinstance(message, EventEmitted) and self._events.take(message.name):
            if message.session_id in self._sessions or message.name == PROCESS_EVENT:
                self._on_event(message)
        elif isinstance(message, SessionEnded) and message.number in self._unreported:
            self._unreported.discard(message.number)
            self._on_session_message(message)
        elif not self._messages.take():
            self._reject("was killed, as it sent too many messages")
        elif isinstance(message, EventEmitted):
            pass  # over the rate limit; an honest process drops and logs these itself
        elif isinstance(message, Progress):
            _settle(self.loop_started, None)
            if message.stage == Stage.IDLE:
                _settle(self.idle, message)
        elif isinstance(message, StartupFailed):
            self._fail(message.error())
        elif isinstance(message, StateEntered) and not (message.state in STATES and message.transport in TRANSPORTS):
            self._reject("was killed, as it sent a state that no session has")
        elif isinstance(message, StateEntered | Noted | SessionEnded):
            self._on_session_message(message)
        elif not isinstance(message, BotImported):  # a standalone worker sends that first
            self._reject(f"was killed, as it sent {type(message).__name__}, which workers do not")

    def _reject(self, reason: str) -> None:
        self.kill(reason)
        self._on_end()

    def _on_session_message(self, message: StateEntered | Noted | SessionEnded) -> None:
        session = self._sessions.get(message.session_id)
        if session is None:
            return
        if isinstance(message, StateEntered):
            if message.state == SessionState.RUNNING.value:
                self._running.add(message.session_id)
            session.on_state(message.number, SessionState(message.state), TransportKind(message.transport))
        elif isinstance(message, Noted):
            session.on_noted(message.kind, message.values)
        else:
            session.on_ended(message)

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
        self.calls_at_end = self.calls
        self.died.set_result(how)
        self._fail(WorkerDied(how))
        for session in tuple(self._sessions.values()):
            session.on_death(self)

    def _fail(self, error: StartupError | WorkerDied) -> None:
        for future in (self.loop_started, self.idle):
            if not future.done():
                future.set_exception(error)
                future.exception()  # or asyncio would log it as never retrieved


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
