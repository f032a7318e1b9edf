"""The Session API: requests to one session's bot, the list of sessions, and their end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from fastapi import APIRouter
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipecat_base.errors import NotServed, UnknownSession
from pipecat_base.gateway import path_parameters
from pipecat_base.gateway.forwarding import forwarded, rest_of_path
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import POD, PROBES, SESSION_ID, STREAMS
from pipecat_base.server.request_path import PathSet
from pipecat_base.sessions.outcome import Report
from pipecat_base.sessions.registry import Session, SessionRegistry

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
BEFORE_THE_BOT = PathSet(("/api/offer", "/files"))
"""A session takes these before its bot runs: the first is what the bot waits for."""
POD_ALONE = PathSet((*PROBES, *STREAMS, "/bot", "/whatsapp"))
"""What these do is asked for at the gateway's own routes, which check it."""
POD_PATHS = PathSet(POD, below=True)
PATIENCE = 10.0
"""Seconds that a request waits for a bot that does not run yet."""


class SessionApi:
    """Passes requests on to the pod, and manages its sessions.

    Args:
        inside: The pod's own routes and the bot's.
        has_uploads: Whether the pod takes files.
        report_of: Gives the report of a session that has ended lately.
        outdated: Gives the ids of sessions that have code from before a change.
        shows_bot_errors: Whether callers may see what the bot raised, and where.
        patience: Seconds that a request waits for its bot.
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
        patience: float = PATIENCE,
    ) -> None:
        self._registry = registry
        self._outdated = outdated
        self._shows_bot_errors = shows_bot_errors
        self._inside = inside
        self._pending_sessions = pending_sessions
        self._has_uploads = has_uploads
        self._patience = patience
        self._report_of = report_of

    def router(self) -> APIRouter:
        """The routes to serve."""
        router = APIRouter(tags=["sessions"])
        router.add_api_route("/sessions/{session_id}", self.tell, methods=["GET"])
        if self._has_uploads:
            router.add_api_route("/files", self.upload, methods=["POST"])
        router.add_api_route("/sessions/{session_id}", self.stop, methods=["DELETE"])
        for prefix, name in (("", "session"), ("/v1/public/{agent}", "agent_session")):
            for method in METHODS:
                router.add_api_route(
                    f"{prefix}/sessions/{{session_id}}/{{path:path}}",
                    self.short if prefix == "" else self.long,
                    methods=[method],
                    name=f"{name}_{method.lower()}",
                    dependencies=path_parameters.parameters(prefix),
                )
        return router

    def management(self) -> APIRouter:
        """Those about all sessions: as on the platform they are not for whoever may start one."""
        router = APIRouter(tags=["management"])
        router.add_api_route("/sessions", self.list, methods=["GET"])
        return router

    async def list(self) -> JSONResponse:
        """``{"sessions": [{"sessionId", "state", "transport", "age"}]}``; the age in seconds, the oldest first.

        Those that have code from before a change also have ``"outdated": true``.
        """
        outdated = frozenset(self._outdated())
        return JSONResponse({"sessions": [self._line(session, outdated) for session in self._registry]})

    async def tell(self, session_id: str) -> JSONResponse:
        """As in the list; of one that has ended lately ``{"sessionId", "state", "outcome", "message", "report"}``.

        To whoever works on a bot that failed also ``"mistake": {"said", "frames"}``.
        """
        session = self._registry.get(session_id)
        if session is not None:
            return JSONResponse(self._line(session, self._outdated()))
        report = self._registry.report(session_id)
        if report is None:
            raise UnknownSession(session_id)
        ended: dict[str, Any] = {"state": "ended", "outcome": report.outcome.value, "message": report.message}
        if report.bot_error is not None and self._shows_bot_errors:
            ended["mistake"] = {"said": report.bot_error.said, "frames": report.bot_error.frames}
        return JSONResponse({"sessionId": session_id, **ended, "report": self._report_of(session_id)})

    def _line(self, session: Session, outdated: Collection[str]) -> dict[str, Any]:
        return {
            "sessionId": session.id,
            "state": session.state.value,
            "transport": session.transport.value,
            "age": round(session.age, 1),
            **({"outdated": True} if session.id in outdated else {}),
        }

    async def stop(self, session_id: str) -> JSONResponse:
        """Ask for a session's end: its bot is cancelled, its caller disconnected."""
        if not (self._registry.cancel(session_id) or self._pending_sessions.withdraw(session_id)):
            raise UnknownSession(session_id)
        logger.info(f"Session {session_id} is stopped by request")
        return JSONResponse({"status": "stopping", "sessionId": session_id})

    async def upload(self, request: Request) -> Passed:
        """A file before any session, for clients that do not know theirs."""
        return Passed(self._inside, forwarded(request, b"/files"), None)

    async def short(self, request: Request, session_id: str, path: str) -> Passed:
        """Pass it on."""
        return await self._pass_on(request, session_id, 2)

    async def long(self, request: Request, session_id: str, path: str) -> Passed:
        """Pass it on."""
        return await self._pass_on(request, session_id, 5)

    async def _pass_on(self, request: Request, session_id: str, parts: int) -> Passed:
        raw_path = rest_of_path(request, parts)
        POD_PATHS.check_slashes(raw_path)
        path = unquote_to_bytes(raw_path).decode()
        if path in POD_ALONE:
            raise NotServed("Through a session its bot's own routes are reached, /api/offer and /files.")
        if self._registry.get(session_id) is None:
            report = self._registry.report(session_id)
            raise UnknownSession(session_id) if report is None else UnknownSession(session_id, _over(report))
        if path not in BEFORE_THE_BOT:
            await self._registry.until_running(session_id, self._patience)
        asked: str = request.scope["path"]
        prefix = asked[: len(asked) - len(path)]
        return Passed(self._inside, forwarded(request, raw_path, session_id=session_id), session_id, prefix)


class Passed(Response):
    """Answers with what the pod answers, as it comes."""

    def __init__(self, inside: ASGIApp, scope: Scope, session_id: str | None, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix
        self._inside = inside
        self._scope = scope
        self._session_id = session_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = self._session_id
        if session_id is None:
            await self._inside(self._scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault(SESSION_ID, session_id)
                if "location" in headers:
                    headers["location"] = self._for_caller(headers["location"])
            await send(message)

        with logger.contextualize(session_id=session_id):
            await self._inside(self._scope, receive, send_with_id)

    def _for_caller(self, location: str) -> str:
        """Where a redirect of the bot's leads, as its caller knows it: the bot knows neither host nor prefix."""
        try:
            parts = urlsplit(location)
            hostname, _ = parts.hostname, parts.port
        except ValueError:  # a host of "[", say
            return location
        is_ours = not parts.netloc or (parts.scheme, hostname, parts.port) == self._pods_address()
        if not is_ours or not parts.path.startswith("/") or parts.path.startswith(f"{self._prefix}/"):
            return location
        return urlunsplit(("", "", f"{self._prefix}{parts.path}", parts.query, parts.fragment))

    def _pods_address(self) -> tuple[str, str | None, int | None]:
        """As a bot's framework takes it for its own, without the host that the caller has named."""
        host, port = self._scope.get("server") or ("", None)
        return self._scope.get("scheme", "http"), host, port


def _over(report: Report) -> str:
    return f"This session has ended: {report.message}"
