"""The board: who is admitted, what runs, and how the last ones ended, whatever their transport.

:class:`SessionRegistry` is the only owner of session state; a pod runs what is on it. Leaving the scope of
:meth:`SessionRegistry.admit` closes what the session held and frees its place, whatever happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pipecat_base.errors import AtCapacity, DuplicateSession, NotRunning, Refusal, UnknownSession
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import MESSAGES, Outcome, Report
from pipecat_base.sessions.transports import UNKNOWN, Caller, TransportKind

CLOSE_TIMEOUT = 2.0
"""Seconds that closing what a session held (a socket whose peer is gone) may take."""
MAX_REPORTS = 1000
"""Sessions whose ends are remembered."""


class SessionState(Enum):
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
    """One conversation. Changed by :class:`SessionRegistry` alone.

    Attributes:
        max_seconds: Counted from the bot's first line, over every peer that a WebRTC session has.
        gives_way: Whether it gives its place up, while it waits for its peer, to a session whose peer is there.
        report: How its bot's last run ended; None before that.
        admitted_at: By the clock that ``age`` is counted by.
        started_at: The same by the wall clock.
    """

    id: str
    transport: TransportKind
    max_seconds: float | None
    caller: Caller = UNKNOWN
    state: SessionState = SessionState.ADMITTED
    outcome: Outcome | None = None
    gives_way: bool = False
    report: Report | None = None
    admitted_at: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _stop: asyncio.Future[Outcome] = field(default_factory=_future, repr=False)
    _closers: list[Closer] = field(default_factory=list, repr=False)
    _began: float | None = field(default=None, repr=False)
    _farewell: str | None = field(default=None, repr=False)
    """Why it was ended, where its outcome does not say it."""

    @property
    def stop(self) -> asyncio.Future[Outcome]:
        """Done when somebody has asked for its end."""
        return self._stop

    @property
    def age(self) -> float:
        """Seconds since it was admitted."""
        return time.monotonic() - self.admitted_at

    def on_end(self, closer: Closer) -> None:
        """Close something with the session; the last one added is closed first."""
        self._closers.append(closer)

    def after_end(self, closer: Closer) -> None:
        """As :meth:`on_end`, but after all that the caller would wait for."""
        self._closers.insert(0, closer)


@dataclass(frozen=True)
class PastSession:
    """A session that has ended. Times are the wall clock's, in UTC."""

    id: str
    transport: TransportKind
    report: Report
    started_at: datetime
    ended_at: datetime


class SessionRegistry:
    """Admits sessions and knows them.

    Args:
        max_sessions: Places; None for no limit.
        max_seconds: The longest that any session may run; None for no limit.
        start_grace: Seconds for which a session that gives way has its place for sure.
        refusal: The launcher's reason to take no session now, or None.
        keeps_bot_errors: Whether whoever works on the bot may ask what it raised.
        after_each: Awaited at the end of each, when all that it held is closed; it still has its place.
    """

    def __init__(
        self,
        *,
        max_sessions: int | None,
        max_seconds: float | None,
        start_grace: float = 0.0,
        refusal: Callable[[], Refusal | None],
        keeps_bot_errors: bool = False,
        after_each: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.made_at = datetime.now(UTC)
        self._keeps_bot_errors = keeps_bot_errors
        self._max_sessions = max_sessions
        self._max_seconds = max_seconds
        self._start_grace = start_grace
        self._refusal = refusal
        self._after_each = after_each
        self._active: dict[str, Session] = {}
        self._past: OrderedDict[str, PastSession] = OrderedDict()
        self._empty = asyncio.Event()
        self._empty.set()
        self._change = asyncio.Event()
        self._listeners: list[Callable[[Session], None]] = []

    def __len__(self) -> int:
        return len(self._active)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._active.values()))

    def get(self, session_id: str) -> Session | None:
        """The active session of this id."""
        return self._active.get(session_id)

    def report(self, session_id: str) -> Report | None:
        """How a session that is no longer active has ended, if that was lately."""
        past = self._past.get(session_id)
        return None if past is None else past.report

    def past(self) -> list[PastSession]:
        """Those that have ended lately, the last one first."""
        return list(reversed(self._past.values()))

    @property
    def full(self) -> bool:
        """Whether the next one would be refused for lack of a place."""
        return self._has_no_place and self._who_gives_way() is None

    @property
    def _has_no_place(self) -> bool:
        return self._max_sessions is not None and len(self._active) >= self._max_sessions

    def _who_gives_way(self) -> Session | None:
        """The session that has waited for its peer longest, past its grace."""
        waiting = (
            s for s in self._active.values() if s.gives_way and s.state is SessionState.WAITING and not s.stop.done()
        )
        return next((session for session in waiting if session.age >= self._start_grace), None)

    @contextlib.contextmanager
    def keeping_place(self, session_id: str) -> Iterator[None]:
        """While a session's peer is answered: it has come, and keeps its place unless that fails."""
        session = self._active.get(session_id)
        gave_way = session is not None and session.gives_way
        if session is not None:
            session.gives_way = False
        try:
            yield
        except BaseException:
            if session is not None:
                session.gives_way = gave_way
            raise

    async def _make_way(self) -> None:
        """Have a place freed, if a session gives way."""
        found = self._who_gives_way()
        if found is None:
            return
        found._farewell = f"Nobody had come for {found.age:.0f} s, and another caller needed the place."
        logger.info(f"Session {found.id} gives its place to a caller who is there: nobody has come for it")
        self.cancel(found.id, Outcome.EXPIRED)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.until_ended(found.id), CLOSE_TIMEOUT)

    def refusal(self) -> Refusal | None:
        """Why a session that came now would be refused, or None."""
        refusal = self._refusal()
        if refusal is None and self.full:
            refusal = AtCapacity(f"MAX_SESSIONS ({self._max_sessions}) are running.")
        return refusal

    @contextlib.asynccontextmanager
    async def admit(
        self,
        session_id: str,
        transport: TransportKind,
        *,
        max_seconds: float | None = None,
        gives_way: bool = False,
        caller: Caller = UNKNOWN,
    ) -> AsyncIterator[Session]:
        """Reserve a place; free it at the end of the scope.

        Raises:
            Refusal: starting, draining, at capacity, or the id is in use. Nothing is left behind.
        """
        refusal = self._refusal()
        if refusal is None and session_id in self._active:
            refusal = DuplicateSession("A session with this id is running.")
        if refusal is None and not gives_way and self._has_no_place:
            await self._make_way()
            if session_id in self._active:
                refusal = DuplicateSession("A session with this id is running.")
        refusal = refusal or self._refusal()
        if refusal is None and self._has_no_place:
            refusal = AtCapacity(f"MAX_SESSIONS ({self._max_sessions}) are running.")
        if refusal is not None:
            refusal.session_id = session_id
            raise refusal
        limits = [limit for limit in (max_seconds, self._max_seconds) if limit is not None]
        session = Session(session_id, transport, min(limits, default=None), caller, gives_way=gives_way)
        self._active[session_id] = session
        self.enter(session, SessionState.ADMITTED)
        self._empty.clear()
        refused: Refusal | None = None
        try:
            yield session
        except Refusal as error:
            refused = error
            raise
        finally:
            try:
                await self._close(session)
                if self._after_each is not None:
                    await self._after_each()
            except Exception as error:  # the session itself has ended well
                logger.debug(f"After session {session_id}: {type(error).__name__}: {error}")
            finally:
                # Nothing is awaited between this and the report of who has run it.
                del self._active[session_id]
                self._remember(session, refused)
                self.enter(session, SessionState.ENDED)
                if not self._active:
                    self._empty.set()

    def _remember(self, session: Session, refused: Refusal | None) -> None:
        report = session.report
        if report is None:
            outcome = session.outcome or Outcome.FAILED
            message = MESSAGES.get(outcome, "The session ended before its bot began.")
            report = Report(outcome, message if refused is None else refused.message, 0.0)
        if session._farewell is not None:
            report = Report(Outcome.EXPIRED, session._farewell, report.seconds)
        session.report = report if self._keeps_bot_errors else replace(report, bot_error=None)
        report = session.report
        self._past[session.id] = PastSession(
            session.id, session.transport, report, session.started_at, datetime.now(UTC)
        )
        self._past.move_to_end(session.id)
        if len(self._past) > MAX_REPORTS:
            self._past.popitem(last=False)

    def enter(self, session: Session, state: SessionState) -> None:
        """A session has come so far; for the pod that runs it."""
        session.state = state
        self._change.set()
        self._change = asyncio.Event()
        for listener in self._listeners:
            listener(session)

    def on_change(self, listener: Callable[[Session], None]) -> None:
        """Call ``listener`` whenever a session enters a state; at ENDED it has its report."""
        self._listeners.append(listener)

    def begin_run(self, session: Session) -> float | None:
        """The bot begins; the seconds that are left for this run."""
        self.enter(session, SessionState.RUNNING)
        now = time.monotonic()
        session._began = session._began or now
        return None if session.max_seconds is None else max(0.0, session._began + session.max_seconds - now)

    async def wait(self, session: Session, *events: asyncio.Future[Any], timeout: float | None) -> Outcome | None:
        """Keep the place until one of ``events`` is done or ``timeout`` seconds are over.

        None then; the outcome when the session's end was asked for meanwhile, or when an event after the first was
        done without it: the caller is gone.
        """
        self.enter(session, SessionState.WAITING)
        waited: set[asyncio.Future[Any]] = {session._stop, *events}
        done, _ = await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if session._stop.done():
            session.outcome = session._stop.result()
        elif done and not events[0].done():
            session.outcome = Outcome.DISCONNECTED
        return session.outcome

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

    def changed(self) -> Coroutine[Any, Any, Any]:
        """Wait until one is admitted, waits for its peer, runs or has ended, counted from this call."""
        return self._change.wait()

    async def until_empty(self, timeout: float | None) -> bool:
        """Wait for the last session to end; False when ``timeout`` seconds were not enough."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def until_running(self, session_id: str, timeout: float) -> None:
        """Wait until a session's bot runs.

        Raises:
            UnknownSession: there is none of this id, or no longer.
            NotRunning: ``timeout`` seconds were not enough.
        """
        session: Session | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    session = self._active.get(session_id)
                    if session is None:
                        raise UnknownSession(session_id)
                    if session.state is SessionState.RUNNING:
                        return
                    await self.changed()
        except TimeoutError:
            state = session.state.value if session is not None else SessionState.ENDED.value
            raise NotRunning(f"The bot does not run yet: the session is {state}.", session_id=session_id) from None

    async def until_ended(self, session_id: str) -> None:
        """Wait until there is no session of this id."""
        while session_id in self._active:
            await self.changed()

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
