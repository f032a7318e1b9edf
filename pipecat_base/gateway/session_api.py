"""The Session API: requests to a session's bot, the list of sessions, and their end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from pipecat_base.errors import NotServed, UnknownSession
from pipecat_base.gateway.forwarding import ForwardedResponse, forwarded, rest_of_path
from pipecat_base.gateway.path_parameters import parameters
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import POD, PROBES, STREAMS
from pipecat_base.server.request_path import PathSet
from pipecat_base.sessions.registry import Session, SessionRegistry

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
SERVED_BEFORE_BOT = PathSet(("/api/offer", "/files"))  # the bot may be waiting for that offer
NOT_FORWARDED = PathSet((*PROBES, *STREAMS, "/bot", "/whatsapp"))  # the gateway has checked routes of its own for these
POD_PATHS = PathSet(POD, below=True)
BOT_WAIT_SECONDS = 10.0


class SessionApi:
    """Forwards requests to ``inside``, and manages sessions.

    Args:
        report_of: Gives the report of a session that ended recently.
        outdated: Gives the ids of sessions that run code from before a change.
        bot_wait: Seconds that a request waits until its bot runs.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        inside: ASGIApp,
        pending_sessions: PendingSessions,
        *,
        has_uploads: bool,
        report_of: Callable[[str], Mapping[str, Any] | None],
        outdated: Callable[[], Collection[str]] = tuple,
        shows_bot_errors: bool = False,
        bot_wait: float = BOT_WAIT_SECONDS,
    ) -> None:
        self._registry = registry
        self._outdated = outdated
        self._shows_bot_errors = shows_bot_errors
        self._inside = inside
        self._pending_sessions = pending_sessions
        self._has_uploads = has_uploads
        self._bot_wait = bot_wait
        self._report_of = report_of

    def router(self) -> APIRouter:
        router = APIRouter(tags=["sessions"])
        router.add_api_route("/sessions/{session_id}", self.show, methods=["GET"])
        if self._has_uploads:
            router.add_api_route("/files", self.upload, methods=["POST"])
        router.add_api_route("/sessions/{session_id}", self.stop, methods=["DELETE"])
        for prefix, name in (("", "session"), ("/v1/public/{agent}", "agent_session")):
            for method in METHODS:
                router.add_api_route(
                    f"{prefix}/sessions/{{session_id}}/{{path:path}}",
                    self.forward if prefix == "" else self.forward_for_agent,
                    methods=[method],
                    name=f"{name}_{method.lower()}",
                    dependencies=parameters(prefix),
                )
        return router

    def management(self) -> APIRouter:
        """Routes that need a private key, as on the platform."""
        router = APIRouter(tags=["management"])
        router.add_api_route("/sessions", self.list, methods=["GET"])
        return router

    async def list(self) -> JSONResponse:
        """Sessions, the oldest first, with their age in seconds; ``outdated`` if they run code from before a change."""
        outdated = frozenset(self._outdated())
        return JSONResponse({"sessions": [self._entry(session, outdated) for session in self._registry]})

    async def show(self, session_id: str) -> JSONResponse:
        """A session that runs, or that ended recently."""
        session = self._registry.get(session_id)
        if session is not None:
            return JSONResponse(self._entry(session, self._outdated()))
        report = self._registry.report(session_id)
        if report is None:
            raise UnknownSession(session_id)
        ended: dict[str, Any] = {"state": "ended", "outcome": report.outcome.value, "message": report.message}
        if report.bot_error is not None and self._shows_bot_errors:
            ended["mistake"] = {"said": report.bot_error.summary, "frames": report.bot_error.frames}
        return JSONResponse({"sessionId": session_id, **ended, "report": self._report_of(session_id)})

    def _entry(self, session: Session, outdated: Collection[str]) -> dict[str, Any]:
        return {
            "sessionId": session.id,
            "state": session.state.value,
            "transport": session.transport.value,
            "age": round(session.age, 1),
            **({"outdated": True} if session.id in outdated else {}),
        }

    async def stop(self, session_id: str) -> JSONResponse:
        """Request a session's end: cancels its bot and disconnects its caller."""
        if not (self._registry.cancel(session_id) or self._pending_sessions.remove(session_id)):
            raise UnknownSession(session_id)
        logger.info(f"Session {session_id} is stopped by request")
        return JSONResponse({"status": "stopping", "sessionId": session_id})

    async def upload(self, request: Request) -> ForwardedResponse:
        """Upload a file for no session, for clients that do not know theirs."""
        return ForwardedResponse(self._inside, forwarded(request, b"/files"), None)

    async def forward(self, request: Request, session_id: str, path: str) -> ForwardedResponse:
        return await self._forward(request, session_id, prefix_parts=2)

    async def forward_for_agent(self, request: Request, session_id: str, path: str) -> ForwardedResponse:
        return await self._forward(request, session_id, prefix_parts=5)

    async def _forward(self, request: Request, session_id: str, *, prefix_parts: int) -> ForwardedResponse:
        raw_path = rest_of_path(request, prefix_parts)
        POD_PATHS.check_slashes(raw_path)
        path = unquote_to_bytes(raw_path).decode()
        if path in NOT_FORWARDED:
            raise NotServed("Through a session its bot's own routes are reached, /api/offer and /files.")
        if self._registry.get(session_id) is None:
            report = self._registry.report(session_id)
            if report is None:
                raise UnknownSession(session_id)
            raise UnknownSession(session_id, f"This session has ended: {report.message}")
        if path not in SERVED_BEFORE_BOT:
            await self._registry.until_running(session_id, self._bot_wait)
        full_path: str = request.scope["path"]
        prefix = full_path[: len(full_path) - len(path)]
        return ForwardedResponse(self._inside, forwarded(request, raw_path, session_id=session_id), session_id, prefix)
