"""Webhooks that start sessions: Daily's dial-in calls, and WhatsApp's calls at the platform's path."""

from __future__ import annotations

import uuid
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from pipecat_base.api import requests
from pipecat_base.auth import signatures
from pipecat_base.auth.keys import Keys
from pipecat_base.errors import Malformed, NotSupported
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.forwarding import ForwardedResponse, forwarded
from pipecat_base.gateway.path_parameters import parameters
from pipecat_base.sessions.pod import Pod, SessionRequest
from pipecat_base.sessions.transports import DailyRoom, TransportKind

REQUIRED_FIELDS = ("From", "To", "callId", "callDomain")


class Webhooks:
    """Daily's webhooks need a signature with ``dialin_secret``, or a key if that is None."""

    def __init__(
        self,
        pod: Pod,
        inside: ASGIApp,
        daily: Daily,
        keys: Keys,
        *,
        dialin_secret: str | None,
        max_body_bytes: int,
    ) -> None:
        self._pod = pod
        self._inside = inside
        self._daily = daily
        self._keys = keys
        self._dialin_secret = dialin_secret
        self._max_body_bytes = max_body_bytes

    def router(self) -> APIRouter:
        router = APIRouter(tags=["webhooks"])
        router.add_api_route("/daily-dialin-webhook", self.dialin, methods=["POST"])
        prefix = "/v1/public/webhooks/{organization}/{agent}"
        of_agent = APIRouter(prefix=prefix, dependencies=parameters(prefix))
        of_agent.add_api_route("/dialin", self.dialin, methods=["POST"], name="dialin_of_agent")
        of_agent.add_api_route("/whatsapp", self.whatsapp, methods=["POST"])
        of_agent.add_api_route("/whatsapp", self.whatsapp, methods=["GET"], name="whatsapp_verification")
        router.include_router(of_agent)
        return router

    async def dialin(self, request: Request) -> JSONResponse:
        """Start a bot in a room for a call that waits at Daily (docs.daily.co, pinless dial-in)."""
        raw = await requests.raw_body(request, self._max_body_bytes)
        if self._dialin_secret is not None:
            signatures.check_daily(self._dialin_secret, request.headers, raw)
        else:
            await self._keys.check(request)
        call = await requests.parse(raw)
        if not isinstance(call, dict):
            raise Malformed("Not an object.", field="body")
        if call.get("test") or call.get("Test"):  # Daily tests a webhook when it is registered
            return JSONResponse({"status": "OK"})
        for name in REQUIRED_FIELDS:
            if not isinstance(call.get(name), str) or not call[name]:
                raise Malformed("Missing, or not a string.", field=name)
        return JSONResponse(await self._start(call))

    async def _start(self, call: dict[str, Any]) -> dict[str, str]:
        if self._daily.api_key is None:
            raise NotSupported("Daily is not configured here: set DAILY_API_KEY.")
        settings = {"call_id": call["callId"], "call_domain": call["callDomain"], "To": call["To"]}
        settings |= {"From": call["From"], "sip_headers": call.get("sipHeaders")}
        body = {
            "dialin_settings": settings,
            "daily_api_key": self._daily.api_key,
            "daily_api_url": self._daily.api_url,
        }
        session_id = str(uuid.uuid4())
        async with self._pod.reserve(SessionRequest(session_id, TransportKind.DAILY)) as slot:
            room = await self._daily.create_for_phone(call["From"])
            async with self._daily.deleting_on_failure(room):
                await slot.start(DailyRoom(room.url, room.token), body)
        return {"dailyRoom": room.url, "dailyToken": room.token, "sessionId": session_id}

    async def whatsapp(self, request: Request) -> ForwardedResponse:
        """The pod checks Meta's signature."""
        session_id = str(uuid.uuid4())
        return ForwardedResponse(self._inside, forwarded(request, b"/whatsapp", session_id=session_id), session_id)
