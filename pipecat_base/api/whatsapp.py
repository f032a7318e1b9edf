"""``POST /whatsapp``: Meta's webhook. ``GET /whatsapp``: its verification, when the webhook is registered."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from pipecat_base.api import requests
from pipecat_base.api.whatsapp_calls import webhook
from pipecat_base.errors import SignatureMissing, Unauthorized
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import SESSION_ID

if TYPE_CHECKING:
    from pipecat_base.api.whatsapp_calls import WhatsApp

ANSWER_WAIT_SECONDS = 4.0  # Meta redelivers a webhook that is not acknowledged in time


class WhatsAppRoutes:
    def __init__(
        self, whatsapp: WhatsApp, *, app_secret: str, verification_tokens: Sequence[str], max_body_bytes: int
    ) -> None:
        self._whatsapp = whatsapp
        self._app_secret = app_secret
        self._verification_tokens = verification_tokens
        self._max_body_bytes = max_body_bytes

    def routes(self) -> list[Route]:
        return [
            Route("/whatsapp", self.post, methods=["POST"]),
            Route("/whatsapp", self.get, methods=["GET"]),
        ]

    async def post(self, request: Request) -> JSONResponse:
        """Answers 200 to every signed webhook: Meta would redeliver it after any other status."""
        session_id = requests.session_id(request)
        try:
            return await self._answer(request, session_id)
        finally:
            self._whatsapp.release(session_id)  # unless a call has taken the session over

    async def _answer(self, request: Request, session_id: str) -> JSONResponse:
        signature = request.headers.get(webhook.SIGNATURE)
        if not signature:
            raise SignatureMissing("This request has no signature.", field=webhook.SIGNATURE)
        body = await requests.raw_body(request, self._max_body_bytes)
        webhook.check_signature(self._app_secret, body, signature)
        content = await requests.parse(body)
        max_seconds = requests.max_seconds(request, session_id)
        answering: list[asyncio.Future[None]] = []
        for event in webhook.events(content):
            if isinstance(event, webhook.Other):
                logger.info(f"WhatsApp: ignored {event.kind}")
                continue
            calls = await self._whatsapp.load()
            if isinstance(event, webhook.Terminate):
                calls.terminate(event.call_id)
            else:
                answering.append(calls.connect(session_id, event, max_seconds=max_seconds))
        if answering:
            await asyncio.wait(answering, timeout=ANSWER_WAIT_SECONDS)
        return JSONResponse({"status": "success"}, headers={SESSION_ID: session_id})

    async def get(self, request: Request) -> PlainTextResponse:
        """Answers with the challenge (developers.facebook.com/docs/graph-api/webhooks/getting-started)."""
        query = request.query_params
        given = query.get("hub.verify_token", "").encode()
        if not self._verification_tokens:
            raise Unauthorized("WHATSAPP_WEBHOOK_VERIFICATION_TOKEN is not set here.")
        if query.get("hub.mode") != "subscribe":
            raise Unauthorized("Not subscribe.", field="hub.mode")
        if not any(hmac.compare_digest(given, expected.encode()) for expected in self._verification_tokens):
            raise Unauthorized(
                "Not the value of WHATSAPP_WEBHOOK_VERIFICATION_TOKEN, nor a public API key.", field="hub.verify_token"
            )
        return PlainTextResponse(query.get("hub.challenge", ""))
