"""``POST`` and ``PATCH /api/offer``: a browser offers a WebRTC connection and trickles its candidates."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base.paths import SESSION_ID
from pipecat_base.routes import requests
from pipecat_base.webrtc import WebRTC


class OfferRoutes:
    """Answers offers.

    Args:
        max_body_bytes: The largest body.
    """

    def __init__(self, webrtc: WebRTC, *, max_body_bytes: int) -> None:
        self._webrtc = webrtc
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        """The routes to serve."""
        return [
            Route("/api/offer", self.post, methods=["POST"]),
            Route("/api/offer", self.patch, methods=["PATCH"]),
        ]

    async def post(self, request: Request) -> JSONResponse:
        """``{sdp, type, pc_id}``. An offer that names its connection renegotiates it."""
        session_id = requests.session_id(request)
        max_seconds = requests.max_seconds(request, session_id)
        content = await requests.json_body(request, self._max_body_bytes)
        parts = await self._webrtc.load()
        offer = parts.parse_offer(content)
        if offer.pc_id is not None and (parts.peers.knows(offer.pc_id) or not parts.calls.has(session_id)):
            answer = parts.peers.answer(await parts.peers.renegotiate(offer))
        else:
            # Without a name, or with that of a connection that its session has lost.
            answer = await parts.calls.offer(session_id, offer, max_seconds=max_seconds)
        return JSONResponse(answer, headers={SESSION_ID: session_id})

    async def patch(self, request: Request) -> JSONResponse:
        """``{"status": "success"}``."""
        content = await requests.json_body(request, self._max_body_bytes)
        parts = await self._webrtc.load()
        await parts.peers.trickle(parts.parse_trickle(content))
        return JSONResponse({"status": "success"})
