"""The session registry: admits sessions, owns their state, and keeps the reports of the last ones."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from pipecat_base.errors import AtCapacity, DuplicateSession, NotRunning, Refusal, UnknownSession
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import MAX_REPORTS, MESSAGES, Outcome, Report
from pipecat_base.sessions.transports import UNKNOWN_CALLER, Caller, TransportKind

CLOSE_TIMEOUT = 2.0  # seconds for each resource of a session, such as a socket whose peer has gone silent


class SessionState(Enum):
    ADMITTED = "admitted"  # has a slot; its arguments are being made
    WAITING = "waiting"  # for its peer: the caller's WebRTC offer, or WhatsApp's reply to our answer
    RUNNING = "running"
    ENDED = "ended"  # and its resources are closed


Closer = Callable[[Outcome], Awaitable[None]]


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


@dataclass
class Session:
    """A conversation. Only :class:`SessionRegistry` changes it."""

    id: str
    transport: TransportKind
    max_seconds: float | None  # from the bot's first line, over every peer that a WebRTC session has
    caller: Caller = UNKNOWN_CALLER
    state: SessionState = SessionState.ADMITTED
    outcome: Outcome | None = None
    is_evictable: bool = False  # while it waits for its peer, to a session whose peer is there
    report: Report | None = None  # of its bot's last run
    refusal: Refusal | None = None  # what ended it before its bot ran
    leaves_bot_running: bool = False  # it has ignored its cancellation
    is_announced: bool = True  # False while it is not known whether its request begins a session
    admitted_at: float = field(default_factory=time.monotonic)
    entered: dict[SessionState, datetime] = field(default_factory=dict)  # when it first entered each state
    _stop: asyncio.Future[Outcome] = field(default_factory=_future, repr=False)
    _closers: list[Closer] = field(default_factory=list, repr=False)
    _first_run_at: float | None = field(default=None, repr=False)
    _end_message: str | None = field(default=None, repr=False)  # overrides the message of its report

    @property
    def stop(self) -> asyncio.Future[Outcome]:
        """Done when the session's end was requested."""
        return self._stop

    @property
    def age(self) -> float:
        """Seconds since the admission."""
        return time.monotonic() - self.admitted_at

    def add_closer(self, closer: Closer) -> None:
        """Call ``closer`` at the session's end; the last one added runs first."""
        self._closers.append(closer)

    def add_last_closer(self, closer: Closer) -> None:
        """Like :meth:`add_closer`, but runs last, after the caller has been released."""
        self._closers.insert(0, closer)


@dataclass(frozen=True)
class PastSession:
    id: str
    transport: TransportKind
    report: Report
    entered: Mapping[SessionState, datetime]
    refusal: type[Refusal] | None  # what ended it before its bot ran


class SessionRegistry:
    """Admits sessions and owns their state.

    Args:
        start_grace: Seconds before a waiting session can lose its slot to another one.
        refusal: Gives the launcher's reason to take no session now, or None.
        keeps_bot_errors: False in production, where no one may read them.
        on_session_closed: Awaited at each session's end, after its closers; it still has its slot.
    """

    def __init__(
        self,
        *,
        max_sessions: int | None,
        max_seconds: float | None,
        start_grace: float = 0.0,
        refusal: Callable[[], Refusal | None],
        keeps_bot_errors: bool = False,
        on_session_closed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.created_at = datetime.now(UTC)
        self._keeps_bot_errors = keeps_bot_errors
        self._max_sessions = max_sessions
        self._max_seconds = max_seconds
        self._start_grace = start_grace
        self._refusal = refusal
        self._on_session_closed = on_session_closed
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
        return self._active.get(session_id)

    def report(self, session_id: str) -> Report | None:
        """The report of a session that ended recently."""
        past = self._past.get(session_id)
        return None if past is None else past.report

    def past(self) -> list[PastSession]:
        """Sessions that ended recently, the last one first."""
        return list(reversed(self._past.values()))

    @property
    def full(self) -> bool:
        return self._has_no_free_slot and self._oldest_evictable() is None

    @property
    def _has_no_free_slot(self) -> bool:
        return self._max_sessions is not None and len(self._active) >= self._max_sessions

    def _oldest_evictable(self) -> Session | None:
        """The session that has waited for its peer longest, past its grace."""
        waiting = (
            s for s in self._active.values() if s.is_evictable and s.state is SessionState.WAITING and not s.stop.done()
        )
        return next((session for session in waiting if session.age >= self._start_grace), None)

    @contextlib.contextmanager
    def protect_from_eviction(self, session_id: str) -> Iterator[None]:
        """While an offer is being answered, the session cannot be evicted; if answering fails, it can be again."""
        session = self._active.get(session_id)
        gave_way = session is not None and session.is_evictable
        if session is not None:
            session.is_evictable = False
        try:
            yield
        except BaseException:
            if session is not None:
                session.is_evictable = gave_way
            raise

    async def _free_a_slot(self) -> None:
        found = self._oldest_evictable()
        if found is None:
            return
        found._end_message = f"No caller had connected after {found.age:.0f} s, and another caller needed the slot."
        logger.info(f"Session {found.id} expired after {found.age:.0f} s without a caller; its slot was needed")
        self.cancel(found.id, Outcome.EXPIRED)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.until_ended(found.id), CLOSE_TIMEOUT)

    def refusal(self) -> Refusal | None:
        """The reason why a new session would be refused now, or None."""
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
        is_evictable: bool = False,
        caller: Caller = UNKNOWN_CALLER,
        announce: bool = True,
    ) -> AsyncIterator[Session]:
        """Hold a slot; the end of the scope always runs the session's closers and frees it.

        Args:
            announce: False holds the slot for a request whose session may still be refused. Listeners hear of the
                session, and a report is kept, only after :meth:`announce`.

        Raises:
            Refusal: starting, draining, at capacity, or the id is in use. No session is left behind.
        """
        refusal = self._refusal()
        if refusal is None and session_id in self._active:
            refusal = DuplicateSession("A session with this id is running.")
        if refusal is None and not is_evictable and self._has_no_free_slot:
            await self._free_a_slot()
            if session_id in self._active:
                refusal = DuplicateSession("A session with this id is running.")
        refusal = refusal or self._refusal()
        if refusal is None and self._has_no_free_slot:
            refusal = AtCapacity(f"MAX_SESSIONS ({self._max_sessions}) are running.")
        if refusal is not None:
            refusal.session_id = session_id
            raise refusal
        limits = [limit for limit in (max_seconds, self._max_seconds) if limit is not None]
        session = Session(
            session_id,
            transport,
            min(limits, default=None),
            caller,
            is_evictable=is_evictable,
            is_announced=announce,
        )
        self._active[session_id] = session
        self.enter(session, SessionState.ADMITTED)
        self._empty.clear()
        try:
            yield session
        except Refusal as error:
            session.refusal = error
            raise
        finally:
            try:
                await self._close(session)
                if self._on_session_closed is not None and session.is_announced:
                    await self._on_session_closed()
            except Exception as error:  # the session itself has ended well
                logger.debug(f"After session {session_id}: {type(error).__name__}: {error}")
            finally:
                # No await from here to the report that the session's runner makes.
                del self._active[session_id]
                if session.is_announced:
                    self._remember(session)
                self.enter(session, SessionState.ENDED)
                if not self._active:
                    self._empty.set()

    def _remember(self, session: Session) -> None:
        report, refused = session.report, session.refusal
        if report is None:
            outcome = session.outcome or Outcome.FAILED
            message = MESSAGES.get(outcome, "The session ended before its bot began.")
            report = Report(outcome, message if refused is None else refused.message, 0.0)
        if session._end_message is not None:
            report = Report(Outcome.EXPIRED, session._end_message, report.seconds)
        session.report = report if self._keeps_bot_errors else replace(report, bot_error=None)
        report = session.report
        self._past[session.id] = PastSession(
            session.id, session.transport, report, session.entered, None if refused is None else type(refused)
        )
        self._past.move_to_end(session.id)
        if len(self._past) > MAX_REPORTS:
            self._past.popitem(last=False)

    def enter(self, session: Session, state: SessionState) -> None:
        session.state = state
        session.entered.setdefault(state, datetime.now(UTC))
        self._change.set()
        self._change = asyncio.Event()
        if session.is_announced:
            for listener in self._listeners:
                listener(session)

    def announce(self, session: Session, transport: TransportKind) -> None:
        """Tell the listeners of a session that was admitted without; its request turned out to begin one."""
        if not session.is_announced:
            session.is_announced, session.transport = True, transport
            for listener in self._listeners:
                listener(session)

    def on_change(self, listener: Callable[[Session], None]) -> None:
        """Call ``listener`` whenever a session enters a state; at ENDED it has its report."""
        self._listeners.append(listener)

    def begin_run(self, session: Session) -> float | None:
        """Set a session to RUNNING; returns the seconds left for this run, None without a limit."""
        self.enter(session, SessionState.RUNNING)
        now = time.monotonic()
        session._first_run_at = session._first_run_at or now
        return None if session.max_seconds is None else max(0.0, session._first_run_at + session.max_seconds - now)

    async def wait(self, session: Session, *events: asyncio.Future[Any], timeout: float | None) -> Outcome | None:
        """Keep the slot until one of ``events`` is done or ``timeout`` seconds have passed.

        Returns:
            None if the first event is done or the time has passed. Otherwise the outcome: the requested one, or
            DISCONNECTED if only a later event is done.
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
        """Request a session's end. False when no such session is active."""
        session = self._active.get(session_id)
        if session is None:
            return False
        if not session._stop.done():
            session._stop.set_result(outcome)
        return True

    def cancel_all(self, outcome: Outcome) -> list[str]:
        """Request the end of every session; returns their ids."""
        ids = list(self._active)
        for session_id in ids:
            self.cancel(session_id, outcome)
        return ids

    def changed(self) -> Coroutine[Any, Any, Any]:
        """Wait for the next change of any session's state, counted from this call."""
        return self._change.wait()

    async def until_empty(self, timeout: float | None) -> bool:
        """Wait for the last session to end; False after ``timeout`` seconds."""
        try:
            await asyncio.wait_for(self._empty.wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def until_running(self, session_id: str, timeout: float) -> None:
        """Wait until a session's bot runs. Raises NotRunning after ``timeout`` seconds, UnknownSession if it ended."""
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
