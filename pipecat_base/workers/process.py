"""The launcher's side of one worker: what it is asked, what it says, and how it ends."""

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
    Began,
    BotImported,
    Close,
    Ended,
    Entered,
    EventEmitted,
    Exited,
    Idle,
    Message,
    NotServing,
    Reply,
    Request,
    ServeConnection,
    Serving,
    Stored,
)

STATUS_WAIT = 1.0
"""Seconds between the end of a worker's channel and the news of how it ended."""

PROCESS_FACT = "process_loop_lag"
"""Of no session."""

MESSAGES_PER_SECOND = 100
"""Of one process, on average over ten: beside facts within their allowance, and replies that are waited for."""

STATES = frozenset(state.value for state in SessionState)

MAX_UPLOADS = 1000
"""Files of one session that are remembered, however many its process says it has stored."""

R = TypeVar("R", bound=Request)


class WorkerDied(Exception):
    """A worker ended while something was asked of it. In words: "was killed by SIGKILL"."""


class WorkerLease:
    """A worker's time for one session.

    Attributes:
        ended: Done when the session has ended there.
        uploads: Files that it keeps for the session.
        offers: Those of the session's peer that it has been asked to answer, less those that failed.
        is_left: Whether the session goes to another worker.
        on_superseded: Called when newer code takes sessions.
        on_offers_over: Called when none of its offers is being answered any more.
    """

    def __init__(self, worker: WorkerProcess, session_id: str) -> None:
        self.worker = worker
        self.session_id = session_id
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.uploads: list[str] = []
        self.offers = 0
        self.is_left = False
        self.on_entered: Callable[[str], None] = _nothing
        self.on_serving: Callable[[Sequence[str]], None] = _nothing
        self.on_superseded: Callable[[], None] = lambda: None
        self.on_offers_over: Callable[[], None] = lambda: None


class WorkerProcess:
    """One worker.

    Attributes:
        idle: Done once it is set up; raises StartupError, or Died.
        died: Done when it has ended, with how, in words.
        is_used: Whether a bot has run in it.
    """

    def __init__(self, child: ForkedProcess, on_fact: Callable[[EventEmitted], None]) -> None:
        loop = asyncio.get_running_loop()
        self.pid = child.pid
        self.exited: Exited | None = None
        """How it has ended and what it has used, if that is known."""
        self._on_fact = on_fact
        self._events = EventRateLimit()
        self._messages = RateLimit(MESSAGES_PER_SECOND)
        self.began: asyncio.Future[None] = loop.create_future()
        self.idle: asyncio.Future[Idle] = loop.create_future()
        self.died: asyncio.Future[str] = loop.create_future()
        self.is_used = False
        self.reason: str | None = None
        """Why we have killed it."""
        self._leases: dict[str, WorkerLease] = {}
        self._child = child
        self._channel = child.channel
        self._numbers = itertools.count(1)
        self._last_number = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._status: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._channel.attach(loop, self._on_message, self._on_end)
        # Not its channel alone: what the bot has forked may hold that open.
        child.exited.add_done_callback(lambda _: self._channel.finish())

    def take(self, session_id: str) -> WorkerLease:
        """For this session, from now on."""
        lease = self._leases[session_id] = WorkerLease(self, session_id)
        return lease

    @property
    def is_busy(self) -> bool:
        """Whether it has a session."""
        return bool(self._leases)

    @property
    def has_others(self) -> bool:
        """Whether it has more sessions than one."""
        return len(self._leases) > 1

    def leave(self, lease: WorkerLease) -> None:
        """That session is over: what is still said of it is of no account."""
        if self._leases.get(lease.session_id) is lease:
            del self._leases[lease.session_id]

    async def request(self, kind: type[R], *fields: Any, descriptors: Sequence[int] = ()) -> Any:
        """What it replies.

        Raises:
            Refusal: that of the worker.
            Died: it ended first.
        """
        number = self._last_number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        if self.died.done():
            raise WorkerDied(self.died.result())
        self._channel.send(kind(number, *fields), descriptors)
        try:
            reply: Reply = await asked
        finally:
            self._asked.pop(number, None)
        return reply.result()

    def tell(self, message: Message) -> None:
        """Something that has no answer."""
        self._channel.send(message)

    def adopt(self, descriptor: int, head: bytes, early: bytes, client: Any, scheme: str) -> None:
        """Have it serve a connection whose first request was read here."""
        self._channel.send(ServeConnection(head, early, None if client is None else list(client), scheme), [descriptor])

    def connect(self, client: Any, scheme: str) -> socket.socket:
        """Have it serve a new connection, whose other end is returned."""
        message = ServeConnection(b"", b"", None if client is None else list(client), scheme)
        ours, theirs = socket.socketpair()
        with theirs:
            self._channel.send(message, [theirs.fileno()])
        ours.setblocking(False)
        return ours

    def close(self, within: float) -> None:
        """Let it tear down and end; kill it when that takes longer than ``within`` seconds."""
        self.tell(Close())
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(within, self.kill, None)

    def kill(self, reason: str | None) -> None:
        """End it now. The reason takes the place of "was killed by SIGKILL"."""
        if self.died.done() or self._child.exited.done():
            return
        self.reason = self.reason or reason
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        if isinstance(message, Reply) and message.number in self._asked:
            _settle(self._asked[message.number], message)
        elif isinstance(message, EventEmitted) and self._events.take(message.name):
            if message.session_id in self._leases or message.name == PROCESS_FACT:
                self._on_fact(message)
        elif not self._messages.take():
            self._reject("was killed, as it sent too many messages")
        elif isinstance(message, EventEmitted):
            pass  # an honest process drops it itself, and says so
        elif isinstance(message, Began):
            _settle(self.began, None)
        elif isinstance(message, Idle):
            _settle(self.idle, message)
        elif isinstance(message, NotServing):
            self._fail(message.error())
        elif isinstance(message, Entered) and message.state not in STATES:
            self._reject("was killed, as it sent a state that no session has")
        elif isinstance(message, Entered | Serving | Stored | Ended):
            self._emit(message)
        elif isinstance(message, Reply) and message.number <= self._last_number:
            pass  # nothing waits for it any more
        elif not isinstance(message, BotImported):  # one that is alone sends that first
            self._reject(f"was killed, as it sent {type(message).__name__}, which workers do not")

    def _reject(self, reason: str) -> None:
        """End a process that sends what no worker of ours would."""
        self.kill(reason)
        self._on_end()

    def _emit(self, message: Entered | Serving | Stored | Ended) -> None:
        if isinstance(message, Entered) and message.state == SessionState.RUNNING.value:
            self.is_used = True
        lease = self._leases.get(message.session_id)
        if lease is None:
            return
        if isinstance(message, Entered):
            lease.on_entered(message.state)
        elif isinstance(message, Serving):
            lease.on_serving(message.fingerprints)
        elif isinstance(message, Stored):
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
        self._status = asyncio.ensure_future(self._learn_of_end())

    async def _learn_of_end(self) -> None:
        await asyncio.wait({self._child.exited}, timeout=STATUS_WAIT)
        if not self._child.exited.done():  # it has closed its descriptors, and lives
            self.kill("closed its connection to the launcher")
            await asyncio.wait({self._child.exited}, timeout=STATUS_WAIT)
        self.exited = self._child.exited.result() if self._child.exited.done() else None
        how = self.reason or how_it_ended(self.exited)
        if self._deadline is not None:
            self._deadline.cancel()
        self.died.set_result(how)
        died = WorkerDied(how)
        self._fail(died)
        for asked in list(self._asked.values()):
            if not asked.done():
                asked.set_exception(died)

    def _fail(self, error: StartupError | WorkerDied) -> None:
        for future in (self.began, self.idle):
            if not future.done():
                future.set_exception(error)
                future.exception()  # somebody may ask later; nobody need


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _nothing(*values: Any) -> None: ...
