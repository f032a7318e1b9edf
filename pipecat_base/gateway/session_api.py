"""The Session API: requests to one session's bot, the list of sessions, and their end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from pipecat_base.errors import UnknownSession
from pipecat_base.gateway import paths
from pipecat_base.gateway.forwarding import forwarded, rest_of_path
from pipecat_base.gateway.invitations import Invitations
from pipecat_base.gateway.pod import Active, Pod
from pipecat_base.logs import logger
from pipecat_base.paths import SESSION_ID

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
LISTED = ("/v1/agents/{agent}/sessions", "/v1/organizations/{organization}/services/{agent}/sessions")
BEFORE_THE_BOT = ("/api/offer", "/files")
"""A session takes these before its bot runs: the first is what the bot waits for."""
PATIENCE = 10.0
"""Seconds that a request waits for a bot that does not run yet."""


class SessionApi:
    """Passes requests on to the pod, and manages its sessions.

    Args:
        has_uploads: Whether the pod takes files.
        patience: Seconds that a request waits for its bot.
    """

    def __init__(self, pod: Pod, invitations: Invitations, *, has_uploads: bool, patience: float = PATIENCE) -> None:
        self._pod = pod
        self._invitations = invitations
        self._has_uploads = has_uploads
        self._patience = patience

    def router(self) -> APIRouter:
        """The routes to serve."""
        router = APIRouter(tags=["sessions"])
        router.add_api_route("/sessions", self.list, methods=["GET"])
        router.add_api_route("/sessions/{session_id}", self.tell, methods=["GET"])
        if self._has_uploads:
            router.add_api_route("/files", self.upload, methods=["POST"])
        managed = ["/sessions/{session_id}", "/v1/agents/{agent}/sessions/{session_id}"]
        # The command line of Pipecat Cloud asks there.
        managed.append("/v1/organizations/{organization}/services/{agent}/sessions/{session_id}")
        for path, name in zip(managed, ("stop", "stop_of_agent", "stop_of_service"), strict=True):
            router.add_api_route(path, self.stop, methods=["DELETE"], name=name, dependencies=paths.parameters(path))
        for path, name in zip(LISTED, ("list_of_agent", "list_of_service"), strict=True):
            router.add_api_route(
                path, self.list_of_agent, methods=["GET"], name=name, dependencies=paths.parameters(path)
            )
        for prefix, name in (("", "session"), ("/v1/public/{agent}", "agent_session")):
            for method in METHODS:
                router.add_api_route(
                    f"{prefix}/sessions/{{session_id}}/{{path:path}}",
                    self.short if prefix == "" else self.long,
                    methods=[method],
                    name=f"{name}_{method.lower()}",
                    dependencies=paths.parameters(prefix),
                )
        return router

    async def list(self) -> JSONResponse:
        """``{"sessions": [{"sessionId", "state", "transport", "age"}]}``; the age in seconds, the oldest first."""
        return JSONResponse({"sessions": [_line(active) for active in self._pod.sessions()]})

    async def tell(self, session_id: str) -> JSONResponse:
        """As in the list; of one that was started here and has ended lately how it did.

        ``{"sessionId", "state": "ended", "outcome", "message"}``. Callers who came by themselves leave none behind.
        """
        for active in self._pod.sessions():
            if active.session_id == session_id:
                return JSONResponse(_line(active))
        report = self._pod.report(session_id)
        if report is None:
            raise UnknownSession(session_id)
        ended = {"state": "ended", "outcome": report.outcome.value, "message": report.message}
        return JSONResponse({"sessionId": session_id, **ended})

    async def list_of_agent(self) -> JSONResponse:
        """The same with the fields that Pipecat Cloud has: when each began, in ISO 8601, and that it has not ended."""
        now = datetime.now(UTC)
        listed = [
            {
                "sessionId": active.session_id,
                "createdAt": (now - timedelta(seconds=active.age)).isoformat(),
                "endedAt": None,
                "botStartSeconds": None,
                "coldStart": False,
            }
            for active in self._pod.sessions()
        ]
        return JSONResponse({"sessions": listed})

    async def stop(self, session_id: str) -> JSONResponse:
        """Ask for a session's end: its bot is cancelled, its caller disconnected."""
        if not (self._pod.stop(session_id) or self._invitations.withdraw(session_id)):
            raise UnknownSession(session_id)
        logger.info(f"Session {session_id} is stopped by request")
        return JSONResponse({"status": "stopping", "sessionId": session_id})

    async def upload(self, request: Request) -> Passed:
        """A file before any session, for clients that do not know theirs."""
        return Passed(self._pod, forwarded(request, b"/files"), None)

    async def short(self, request: Request, session_id: str, path: str) -> Passed:
        """Pass it on."""
        return await self._pass_on(request, session_id, 2)

    async def long(self, request: Request, session_id: str, path: str) -> Passed:
        """Pass it on."""
        return await self._pass_on(request, session_id, 5)

    async def _pass_on(self, request: Request, session_id: str, parts: int) -> Passed:
        raw_path = rest_of_path(request, parts)
        if raw_path.decode("latin-1") not in BEFORE_THE_BOT:
            await self._pod.until_running(session_id, self._patience)
        elif not self._pod.has(session_id):
            raise UnknownSession(session_id)
        return Passed(self._pod, forwarded(request, raw_path, session_id=session_id), session_id)


class Passed(Response):
    """Answers with what the pod answers, as it comes."""

    def __init__(self, pod: Pod, scope: Scope, session_id: str | None) -> None:
        super().__init__()
        self._pod = pod
        self._scope = scope
        self._session_id = session_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = self._session_id
        if session_id is None:
            await self._pod.serve(self._scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault(SESSION_ID, session_id)
            await send(message)

        with logger.contextualize(session_id=session_id):
            await self._pod.serve(self._scope, receive, send_with_id)


def _line(active: Active) -> dict[str, Any]:
    return {
        "sessionId": active.session_id,
        "state": active.state,
        "transport": active.transport,
        "age": round(active.age, 1),
    }
