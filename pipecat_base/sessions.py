"""Sessions: who is admitted, what runs, how it ends.

:class:`Sessions` is the only owner of session state; :mod:`pipecat_base.performance` runs the bot. A route
reserves a place with ``async with sessions.admit(...)``, builds the arguments, and reports what
:meth:`Sessions.run` returns. Leaving the scope closes what the session held and frees its place, whatever happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pipecat_base.arguments import Arguments
from pipecat_base.errors import AtCapacity, DuplicateSession, Refusal
from pipecat_base.logs import logger
from pipecat_base.outcomes import MESSAGES, Outcome, Report
from pipecat_base.performance import Performer

CLOSE_TIMEOUT = 2.0
"""Seconds that closing what a session held (a socket whose peer is gone) may take."""


class Transport(Enum):
    """How the caller reaches the bot."""

    PLAIN = "plain"
    DAILY = "daily"
    WEBSOCKET = "websocket"
    WEBRTC = "webrtc"
    WHATSAPP = "whatsapp"
    LIVEKIT = "livekit"
    MOQ = "moq"


class State(Enum):
    """Where a session is in its life."""

    ADMITTED = "admitted"
    """It has a place; its arguments are being made."""
    WAITING = "waiting"
    """It waits for its peer: the caller's WebRTC offer, or WhatsApp taking our answer."""
    RUNNING = "running"
    """The bot runs."""
    ENDED = "ended"
    """The bot has ended and what the session held is closed."""


Closer = Callable[[Outcome], Awaitable[None]]


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass
class Session:
    """One conversation. Changed by :class:`Sessions` alone."""

    id: str
    transport: Transport
    max_seconds: float | None
    """Counted from the bot's first line, over every peer that a WebRTC session has."""
    state: State = State.ADMITTED
    outcome: Outcome | None = None
    admitted_at: float = field(default_factory=time.monotonic)
    _stop: asyncio.Future[Outcome] = field(default_factory=_future, repr=False)
    _closers: list[Closer] = field(default_factory=list, repr=False)
    _began: float | None = field(default=None, repr=False)

    def _begin(self) -> float | None:
        """The seconds that are left for a run that begins now."""
        now = time.monotonic()
        self._began = self._began or now
        return None if self.max_seconds is None else max(0.0, self._began + self.max_seconds - now)

    @property
    def stopping(self) -> bool:
        """Whether somebody has asked for its end."""
        return self._stop.done()

    def on_end(self, closer: Closer) -> None:
        """Close something with the session; the last one added is closed first."""
        self._closers.append(closer)

    def after_end(self, closer: Closer) -> None:
        """As :meth:`on_end`, but after all that the caller would wait for."""
        self._closers.insert(0, closer)


class Sessions:
    """Admission, running and ending.

    Args:
        performer: Runs the bot.
        max_sessions: Places; None for no limit.
        max_seconds: The longest that any session may run; None for no limit.
        refusal: The launcher's reason to take no session now, or None.
        lines_of: Entered while a session's bot runs, with its id: its log lines carry that.
        after_each: Awaited at the end of each, when all that it held is closed; it still has its place.
    """

    def __init__(
        self,
        performer: Performer,
        *,
        max_sessions: int | None,
        max_seconds: float | None,
        refusal: Callable[[], Refusal | None],
        lines_of: Callable[[str], AbstractContextManager[None]],
        after_each: Callable[[], Awaitable[None]],
    ) -> None:
        self._performer = performer
        self._max_sessions = max_sessions
        self._max_seconds = max_seconds
        self._refusal = refusal
        self._lines_of = lines_of
        self._after_each = after_each
        self._active: dict[str, Session] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._change = asyncio.Event()
        self._held = 0

    def __len__(self) -> int:
        return len(self._active)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._active.values()))

    def get(self, session_id: str) -> Session | None:
        """The active session of this id."""
        return self._active.get(session_id)

    def changed(self) -> Coroutine[Any, Any, Any]:
        """Wait until one is admitted, waits for its peer, runs or has ended, counted from this call."""
        return self._change.wait()

    def _enter(self, session: Session, state: State) -> None:
        session.state = state
        self._change.set()
        self._change = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing is about to."""
        return not self._active and not self._held

    @property
    def alone(self) -> bool:
        """Whether no more than one session is there, and nothing is about to run."""
        return len(self._active) <= 1 and not self._held

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep a shutdown from taking a start for nothing while what it needs is still being made: a room, say."""
        self._held += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._held -= 1
            self._note_idle()

    def _note_idle(self) -> None:
        if self.idle:
            self._empty.set()

    @property
    def full(self) -> bool:
        """Whether the next one would be refused for lack of a place."""
        return self._max_sessions is not None and len(self._active) >= self._max_sessions

    @contextlib.asynccontextmanager
    async def admit(
        self, session_id: str, transport: Transport, *, max_seconds: float | None = None
    ) -> AsyncIterator[Session]:
        """Reserve a place; free it at the end of the scope.

        Raises:
            Refusal: starting, draining, at capacity, or the id is in use. Nothing is left behind.
        """
        refusal = self._refusal()
        if refusal is None and session_id in self._active:
            refusal = DuplicateSession("A session with this id is running.")
        if refusal is None and self.full:
            refusal = AtCapacity(f"MAX_SESSIONS ({self._max_sessions}) are running.")
        if refusal is not None:
            refusal.session_id = session_id
            raise refusal
        limits = [limit for limit in (max_seconds, self._max_seconds) if limit is not None]
        session = Session(session_id, transport, min(limits, default=None))
        self._active[session_id] = session
        self._enter(session, State.ADMITTED)
        self._empty.clear()
        try:
            yield session
        finally:
            try:
                await self._close(session)
                await self._after_each()
            except Exception as error:  # the session itself has ended well
                logger.debug(f"After session {session_id}: {type(error).__name__}: {error}")
            finally:
                # Nothing is awaited between this and the report of who has run it.
                del self._active[session_id]
                self._enter(session, State.ENDED)
                self._note_idle()

    async def wait(self, session: Session, *events: asyncio.Future[Any], timeout: float | None) -> Outcome | None:
        """Keep the place until one of ``events`` is done or ``timeout`` seconds are over.

        None then; the outcome when the session's end was asked for meanwhile, or when an event after the first was
        done without it: the caller is gone.
        """
        self._enter(session, State.WAITING)
        waited: set[asyncio.Future[Any]] = {session._stop, *events}
        done, _ = await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if session._stop.done():
            session.outcome = session._stop.result()
        elif done and not events[0].done():
            session.outcome = Outcome.DISCONNECTED
        return session.outcome

    async def run(self, session: Session, arguments: Arguments, *, until: asyncio.Future[Any] | None = None) -> Report:
        """Await the bot until it ends, its time is up, its end is asked for, or ``until`` is done: its caller is gone.

        Never raises what the bot raised.
        """
        self._enter(session, State.RUNNING)
        started, seconds_left = time.monotonic(), session._begin()
        with self._lines_of(session.id):
            logger.info(f"Session started: {session.transport.value}")
            performance = self._performer.begin(session.id, arguments)
            try:
                waited: set[asyncio.Future[Any]] = {performance.task, session._stop, *([until] if until else [])}
                await asyncio.wait(waited, timeout=seconds_left, return_when=asyncio.FIRST_COMPLETED)
                if performance.task.done():
                    outcome, message = performance.result()
                else:
                    outcome = self._cause(session, until)
                    message = MESSAGES[outcome]
                    session.outcome = outcome
                    await performance.cancel()
            except asyncio.CancelledError:
                # The route itself is cancelled, by the server's end or by a middleware of the bot's.
                session.outcome = Outcome.CANCELLED
                await performance.cancel()
                raise
            session.outcome = outcome
            seconds = time.monotonic() - started
            logger.info(f"Session ended: {outcome.value} after {seconds:.1f} s")
        return Report(outcome, message, seconds)

    def _cause(self, session: Session, until: asyncio.Future[Any] | None) -> Outcome:
        if session._stop.done():
            return session._stop.result()
        return Outcome.DISCONNECTED if until is not None and until.done() else Outcome.EXPIRED

    def cancel(self, session_id: str, outcome: Outcome = Outcome.CANCELLED) -> bool:
        """Ask for a session's end. False when no such session is active."""
        session = self._active.get(session_id)
        if session is None:
            return False
        if not session._stop.done():
            session._stop.set_result(outcome)
        return True

    def cancel_all(self, outcome: Outcome) -> list[str]:
        """Ask for the end of every session; their ids."""
        ids = list(self._active)
        for session_id in ids:
            self.cancel(session_id, outcome)
        return ids

    async def wait_until_empty(self, timeout: float | None) -> bool:
        """Wait for the last session to end; False when ``timeout`` seconds were not enough."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def _close(self, session: Session) -> None:
        outcome = session.outcome or Outcome.FAILED
        while session._closers:
            closer = session._closers.pop()
            try:
                await asyncio.wait_for(closer(outcome), CLOSE_TIMEOUT)
            except TimeoutError:
                logger.debug(f"Session {session.id}: its peer did not answer the close")
            except Exception as error:
                logger.opt(exception=True).warning(f"Session {session.id}: closing failed: {type(error).__name__}")
