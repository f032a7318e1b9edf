"""``POST /bot``: runs a session, and answers at its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base.api import requests
from pipecat_base.api.capabilities import Capabilities
from pipecat_base.api.flow_config import ENVELOPE, open_envelope
from pipecat_base.errors import MoqRefused, NotSupported
from pipecat_base.server.paths import SESSION_ID
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.pod import SessionRequest, SessionSlot
from pipecat_base.sessions.transports import DailyRoom, MoqRelay, NoTransport, PendingWebRTC, Transport, TransportKind

if TYPE_CHECKING:
    from pipecat_base.bot.pod import LocalPod

ROOM_URL = "x-daily-room-url"
ROOM_TOKEN = "x-daily-room-token"  # noqa: S105
TRANSPORT_TYPE = "x-daily-transport-type"
MOQ_RELAY_URL = "x-moq-relay-url"
MOQ_NAMESPACE = "x-moq-namespace"
NO_MOQ = "this image reports no MoQ support"
NO_RELAY = "its start carries no relay URL or namespace (X-Moq-Relay-Url, X-Moq-Namespace)"
OUTCOME = "x-pipecat-session-outcome"  # only a failed session differs in its status


def wants_webrtc(request: Request) -> bool:
    return request.headers.get(TRANSPORT_TYPE, "").strip().lower() == "webrtc"


class BotRoute:
    """Runs plain, Daily and MoQ sessions, and sessions that wait for a WebRTC offer."""

    def __init__(self, pod: LocalPod, capabilities: Capabilities, *, failure_status: int, max_body_bytes: int) -> None:
        self._pod = pod
        self._capabilities = capabilities
        self._failure_status = failure_status
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        return [Route("/bot", self.post, methods=["POST"])]

    async def post(self, request: Request) -> JSONResponse:
        """200 ``{}``, or the failure's status and ``{"error": {"code", "message", "session_id"}}``."""
        session_id = requests.session_id(request)
        max_seconds = requests.max_seconds(request, session_id)
        content = await requests.json_body(request, self._max_body_bytes)
        body, flow_config = open_envelope(content, request.headers.get(ENVELOPE))
        transport = await self._transport(request, session_id)
        wanted = SessionRequest(session_id, transport.kind, max_seconds, caller=requests.caller(request))
        async with self._pod.reserve(wanted) as slot:
            watching = asyncio.ensure_future(_watch(request, slot)) if transport.kind is TransportKind.WEBRTC else None
            try:
                report = await slot.run(transport, body, flow_config=flow_config)
            finally:
                if watching is not None:
                    watching.cancel()
        return bot_response(session_id, report, self._failure_status)

    async def _transport(self, request: Request, session_id: str) -> Transport:
        """Prefers a MoQ relay, then a Daily room, then a WebRTC peer."""
        transport_type = request.headers.get(TRANSPORT_TYPE, "").strip()
        if transport_type == "moq":
            return await self._relay(request, session_id)
        room_url, room_token = (request.headers.get(name, "").strip() for name in (ROOM_URL, ROOM_TOKEN))
        is_webrtc = wants_webrtc(request)
        if room_url and (room_token or not is_webrtc):
            return DailyRoom(room_url, room_token or None)
        if not is_webrtc:
            return NoTransport()
        if self._pod.about.webrtc_problem is not None:
            raise NotSupported(self._pod.about.webrtc_problem, field=TRANSPORT_TYPE, session_id=session_id)
        return PendingWebRTC()

    async def _relay(self, request: Request, session_id: str) -> MoqRelay:
        reason = await self._capabilities.why_not("transport.moq", unknown=NO_MOQ)
        if reason is not None:
            raise MoqRefused(reason, session_id=session_id)
        url, namespace = (request.headers.get(name, "").strip() for name in (MOQ_RELAY_URL, MOQ_NAMESPACE))
        if not (url and namespace):
            raise MoqRefused(NO_RELAY, session_id=session_id)
        return MoqRelay(url, namespace)


def bot_response(session_id: str, report: Report, failure_status: int) -> JSONResponse:
    headers = {OUTCOME: report.outcome.value, SESSION_ID: session_id}
    if report.outcome is not Outcome.FAILED:
        return JSONResponse({}, headers=headers)
    error = {"code": "bot_failed", "message": report.message, "session_id": session_id}
    return JSONResponse({"error": error}, failure_status, headers)


async def _watch(request: Request, slot: SessionSlot) -> None:
    """Report the caller's disconnect to the slot. The request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    slot.on_disconnect()
