"""What the gateway knows of the pod behind it.

One interface, so that later several processes or pods can be behind it. :class:`LocalPod` is the launcher in this
process: nothing is copied on the way, and sessions are those of :class:`~pipecat_base.sessions.Sessions`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.arguments import ArgumentFactory
from pipecat_base.dispatch import Dispatch, Start
from pipecat_base.errors import AtCapacity, NotRunning, Refusal, UnknownSession
from pipecat_base.lifecycle import Lifecycle
from pipecat_base.logs import logger
from pipecat_base.outcomes import Outcome, Report
from pipecat_base.sessions import Sessions, State
from pipecat_base.webrtc import WebRTC

REPORTS = 100
"""Sessions whose ends are remembered."""


@dataclass(frozen=True)
class Active:
    """A session as the gateway lists it; ``age`` is in seconds."""

    session_id: str
    state: str
    transport: str
    age: float


class Pod(Protocol):
    """Runs sessions."""

    @property
    def state(self) -> str:
        """That of the launcher."""

    @property
    def takes_files(self) -> bool:
        """Whether there is a storage for uploads."""

    def holding(self) -> AbstractContextManager[None]:
        """Around the making of what a start needs: the pod is not shut down meanwhile."""

    def refusal(self) -> Refusal | None:
        """Why a session would not be started now, or None."""

    async def start(self, start: Start) -> None:
        """Start a session; it goes on after this returns.

        Raises:
            Refusal: it has no place, or failed before it had one.
        """

    def sessions(self) -> list[Active]:
        """Those that have a place."""

    def stop(self, session_id: str) -> bool:
        """Ask for a session's end; False when there is none of this id."""

    async def until_running(self, session_id: str, timeout: float) -> None:
        """Wait until a session's bot runs.

        Raises:
            UnknownSession: there is none of this id, or no longer.
            NotRunning: ``timeout`` seconds were not enough.
        """

    async def until_ended(self, session_id: str) -> None:
        """Wait until there is no session of this id."""

    def report(self, session_id: str) -> Report | None:
        """How a session that was started here has ended, if that was lately."""

    def has(self, session_id: str) -> bool:
        """Whether there is a session of this id."""

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        """What clients should use too; None when nothing is configured."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hold a WebSocket, as the pod's own routes and the bot's do, for the gateway."""


class LocalPod:
    """The launcher in this process.

    Args:
        app: Its web application, before any guard.
    """

    def __init__(
        self,
        app: ASGIApp,
        dispatch: Dispatch,
        sessions: Sessions,
        lifecycle: Lifecycle,
        webrtc: WebRTC | None,
        arguments: ArgumentFactory,
    ) -> None:
        self._app = app
        self._dispatch = dispatch
        self._sessions = sessions
        self._lifecycle = lifecycle
        self._webrtc = webrtc
        self._arguments = arguments
        self._running: set[asyncio.Task[None]] = set()
        self._reports: OrderedDict[str, Report] = OrderedDict()

    @property
    def state(self) -> str:
        return self._lifecycle.state.value

    @property
    def takes_files(self) -> bool:
        return self._arguments.file_storage is not None

    def holding(self) -> AbstractContextManager[None]:
        return self._sessions.holding()

    def refusal(self) -> Refusal | None:
        refusal = self._lifecycle.refusal()
        if refusal is None and self._sessions.full:
            return AtCapacity("Every place is taken (MAX_SESSIONS).")
        return refusal

    async def start(self, start: Start) -> None:
        running = asyncio.ensure_future(self._run(start))
        self._running.add(running)
        running.add_done_callback(self._note_end)
        while not running.done():
            changed = asyncio.ensure_future(self._sessions.changed())
            session = self._sessions.get(start.session_id)
            if session is not None and session.state is not State.ADMITTED:  # its arguments are made
                changed.cancel()
                return
            await asyncio.wait({running, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        running.result()

    async def _run(self, start: Start) -> None:
        report = await self._dispatch.run(start)
        self._reports[start.session_id] = report
        if len(self._reports) > REPORTS:
            self._reports.popitem(last=False)

    def _note_end(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        error = None if running.cancelled() else running.exception()
        if isinstance(error, Refusal):
            with logger.contextualize(session_id=error.session_id or "NONE"):
                logger.info(f"Session over: {error.code}: {error.message}")
        elif error is not None:
            logger.opt(exception=error).error(f"A session could not be run: {type(error).__name__}")

    def sessions(self) -> list[Active]:
        now = time.monotonic()
        return [Active(s.id, s.state.value, s.transport.value, now - s.admitted_at) for s in self._sessions]

    def stop(self, session_id: str) -> bool:
        return self._sessions.cancel(session_id, Outcome.CANCELLED)

    def report(self, session_id: str) -> Report | None:
        return self._reports.get(session_id)

    def has(self, session_id: str) -> bool:
        return self._sessions.get(session_id) is not None

    async def until_running(self, session_id: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            changed = asyncio.ensure_future(self._sessions.changed())
            try:
                session = self._sessions.get(session_id)
                if session is None:
                    raise UnknownSession(session_id)
                if session.state is State.RUNNING:
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    message = f"The bot does not run yet: the session is {session.state.value}."
                    raise NotRunning(message, session_id=session_id)
                await asyncio.wait({changed}, timeout=left)
            finally:
                changed.cancel()

    async def until_ended(self, session_id: str) -> None:
        while self.has(session_id):
            await self._sessions.changed()

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        return None if self._webrtc is None else await self._webrtc.configured_ice_servers()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
