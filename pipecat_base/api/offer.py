"""``POST`` and ``PATCH /api/offer``: WebRTC offers and ICE candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base.api import requests
from pipecat_base.server.paths import SESSION_ID
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import TransportKind

if TYPE_CHECKING:
    from pipecat_base.bot.pod import LocalPod


class OfferRoutes:
    def __init__(self, pod: LocalPod, *, max_body_bytes: int) -> None:
        self._pod = pod
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/api/offer", self.post, methods=["POST"]),
            Route("/api/offer", self.patch, methods=["PATCH"]),
        ]

    async def post(self, request: Request) -> JSONResponse:
        session_id = requests.session_id(request)
        max_seconds = requests.max_seconds(request, session_id)
        content = await requests.json_body(request, self._max_body_bytes)
        answer = await self._pod.offer(
            SessionRequest(session_id, TransportKind.WEBRTC, max_seconds, caller=requests.caller(request)), content
        )
        return JSONResponse(answer, headers={SESSION_ID: session_id})

    async def patch(self, request: Request) -> JSONResponse:
        content = await requests.json_body(request, self._max_body_bytes)
        await self._pod.trickle(content)
        return JSONResponse({"status": "success"})
