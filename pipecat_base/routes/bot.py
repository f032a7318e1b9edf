"""``POST /bot``: the platform starts a session, and gets its answer when the session has ended."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base.dispatch import DailyRoom, Dispatch, Nowhere, OfferToCome, Place, Start
from pipecat_base.errors import Malformed, NotSupported
from pipecat_base.routes import requests
from pipecat_base.sessions import Outcome, Report
from pipecat_base.webrtc import NOT_INSTALLED

ROOM_URL = "x-daily-room-url"
ROOM_TOKEN = "x-daily-room-token"  # noqa: S105
TRANSPORT_TYPE = "x-daily-transport-type"
START_ENVELOPE = "x-pcc-start-envelope"
OUTCOME = "x-pipecat-session-outcome"
"""On the answer: the session's outcome, since only a failed one differs in status."""


class BotRoute:
    """Runs plain and Daily sessions, and those that wait for a WebRTC offer.

    Args:
        failure_status: The HTTP status for a bot that failed.
        max_body_bytes: The largest body.
    """

    def __init__(self, dispatch: Dispatch, *, failure_status: int, max_body_bytes: int) -> None:
        self._dispatch = dispatch
        self._failure_status = failure_status
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        """The routes to serve."""
        return [Route("/bot", self.post, methods=["POST"])]

    async def post(self, request: Request) -> JSONResponse:
        """200 ``{}``, or the failure's status and ``{"error": {"code", "message", "session_id"}}``."""
        session_id = requests.session_id(request)
        place = self._place(request, session_id)
        max_seconds = requests.max_seconds(request)
        body, flow_config = _open_envelope(request, await requests.json_body(request, self._max_body_bytes))
        start = Start(session_id, place, body, flow_config, max_seconds)
        return self._answer(session_id, await self._dispatch.run(start, partial(_until_gone, request)))

    def _place(self, request: Request, session_id: str) -> Place:
        if request.headers.get(TRANSPORT_TYPE, "").strip().lower() == "webrtc":
            if not self._dispatch.takes_offers:
                raise NotSupported(NOT_INSTALLED, field=TRANSPORT_TYPE, session_id=session_id)
            return OfferToCome()
        room_url = request.headers.get(ROOM_URL, "").strip()
        return DailyRoom(room_url, request.headers.get(ROOM_TOKEN) or None) if room_url else Nowhere()

    def _answer(self, session_id: str, report: Report) -> JSONResponse:
        headers = {OUTCOME: report.outcome.value, requests.SESSION_ID: session_id}
        if report.outcome is not Outcome.FAILED:
            return JSONResponse({}, headers=headers)
        error = {"code": "bot_failed", "message": report.message, "session_id": session_id}
        return JSONResponse({"error": error}, self._failure_status, headers)


async def _until_gone(request: Request) -> None:
    """Wait until the caller has hung up. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _open_envelope(request: Request, content: Any) -> tuple[Any, Any]:
    """``(body, flow_config)``: with ``X-Pcc-Start-Envelope: 1`` both come in one object."""
    if request.headers.get(START_ENVELOPE, "").strip() != "1":
        return content, None
    if not isinstance(content, dict):
        raise Malformed("The start envelope is not an object.", field="body")
    if "body" not in content:
        raise Malformed('The start envelope has no "body".', field="body.body")
    flow_config = content.get("flow_config")
    if flow_config is not None and not isinstance(flow_config, dict):
        raise Malformed("Not an object.", field="body.flow_config")
    body = content["body"]
    return ({} if body is None else body), flow_config
